"""What a run writes about its spatial transformer: numbers, pictures, and a line when it has collapsed."""

import json
from contextlib import closing
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image
from toy import toy_config, toy_source, toy_words

from crnn_jax.config import StnConfig, override
from crnn_jax.model import build
from crnn_jax.stn import start_parameters
from crnn_jax.training.logs import DRAWN, Logs, _drop_lines_after
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.state import create_state
from crnn_jax.training.step import train_step

CONFIG = override(
    toy_config(steps=40), ["model.stn.kind=affine", "model.stn.features=4,4", "optimizer.warmup_steps=1000"]
)


def logs(tmp_path, config=CONFIG):
    return closing(Logs(tmp_path, config=config, start=0, schedule=lambda step: 0.1))


@pytest.fixture(scope="module")
def step_from():
    """The metrics of one step from given parameters of the transformer."""
    model = build(CONFIG.model)
    tx = make_optimizer(CONFIG.optimizer, 100)
    state = create_state(jax.random.key(0), model, tx, CONFIG.model)
    batch = toy_words(jax.random.key(1), toy_source(CONFIG), batch_size=8, config=CONFIG)
    step = jax.jit(partial(train_step, model=model, tx=tx, ema_decay=0.9))

    def metrics(theta):
        params = jax.tree.map(lambda x: x, state.params)
        params["stn"]["localisation"]["last"]["bias"] = np.float32(theta)
        return jax.device_get(step(state.replace(params=params), batch, jax.random.key(2))[1])

    return metrics


def test_a_collapsed_transformer_is_said_once_and_a_healthy_one_never(tmp_path, capsys, step_from):
    healthy, outside = step_from([1, 0, 0, 0, 1, 0]), step_from([1, 0, 9, 0, 1, 9])
    even = step_from([0, 0, 0, 0, 0, 0])  # samples the middle pixel everywhere
    assert healthy["stn_contrast"] > 0.8 and outside["stn_outside"] == 1 and even["stn_outside"] == 0
    told = []
    with logs(tmp_path) as log:
        for i, metrics in enumerate([healthy, healthy, outside, outside, even, healthy, healthy, even]):
            window = {name: np.tile(value, 2) for name, value in metrics.items()}
            log.train(window | {"step": np.array([2 * i + 1, 2 * i + 2])})
            told.append([line for line in capsys.readouterr().err.splitlines() if "transformer" in line])
    assert [len(lines) for lines in told] == [0, 0, 1, 0, 0, 1, 0, 1]
    assert told[2][0].startswith(
        "step 6: the spatial transformer has collapsed: only 0 % of its input's contrast is left"
    )
    assert "100 % of its samples lie outside the input, and its edges have moved by 12.7 " in told[2][0]
    assert "Start again with a smaller optimizer.local" in told[2][0]
    assert told[5] == ["step 12: the spatial transformer has recovered"] and "outside" not in told[7][0]
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["stn_outside"] for line in written[1:3]] == [0, 1]


@pytest.mark.parametrize("on_image", [True, False])
def test_pictures_of_the_transformer(tmp_path, on_image):
    config = override(CONFIG, [f"model.stn.placement={'image' if on_image else 'block1'}"])
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 40), dtype=np.uint8)
    samples = {"image": images, "label": np.full((16, 3), 2), "ids": np.full((16, 5), 2)}
    samples["parameters"] = np.tile(start_parameters(kind="affine"), (16, 1))
    if on_image:
        samples["rectified"] = images
    with logs(tmp_path, config) as log:
        log.held_out(4, {"word_accuracy": 0.0}, samples)
    names = {path.stem for path in (tmp_path / "pictures").iterdir()}
    assert names == {"samples", "transformer"} | ({"rectified"} if on_image else set())
    with Image.open(tmp_path / "pictures" / "transformer.png") as picture:
        assert picture.mode == "RGB" and picture.height > DRAWN / 3 * 3 * 32 * (2 if on_image else 1)
    [events] = (tmp_path / "tensorboard").iterdir()
    assert b"transformer" in events.read_bytes()


def test_a_model_without_a_transformer_has_neither(tmp_path, capsys):
    config = override(CONFIG, ["model.stn.kind=none"])
    assert config.model.stn.kind == StnConfig().kind
    metrics = {"loss": 1.0, "accuracy": 0.0, "infeasible": 0, "non_finite": False}
    samples = {"image": np.zeros((2, 32, 40), np.uint8), "label": np.ones((2, 3), int), "ids": np.ones((2, 5), int)}
    with logs(tmp_path, config) as log:
        log.train({name: np.array([value] * 2) for name, value in metrics.items()} | {"step": np.array([1, 2])})
        log.held_out(2, {"word_accuracy": 0.0}, samples)
    assert "transformer" not in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["samples.png"]


def test_words_that_do_not_fit_the_frames_are_told(tmp_path, capsys):
    metrics = {"loss": 1.0, "accuracy": 0.0, "infeasible": 8, "non_finite": False}
    with logs(tmp_path) as log:
        log.train({name: np.array([value] * 2) for name, value in metrics.items()} | {"step": np.array([1, 2])})
    assert f"{100 * 8 / CONFIG.run.batch_size:.1f} % of the words too long for the frames" in capsys.readouterr().err


def test_lines_that_are_none_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnoise\n[2]\n{"step": 3}\n{"step": 4}\n{"step": 4')
    _drop_lines_after(path, 3)
    assert path.read_text() == '{"step": 1}\n{"step": 3}\n'
    written = path.stat()
    _drop_lines_after(path, 4)
    assert path.stat().st_ino == written.st_ino, "a file of which nothing is dropped is left as it is"
