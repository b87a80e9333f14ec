"""experiments/bundle.py: a run becomes a model folder that reads the same, with a card of what was measured."""

import json

import jax
import numpy as np
import pytest
from small import SMALL, load_script, noise_images, save_small

import crnn_jax
from crnn_jax.config import Config
from crnn_jax.training.checkpoint import Checkpoints, load_variables

bundle = load_script("bundle")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    variables = load_variables(save_small(folder / "small"))[1]
    checkpoints = Checkpoints(folder, Config(model=SMALL))
    state = {"ema_params": variables["params"], "batch_stats": variables["batch_stats"]}
    checkpoints.save(10, state, {"word_accuracy": 1.0})
    checkpoints.close()
    return folder


def test_a_run_becomes_a_model(workdir, tmp_path, capsys):
    table, out = tmp_path / "table.json", tmp_path / "bundled"
    table.write_text('{"photographs": {"count": 12, "word_accuracy": 50.0}}')
    assert bundle.main([str(workdir), "--out", str(out), "--table", str(table), "--note", "a test"]) == 0
    assert "step 10" in capsys.readouterr().out
    card = json.loads((out / "card.json").read_text())
    assert card["images_seen"] == 10 * Config().run.batch_size and card["note"] == "a test"
    assert card["results"] == json.loads(table.read_text())
    assert crnn_jax.load(out).read(noise_images(3)) == crnn_jax.load(workdir).read(noise_images(3))


def test_bfloat16_halves_the_weights(workdir, tmp_path):
    assert bundle.main([str(workdir), "--out", str(tmp_path / "half"), "--dtype", "bfloat16"]) == 0
    half, whole = (load_variables(folder)[1] for folder in (tmp_path / "half", workdir))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8), half, whole)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(whole), strict=True))


def test_what_is_no_run_is_said_in_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert bundle.main([str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"bundle.py: {tmp_path}/empty holds no checkpoint\n"
    assert not (tmp_path / "out").exists()
