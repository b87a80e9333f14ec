"""A run as its user starts it: killed, resumed, refused, stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np
import pytest
from toy import toy_config, toy_model, toy_source, toy_words

from crnn_jax.config import override
from crnn_jax.model import build
from crnn_jax.training import loop, words
from crnn_jax.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    load_variables,
    save_inference,
    training_checkpoint,
)
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.parallel import fetch
from crnn_jax.training.state import create_state

TOY = Path(__file__).parent / "toy.py"
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(TOY.parents[1])}


@pytest.fixture(autouse=True)
def toy_words_and_network(monkeypatch, caplog):
    monkeypatch.setattr(loop, "build", toy_model)
    monkeypatch.setattr(words, "load_source", toy_source)
    monkeypatch.setattr(words, "synth_batch", toy_words)
    caplog.set_level("ERROR", logger="absl")


def last_state(workdir, config):
    tx = make_optimizer(config.optimizer, config.run.steps)
    like = create_state(jax.random.key(0), toy_model(config.model), tx, config.model)
    checkpoints = Checkpoints(workdir, config)
    return checkpoints.latest, fetch(checkpoints.restore(like))


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def start(workdir, *arguments) -> subprocess.Popen:
    """tests/toy.py in a process with one device."""
    return subprocess.Popen(
        [sys.executable, TOY, "--workdir", workdir, *arguments],
        env=ENVIRONMENT | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, *, code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=180)
    assert process.returncode == code, err
    return out, err


def test_a_run_learns_and_leaves_what_it_says(tmp_path, capsys):
    config = toy_config(steps=120, eval_every=60, checkpoint_every=60, log_every=20)
    result = loop.train(config, tmp_path)
    assert result["step"] == 120 and result["word_accuracy"] > 50
    assert json.loads((tmp_path / "config.json").read_text())["name"] == "toy"
    written = lines(tmp_path)
    train = [line for line in written if line["split"] == "train"]
    assert [line["step"] for line in train] == [20, 40, 60, 80, 100, 120]
    assert train[-1]["loss"] < 0.5 * train[0]["loss"] and train[-1]["accuracy"] > train[0]["accuracy"]
    assert {"learning_rate", "gradient_norm", "update_norm", "infeasible", "images_per_second"} <= train[0].keys()
    held_out = [line for line in written if line["split"] == "held_out"]
    assert [line["step"] for line in held_out] == [60, 120]
    assert held_out[-1]["word_accuracy"] == result["word_accuracy"]
    assert (tmp_path / "pictures" / "samples.png").stat().st_size > 500
    assert list((tmp_path / "tensorboard").glob("events*"))[0].stat().st_size > 2000
    out = capsys.readouterr().out
    assert "read right" in out and "read wrong" in out and f"read.py IMAGE_OR_FOLDER --model {tmp_path}" in out


@pytest.mark.parametrize("placement", ["image", "block1"])
def test_a_run_with_an_stn_shows_what_it_does(tmp_path, monkeypatch, capsys, placement):
    """The real network, wherever its transformer is: numbers, pictures, and no report of a collapse."""
    monkeypatch.setattr(loop, "build", build)
    changes = ["model.stn.kind=tps", f"model.stn.placement={placement}", "model.stn.features=4,4"]
    loop.train(override(toy_config(steps=2, eval_every=2, checkpoint_every=2), changes), tmp_path)
    written = lines(tmp_path)
    assert [line["split"] for line in written] == ["train", "held_out"]
    for line in written:
        assert line["stn_deviation"] < 0.1 and line["stn_outside"] < 0.5 < line["stn_contrast"] < 1.5
    pictures = {"samples.png", "transformer.png"} | ({"rectified.png"} if placement == "image" else set())
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == pictures
    assert "collapsed" not in capsys.readouterr().err


def test_killed_at_any_time_and_resumed_is_bit_equal(tmp_path):
    """One run to the end; one killed by SIGKILL after its first checkpoint, then by SIGTERM, then left to finish."""
    arguments = ["--set", "run.steps=1000", "run.eval_every=1000", "run.checkpoint_every=100"]
    whole = start(tmp_path / "whole", *arguments)
    killed = start(tmp_path / "killed", *arguments)

    def wait_for_checkpoint(step):
        deadline = time.monotonic() + 120
        while not (tmp_path / "killed" / "checkpoints" / str(step)).is_dir():
            assert killed.poll() is None, killed.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    wait_for_checkpoint(100)
    killed.send_signal(signal.SIGKILL)
    finish(killed, code=-signal.SIGKILL)
    before = max(int(path.name) for path in (tmp_path / "killed" / "checkpoints").iterdir() if path.name.isdigit())
    assert before < 1000

    killed = start(tmp_path / "killed", *arguments)
    wait_for_checkpoint(before + 200)
    killed.send_signal(signal.SIGTERM)
    out, err = finish(killed, code=130)  # not 0: a command chained after it does not run
    assert "SIGTERM" in err and "run the same command to continue from there" in out

    out, _ = finish(start(tmp_path / "killed", *arguments))
    assert "held-out rendered words read right" in out
    finish(whole)
    config = override(toy_config(), arguments[1:])
    step, expected = last_state(tmp_path / "whole", config)
    again, resumed = last_state(tmp_path / "killed", config)
    assert step == again == 1000
    jax.tree.map(np.testing.assert_array_equal, resumed, expected)
    steps = [(line["split"], line["step"]) for line in lines(tmp_path / "killed")]
    assert len(steps) == len(set(steps)), "a killed run's lines are written once"


def test_a_run_that_nobody_listens_to_any_more_is_saved(tmp_path, monkeypatch):
    """As on Ctrl-C, which also ends the `tee` that its output goes to."""
    reading, writing = os.pipe()
    os.close(reading)
    train = loop.Logs.train

    def interrupted(logs, metrics):
        if metrics["step"][-1] == 2:
            signal.raise_signal(signal.SIGINT)
        return train(logs, metrics)

    monkeypatch.setattr(loop.Logs, "train", interrupted)
    with suppress(BrokenPipeError), open(writing, "w", buffering=1) as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        monkeypatch.setattr(sys, "stdout", gone)
        assert loop.train(toy_config(), tmp_path)["step"] == 4
    assert last_state(tmp_path, toy_config())[0] == 4
    # Step 4 is due for an evaluation, which an interrupted run still does.
    assert [line["step"] for line in lines(tmp_path) if line["split"] == "held_out"] == [4]


def test_what_is_measured_is_saved(tmp_path):
    loop.train(toy_config(steps=12, eval_every=2, checkpoint_every=8, keep=1), tmp_path)
    held_out = [line for line in lines(tmp_path) if line["split"] == "held_out"]
    best = max(held_out, key=lambda line: (line["word_accuracy"], line["step"]))
    assert training_checkpoint(tmp_path).name == str(best["step"]) and len(held_out) == 6


def test_a_start_that_is_none_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty holds no checkpoint"):
        loop.train(toy_config(), tmp_path / "run", init=tmp_path / "empty")


def test_a_finished_run_only_says_its_scores_again(tmp_path):
    config = toy_config(steps=4)
    first = loop.train(config, tmp_path)
    checkpoint = tmp_path / "checkpoints" / "4" / "meta" / "metadata"
    written = checkpoint.stat().st_mtime_ns
    assert loop.train(config, tmp_path) == first
    assert checkpoint.stat().st_mtime_ns == written


def test_a_non_finite_step_stops_the_run_and_spares_the_checkpoint(tmp_path, monkeypatch):
    config = toy_config(steps=12)

    def step_fn(state, batch, key, **options):
        state, metrics = real_step(state, batch, key, **options)
        return state, metrics | {"non_finite": metrics["non_finite"] | (state.step == 7)}

    real_step = loop.train_step
    monkeypatch.setattr(loop, "train_step", step_fn)
    with pytest.raises(loop.NonFiniteError, match="step 7 is not finite: loss"):
        loop.train(config, tmp_path)
    step, state = last_state(tmp_path, config)
    assert step == 4 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_a_run_of_another_configuration_is_refused(tmp_path, monkeypatch):
    loop.train(toy_config(steps=4), tmp_path)
    monkeypatch.setattr(loop, "load_words", None)  # before the words are read
    with pytest.raises(CheckpointError, match="run.steps was 4, now 8"):
        loop.train(toy_config(steps=8), tmp_path)


def test_a_run_starts_from_the_weights_of_another(tmp_path, capsys):
    config = override(toy_config(steps=2, eval_every=2), ["optimizer.learning_rate=1e-12", "optimizer.weight_decay=0"])
    loop.train(toy_config(steps=20, eval_every=20, checkpoint_every=20), tmp_path / "first")
    _, expected = load_variables(tmp_path / "first")
    save_inference(tmp_path / "model", config, expected, {})
    loop.train(config, tmp_path / "second", init=tmp_path / "model")
    _, got = load_variables(tmp_path / "second")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got["params"], expected["params"])
    assert "resumes" not in capsys.readouterr().out
    other = override(config, ["model.charset=ab0123456789", "model.fit=pad"])
    loop.train(other, tmp_path / "third", init=tmp_path / "model")
    note = capsys.readouterr().out
    assert "2 characters new to the head: ab" in note
    assert "model.fit is pad, but these weights were trained with resize" in note
    # The same command again continues, and says so if it asks for other weights to start from.
    loop.train(config, tmp_path / "second", init=tmp_path / "model")
    assert "are ignored" not in capsys.readouterr().out
    loop.train(config, tmp_path / "second", init=tmp_path / "first")
    line = f"started from the weights of {tmp_path}/model: those of {tmp_path}/first are ignored"
    assert line in capsys.readouterr().out
    more = {"params": expected["params"] | {"Dense_1": expected["params"]["head"]}}
    save_inference(tmp_path / "more", config, expected | more, {})
    loop.train(config, tmp_path / "fourth", init=tmp_path / "more")
    assert "layers left out: Dense_1" in capsys.readouterr().out
    save_inference(tmp_path / "another", config, expected | {"params": {"Dense_1": expected["params"]["head"]}}, {})
    with pytest.raises(CheckpointError, match=r"different layers from this config's model \(Dense_1\)"):
        loop.train(config, tmp_path / "fifth", init=tmp_path / "another")


def test_the_command_says_what_is_wrong_in_one_line(tmp_path):
    _, err = finish(start(tmp_path, "--set", "run.stepz=3"), code=1)
    assert err.strip().splitlines()[-1].startswith("train.py: unknown configuration field") and "Traceback" not in err


def test_a_workdir_that_is_a_file_is_said_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    _, err = finish(start(tmp_path / "file"), code=1)
    [line] = err.strip().splitlines()
    assert line.startswith("train.py: ") and str(tmp_path / "file") in line
