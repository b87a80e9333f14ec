"""Checkpoints are restored to the bit, the best is kept, and what is not a checkpoint is refused in one line."""

import gc
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from toy import ToyNet, toy_config

from crnn_jax.config import override
from crnn_jax.training.checkpoint import CheckpointError, Checkpoints, find_model, load_variables, save_inference
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.parallel import fetch, replicate
from crnn_jax.training.start import images_seen
from crnn_jax.training.state import create_state, variables

CONFIG = toy_config()


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level("ERROR", logger="absl")


def make_state(seed: int = 0):
    tx = make_optimizer(CONFIG.optimizer, CONFIG.run.steps)
    state = create_state(jax.random.key(seed), ToyNet(), tx, CONFIG.model)
    return state.replace(ema_params=jax.tree.map(lambda x: 0.5 * x, state.ema_params))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir whose checkpoints 10, 20, 30, 40 scored 50, 90, 60 and nothing: 20 is the best, 30 and 40 the last."""
    workdir = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(workdir, CONFIG)
    for step, accuracy in ((10, 50.0), (20, 90.0), (30, 60.0), (40, None)):
        state = fetch(make_state(step).replace(step=np.int32(step)))
        checkpoints.save(step, state, None if accuracy is None else {"word_accuracy": accuracy, "loss": 1.0})
    checkpoints.close()
    return workdir


def test_the_best_and_the_last_are_kept(run):
    assert sorted(int(path.name) for path in (run / "checkpoints").iterdir()) == [20, 30, 40]


def test_the_last_is_restored_to_the_bit(run):
    checkpoints = Checkpoints(run, CONFIG)
    assert checkpoints.latest == 40
    restored = checkpoints.restore(make_state())
    expected = fetch(make_state(40).replace(step=np.int32(40)))
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, restored, expected)


def test_a_checkpoint_of_eight_devices_opens_on_one(tmp_path):
    assert len(jax.devices()) == 8
    state = replicate(make_state(3))
    checkpoints = Checkpoints(tmp_path, CONFIG)
    checkpoints.save(2, fetch(state), None)
    expected = float(sum(abs(leaf).sum(dtype=np.float64) for leaf in jax.tree.leaves(fetch(variables(state)))))
    code = f"""
import jax, numpy as np
from crnn_jax.training.checkpoint import load_variables
assert len(jax.devices()) == 1
leaves = jax.tree.leaves(jax.device_put(load_variables({str(tmp_path)!r})[1]))
print(float(sum(abs(np.asarray(leaf)).sum(dtype=np.float64) for leaf in leaves)))
"""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == expected


def test_other_words_are_refused(tmp_path):
    words = {"words of a batch from disk": 44, "words of a": "7 (1234abcd)"}
    checkpoints = Checkpoints(tmp_path, CONFIG, words=words)
    checkpoints.save(2, fetch(make_state()), None)
    checkpoints.close()
    with pytest.raises(CheckpointError, match=r"words of a batch from disk: 44 before, 40 now: .*cpu_devices"):
        Checkpoints(tmp_path, CONFIG, words=words | {"words of a batch from disk": 40}).restore(make_state())
    with pytest.raises(CheckpointError, match=r"words of a: 7 \(1234abcd\) before, 6 \(1234abcd\) now: "):
        Checkpoints(tmp_path, CONFIG, words=words | {"words of a": "6 (1234abcd)"}).restore(make_state())
    Checkpoints(tmp_path, CONFIG, words=words).restore(make_state())


def test_a_run_gives_the_averaged_parameters_of_its_best_checkpoint(run):
    config, loaded = load_variables(run)
    assert config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, loaded, fetch(variables(make_state(20))))
    _, loaded = load_variables(run / "checkpoints" / "40")
    jax.tree.map(np.testing.assert_array_equal, loaded, fetch(variables(make_state(40))))


def test_a_run_without_an_evaluation_gives_its_last_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path, CONFIG)
    for step in (2, 4):
        checkpoints.save(step, fetch(make_state(step)), None)
    jax.tree.map(np.testing.assert_array_equal, load_variables(tmp_path)[1], fetch(variables(make_state(4))))


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 0), ("bfloat16", 2**-8)])
def test_inference_checkpoint_round_trip(tmp_path, dtype, rtol):
    model = tmp_path / "model"
    for seed in (1, 2):  # the second replaces the first
        save_inference(model, CONFIG, variables(make_state(seed)), {"note": "a toy"}, dtype=dtype)
    config, loaded = load_variables(model)
    assert config == CONFIG
    close = partial(np.testing.assert_allclose, rtol=rtol, atol=1e-30)
    jax.tree.map(close, loaded, fetch(variables(make_state(2))))
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype("float32")}
    assert json.loads((model / "card.json").read_text()) == {"note": "a toy"}
    assert (model / "charset.txt").read_text() == "0123456789\n"


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    for name in ("empty", "text", "missing"):
        with pytest.raises(CheckpointError, match=name) as error:
            load_variables(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="neither a folder nor a bundled model"):
        find_model("no_such_model")
    assert find_model(str(tmp_path / "empty")) == tmp_path / "empty"
    with pytest.raises(CheckpointError, match=f"^{tmp_path}/text/model cannot be written: "):
        save_inference(tmp_path / "text" / "model", CONFIG, variables(make_state()), {})


def test_a_folder_with_the_name_of_a_bundled_model(tmp_path, monkeypatch):
    """The name alone means the bundled model; a Path, or a path with a folder in it, means that folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert find_model("tiny").parent.name == "pretrained"
    assert find_model("./tiny") == find_model(Path("tiny")) == Path("tiny")
    assert load_variables("tiny")[0].name == "tiny" and images_seen("tiny") > 10_000_000
    with pytest.raises(CheckpointError, match="tiny holds no checkpoint"):
        load_variables(Path("tiny"))


def parts(folder):
    """The files of a folder, except for the empty ones, which are markers of Orbax."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 0)


@pytest.mark.parametrize("how", ["removed", "truncated"])
@pytest.mark.parametrize("kind", ["run", "model"])
def test_a_checkpoint_cut_short(run, tmp_path, kind, how):
    """Whatever file is damaged: the right numbers, or one clear line."""
    whole = tmp_path / "whole"
    if kind == "run":
        shutil.copytree(run / "checkpoints" / "40", whole)
    else:
        save_inference(whole, CONFIG, variables(make_state(40)), {})
    expected = fetch(variables(make_state(40)))
    refused = []
    for path in parts(whole):
        damaged = tmp_path / "damaged"
        shutil.copytree(whole, damaged)
        victim = damaged / path.relative_to(whole)
        if how == "removed":
            victim.unlink()
        else:
            victim.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        try:
            _, loaded = load_variables(damaged)
            jax.tree.map(np.testing.assert_array_equal, loaded, expected)
        except CheckpointError as error:
            assert str(damaged) in str(error) and "\n" not in str(error)
            refused.append(path.name)
        shutil.rmtree(damaged)
    gc.collect()
    assert len(refused) >= 3, refused  # arrays, their manifest, and the config at the least


def test_resuming_a_checkpoint_cut_short(run, tmp_path):
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    for path in parts(tmp_path / "checkpoints" / "40" / "state"):
        path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(CheckpointError, match=r"checkpoints/40.* cut short") as error:
        Checkpoints(tmp_path, CONFIG).restore(make_state())
    assert "\n" not in str(error.value)
    gc.collect()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["optimizer.learning_rate=0.5"], "optimizer.learning_rate was 0.003, now 0.5"),
        (["model.lstm_features=9", "run.seed=3"], "run.seed was 0, now 3"),
        (["model.charset=abc"], "model.charset was '0123456789', now 'abc'"),
        (["data.held_out_words=8"], "data.held_out_words was 40, now 8"),  # they choose the best
    ],
)
def test_another_configuration_is_refused_and_its_fields_named(run, change, named):
    with pytest.raises(CheckpointError, match=named):
        Checkpoints(run, override(CONFIG, change)).restore(make_state())


def test_periods_may_change_on_the_way(run):
    changed = override(CONFIG, ["run.log_every=4", "run.keep=5", "data.max_damaged=0.5"])
    assert Checkpoints(run, changed).restore(make_state()).step == 40


def test_dispatches_that_would_miss_the_end_of_the_run_are_refused(run):
    periods = ["run.steps_per_dispatch=3", "run.log_every=3", "run.eval_every=3", "run.checkpoint_every=3"]
    with pytest.raises(CheckpointError, match="checkpoints/40: its step is not a multiple of .* = 3"):
        Checkpoints(run, override(CONFIG, periods)).restore(make_state())


def test_a_charset_that_no_longer_means_the_same_is_refused(run, tmp_path):
    shutil.copytree(run / "checkpoints" / "40", tmp_path / "40")
    meta = tmp_path / "40" / "meta" / "metadata"
    meta.write_text(
        meta.read_text().replace('"charset": "0123456789", "position"', '"charset": "9876543210", "position"')
    )
    with pytest.raises(CheckpointError, match="charset '9876543210'"):
        load_variables(tmp_path / "40")
