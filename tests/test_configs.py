"""Every experiment's config: it loads, its docstring has the command, and a step of it has the right shapes."""

import ast
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from small import EXPERIMENTS, load_script

from crnn_jax.config import ConfigError
from crnn_jax.model import build, num_frames
from crnn_jax.synth.batch import Batch
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.state import create_state
from crnn_jax.training.step import train_step

NAMES = sorted(path.stem for path in (EXPERIMENTS / "configs").glob("*.py"))
train_script = load_script("train")
load_config = train_script.load_config


def test_the_configs_are_found():
    assert {"quickstart", "tiny", "small", "crnn", "stn_crnn"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_bears_its_files_name_and_says_its_command(name):
    docstring = ast.get_docstring(ast.parse((EXPERIMENTS / "configs" / f"{name}.py").read_text()))
    assert load_config(name).name == name
    assert "python experiments/train.py" in docstring and (name == "quickstart" or f"--config {name}" in docstring)


def test_a_config_of_ones_own_is_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text('from crnn_jax.config import Config\n\n\ndef get_config():\n    return Config(name="mine")\n')
    assert load_config(str(path)).name == "mine"
    assert load_config("tiny.py") == load_config("tiny")
    for name, text in (("empty", ""), ("typo", "def get_config(:"), ("nothing", "def get_config():\n    pass")):
        (tmp_path / f"{name}.py").write_text(text)
    for name, message in (
        (f"{tmp_path}/none.py", f"no config '{tmp_path}/none.py': expected a .py file, or a name in .*: .*quickstart"),
        (f"{tmp_path}/empty.py", f"{tmp_path}/empty.py: AttributeError: .* has no attribute 'get_config'"),
        (f"{tmp_path}/typo.py", f"{tmp_path}/typo.py: SyntaxError: "),
        (f"{tmp_path}/nothing.py", rf"{tmp_path}/nothing.py: get_config\(\) returned NoneType, not a Config"),
        ("mine", "no config 'mine': expected .*, or a name in .*: .*quickstart"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_takes_a_batch_of_its_words(name):
    """Traced, not compiled: the large ones would take minutes."""
    config = load_config(name)
    model, tx = build(config.model), make_optimizer(config.optimizer, config.run.steps)
    state = jax.eval_shape(lambda key: create_state(key, model, tx, config.model), jax.random.key(0))
    size, slots = (8, config.model.height, config.model.width), config.data.max_length
    batch = jax.eval_shape(
        lambda: Batch(jnp.zeros(size, jnp.uint8), jnp.zeros((8, slots), jnp.int32), jnp.zeros(8, jnp.int32))
    )
    step = partial(train_step, model=model, tx=tx, ema_decay=config.optimizer.ema_decay)
    after, metrics = jax.eval_shape(step, state, batch, jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics["loss"].shape == () and metrics["loss"].dtype == jnp.float32
    assert num_frames(config.model, config.model.width) >= slots


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_real")])
def test_a_fine_tuned_twin_has_the_network_and_the_rendered_words_of_the_other(name):
    twin, other = load_config(name), load_config(name.removesuffix("_real"))
    assert (twin.model, replace(twin.data, share_real=0.0)) == (other.model, other.data)
    assert twin.data.share_real == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_processes", "2", "--process_id", "1"], "--num_processes and --process_id need a --coordinator"),
        (["--coordinator", "nonsense"], "--coordinator nonsense: expected HOST:PORT"),
        (
            ["--coordinator", "a:1", "--num_processes", "2", "--process_id", "2"],
            "expected 0 to 1, below --num_processes",
        ),
    ],
)
def test_hosts_that_cannot_find_each_other_are_refused(capsys, arguments, message):
    with pytest.raises(SystemExit):
        train_script.main(arguments)
    assert message in capsys.readouterr().err
