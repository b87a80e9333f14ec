"""experiments/calibrate.py: the fitted temperature is written, read again, carried along, and better than none."""

import json
import shutil

import jax
import numpy as np
import pytest
from small import labelled_noise, load_script, noise_images, save_small

import crnn_jax
from crnn_jax.calibration import fit_temperature, load_calibration, save_calibration
from crnn_jax.config import Config
from crnn_jax.training.checkpoint import Checkpoints, load_variables

calibrate, bundle, evaluate = load_script("calibrate"), load_script("bundle"), load_script("evaluate")


@pytest.fixture
def model(tmp_path):
    return save_small(tmp_path / "small")


@pytest.fixture
def data(model, tmp_path):
    """Forty images; the label of every third is not what the model reads."""
    labelled_noise(tmp_path / "data", model, 40, wrong=3)
    return tmp_path / "data"


def run(*arguments) -> int:
    return calibrate.main([str(argument) for argument in arguments])


def row(model, data, table, *arguments) -> dict:
    command = ["--model", model, "--data", data, "--json", table, *arguments]
    assert evaluate.main([str(argument) for argument in command]) == 0
    return next(iter(json.loads(table.read_text())["datasets"].values()))


def test_a_temperature_that_is_worse_than_none_is_told(capsys):
    confidences = [np.array([0.5, 0.5]), np.array([0.9, 0.9])]
    assert calibrate.print_fit("", [True, False], confidences, 0.5) == {"before": 0.0, "after": 40.0}
    assert capsys.readouterr().err == (
        "calibrate.py: worse than at 1: the temperature was fitted by likelihood to 2 words, which may be too few\n"
    )


def test_what_is_fitted_is_written_and_read(model, data, tmp_path, capsys):
    before = row(model, data, tmp_path / "table.json")
    capsys.readouterr()
    assert run("--model", model, "--data", data) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    calibration = load_calibration(model)
    assert (calibration["words"], calibration["fitted_on"], calibration["cased"]) == (40, "data", False)

    reader = crnn_jax.load(model)
    logits = reader.logits([reader.fit(data / f"{i:03}.png") for i in range(40)])
    assert calibration["temperature"] == pytest.approx(fit_temperature(logits, np.arange(40) % 3 > 0), rel=1e-3)
    assert reader.temperature == calibration["temperature"] != 1.0
    assert first == f"40 words, 65.0 % right: temperature {reader.temperature:.4f}"
    assert third == f"written: {model}/calibration.json"

    after = row(model, data, tmp_path / "table.json")
    told = calibration["expected_calibration_error"]
    assert told["before"] == pytest.approx(before["expected_calibration_error"], abs=0.1)
    assert told["after"] == pytest.approx(after["expected_calibration_error"], abs=0.1)
    assert f"{told['before']:.2f} at temperature 1, {told['after']:.2f} at" in second
    assert after["word_accuracy"] == before["word_accuracy"]
    assert abs(after["confidence"] - 0.65) < abs(before["confidence"] - 0.65)

    assert run("--model", model, "--data", data) == 0  # the existing file plays no part in it
    assert load_calibration(model) == calibration


def test_a_second_temperature_for_reading_with_a_lexicon(model, data, tmp_path, capsys):
    """With a lexicon of what the model reads anyway."""
    reader, words = crnn_jax.load(model), tmp_path / "words.txt"
    words.write_text("\n".join(reading.text for reading in reader.read(noise_images(40))))
    before = row(model, data, tmp_path / "table.json", "--lexicon", words)
    assert run("--model", model, "--data", data, "--lexicon", words) == 0
    right = before["word_accuracy"]
    assert f"40 words, {right:.1f} % right with the lexicon: temperature " in capsys.readouterr().out
    calibration, after = load_calibration(model), row(model, data, tmp_path / "table.json", "--lexicon", words)
    assert crnn_jax.load(model).lexicon_temperature == calibration["lexicon_temperature"] != 1.0
    told = calibration["lexicon_expected_calibration_error"]
    assert told["before"] == pytest.approx(before["expected_calibration_error"], abs=0.1)
    assert told["after"] == pytest.approx(after["expected_calibration_error"], abs=0.1)
    assert abs(after["confidence"] - right / 100) < abs(before["confidence"] - right / 100)
    assert run("--model", model, "--data", data) == 0, "without the lexicon, whose temperature stays"
    kept = load_calibration(model)
    assert {k: v for k, v in kept.items() if "lexicon" in k} == {k: v for k, v in calibration.items() if "lexicon" in k}
    capsys.readouterr()
    assert run("--model", model, "--data", data, "--lexicon", tmp_path / "none") == 1
    assert capsys.readouterr().err.startswith(f"calibrate.py: {tmp_path}/none: No such file")


def test_a_dry_run_writes_nothing(model, data, capsys):
    assert run("--model", model, "--data", data, "--dry_run") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert load_calibration(model) is None


def test_a_part_and_the_protocol(model, data, tmp_path, capsys):
    """All labels in another case: wrong for --cased, except for one without a letter; the last four are the tenth."""
    lines = (data / "labels.tsv").read_text().splitlines()
    swapped = [name + "\t" + label.swapcase() for name, label in (line.split("\t") for line in lines)]
    (data / "labels.tsv").write_text("\n".join(swapped))
    assert run("--model", model, "--data", data, "--part", "tenth", "--dry_run") == 0
    assert capsys.readouterr().out.startswith("4 words, 50.0 % right")  # 36 and 39 are wrong
    assert run("--model", model, "--data", data, "--cased", "--dry_run") == 0
    assert capsys.readouterr().out.startswith("40 words, 2.5 % right")
    assert run("--model", model, "--data", data, "--cased", "--part", "tenth") == 1
    assert capsys.readouterr().err.startswith("calibrate.py: all 4 words are read wrong: fitting a temperature takes")
    rest = row(model, data, tmp_path / "table.json", "--part", "rest")
    assert rest["count"] == 36
    assert list(json.loads((tmp_path / "table.json").read_text())["datasets"]) == ["data, rest"]


def test_a_run_keeps_it_when_it_becomes_a_model(model, data, tmp_path, capsys):
    workdir, out = tmp_path / "run", tmp_path / "bundled"
    variables = load_variables(model)[1]
    checkpoints = Checkpoints(workdir, Config(model=load_variables(model)[0].model))
    state = {"ema_params": variables["params"], "batch_stats": variables["batch_stats"]}
    checkpoints.save(10, state, {"word_accuracy": 1.0})
    checkpoints.close()
    assert run("--model", workdir, "--data", data) == 0
    assert bundle.main([str(workdir), "--out", str(out)]) == 0
    assert load_calibration(out) == load_calibration(workdir) != {}
    assert crnn_jax.load(out).read(noise_images(3)) == crnn_jax.load(workdir).read(noise_images(3))

    # A better checkpoint has no calibration until one is fitted; the checkpoint before it keeps its own.
    checkpoints = Checkpoints(workdir, Config(model=load_variables(model)[0].model))
    checkpoints.save(20, jax.tree.map(lambda x: 1.1 * x, state), {"word_accuracy": 2.0})
    checkpoints.close()
    assert load_calibration(workdir) is None and crnn_jax.load(workdir).temperature == 1
    before = workdir / "checkpoints" / "10"
    assert crnn_jax.load(before).temperature == crnn_jax.load(out).temperature != 1
    kept = shutil.copytree(before, tmp_path / "kept" / "10")  # outside its run, beside checkpoints of others
    save_calibration(kept, {"temperature": 3.0})
    assert load_calibration(shutil.copytree(before, tmp_path / "kept" / "20")) is None
    assert load_calibration(kept)["temperature"] == 3 and load_calibration(before)["temperature"] != 3
    capsys.readouterr()
    assert bundle.main([str(workdir), "--out", str(out)]) == 0
    assert "was fitted to other weights: it is left out" in capsys.readouterr().out
    assert load_calibration(out) is None


def test_what_is_wrong_is_said_in_one_line(model, data, tmp_path, capsys):
    (data / "labels.tsv").write_text("000.png\tword\n")
    assert run("--model", model, "--data", data, "--part", "tenth") == 1
    assert capsys.readouterr().err == f"calibrate.py: {data}: a dataset of 1 words has no tenth: it needs 10 or more\n"
    (model / "calibration.json").write_text("{")
    assert run("--model", model, "--data", data) == 1
    [line] = capsys.readouterr().err.splitlines()
    told = f"calibrate.py: {model}/calibration.json is not a calibration file (delete it and fit it again): "
    assert line.startswith(told)
