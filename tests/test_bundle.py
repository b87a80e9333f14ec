"""experiments/bundle.py: a run becomes a model folder that reads the same, with a card of what was measured."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from small import SMALL, load_script, noise_images, save_small

import crnn_jax
from crnn_jax.calibration import load_calibration, save_calibration
from crnn_jax.config import Config, DataConfig
from crnn_jax.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    load_variables,
    save_inference,
)
from crnn_jax.training.start import images_seen, save_start

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
    rows, compared = {"photographs": {"count": 12, "word_accuracy": 50.0}}, {"cased": True}
    told = {"model": str(workdir), "compared": compared, "datasets": rows, "totals": {}}
    table.write_text(json.dumps(told))
    assert bundle.main([str(workdir), "--out", str(out), "--table", str(table), "--note", "a test"]) == 0
    assert "step 10" in capsys.readouterr().out
    card = json.loads((out / "card.json").read_text())
    assert card["images_seen"] == 10 * Config().run.batch_size and card["note"] == "a test"
    assert (card["results"], card["compared"]) == (rows, compared)
    assert crnn_jax.load(out).read(noise_images(3)) == crnn_jax.load(workdir).read(noise_images(3))
    # An average is not the run's model: it needs a table of its own.
    average = [str(workdir), "--out", str(out), "--average", str(workdir), "--table", str(table)]
    assert bundle.main(average) == 1
    assert f"measures {workdir}, another model: run evaluate.py --model {out}" in capsys.readouterr().err
    save_calibration(out, {"temperature": 0.5})
    table.write_text(json.dumps(told | {"model": str(out)}))
    assert bundle.main(average) == 0
    assert load_calibration(out) == {"temperature": 0.5}, "fitted to this mean"
    table.write_text(json.dumps(told | {"step": 5}))
    assert bundle.main([str(workdir), "--out", str(out), "--table", str(table)]) == 1
    assert f"measures step 5, not 10: run evaluate.py --model {out}" in capsys.readouterr().err
    table.write_text(json.dumps(told | {"model": "tiny"}))
    assert bundle.main([str(workdir), "--out", str(out), "--table", str(table)]) == 1
    assert "measures tiny, another model" in capsys.readouterr().err
    table.write_text(json.dumps(told | {"left_out": {"photographs": 2}}))
    assert bundle.main([str(workdir), "--out", str(out), "--table", str(table)]) == 1
    assert "photographs: not fully measured, since damaged words were left out" in capsys.readouterr().err


def test_images_seen_count_those_of_the_model_it_started_from(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "run")
    save_start(tmp_path / "run", workdir)
    once = 10 * Config().run.batch_size
    assert images_seen(workdir) == once and images_seen(tmp_path / "run") == 2 * once
    assert images_seen(tmp_path / "run" / "checkpoints" / "10") == 2 * once


def test_of_datasets_only_the_names_are_kept(tmp_path):
    data = DataConfig(real=("/home/someone/words", "more.tfrecord"), share_real=0.5)
    data = replace(data, validation=("/home/someone/others",))
    checkpoints = Checkpoints(tmp_path, Config(model=SMALL, data=data))
    variables = load_variables(save_small(tmp_path / "small"))[1]
    checkpoints.save(10, {"ema_params": variables["params"], "batch_stats": variables["batch_stats"]}, None)
    checkpoints.close()
    assert bundle.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    kept = json.loads((tmp_path / "out" / "config.json").read_text())["data"]
    assert (kept["real"], kept["validation"]) == (["words", "more.tfrecord"], ["others"])


def test_names_are_as_short_as_they_differ():
    assert bundle.short_names(("/data/MJ/train", "/data/ST/train", "rendered")) == ("MJ/train", "ST/train", "rendered")
    assert bundle.short_names(("/data/words.tfrecord", "/data/more")) == ("words.tfrecord", "more")
    assert bundle.short_names(()) == ()


def test_bfloat16_halves_the_weights(workdir, tmp_path):
    assert bundle.main([str(workdir), "--out", str(tmp_path / "half"), "--dtype", "bfloat16"]) == 0
    half, whole = (load_variables(folder)[1] for folder in (tmp_path / "half", workdir))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8), half, whole)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(whole), strict=True))


def test_an_average_is_the_mean_of_weights_of_one_network(workdir, tmp_path, capsys):
    config, variables = load_variables(workdir)
    others = [jax.tree.map(lambda x, k=k: k * x, variables) for k in (2, 6)]
    for name, other in zip("ab", others, strict=True):
        save_inference(tmp_path / name, config, other, {"images_seen": 9999})
    arguments = [str(workdir), "--out", str(tmp_path / "out"), "--average"]
    assert bundle.main([*arguments, str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    mean = load_variables(tmp_path / "out")[1]
    jax.tree.map(lambda m, x: np.testing.assert_allclose(m, 3 * x, rtol=1e-6), mean, variables)
    assert images_seen(tmp_path / "out") == 9999
    wide = replace(config, model=replace(config.model, max_width=500))
    save_inference(tmp_path / "wide", wide, variables, {})
    capsys.readouterr()
    assert bundle.main([*arguments, str(tmp_path / "wide")]) == 1
    message = f"bundle.py: {tmp_path}/wide: its config has a different model, so it cannot be averaged\n"
    assert capsys.readouterr().err == message
    assert images_seen(tmp_path / "out") == 9999, "the model before is still there"


def test_what_is_no_run_is_said_in_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert bundle.main([str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"bundle.py: {tmp_path}/empty holds no checkpoint\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("card", ["[]", '{"images_seen": null}', "{"])
def test_a_card_that_is_none_is_named(tmp_path, card):
    (tmp_path / "card.json").write_text(card)
    with pytest.raises(CheckpointError, match=r"^\S*card.json.*$"):
        images_seen(tmp_path)


def test_a_start_that_came_to_nothing_is_forgotten(workdir, tmp_path):
    save_start(tmp_path, workdir)
    assert (tmp_path / "start.json").exists()
    save_start(tmp_path, None)
    assert not (tmp_path / "start.json").exists()


def test_what_is_no_model_is_not_replaced(workdir, tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years")
    for out in (tmp_path / "thesis", workdir):
        assert bundle.main([str(workdir), "--out", str(out)]) == 1
        assert capsys.readouterr().err == (
            f"bundle.py: {out}: exists but is not a model, so it is not replaced: name another folder\n"
        )
    assert (tmp_path / "thesis" / "thesis.txt").exists() and crnn_jax.load(workdir)


def test_what_is_no_part_of_a_model_is_not_removed(workdir, tmp_path, capsys):
    out = tmp_path / "model"
    assert bundle.main([str(workdir), "--out", str(out)]) == 0
    (out / "notes.txt").write_text("years")
    assert bundle.main([str(workdir), "--out", str(out)]) == 1
    assert capsys.readouterr().err == f"bundle.py: {out}: holds notes.txt besides a model: move that elsewhere first\n"
    assert (out / "notes.txt").exists()


def test_a_temperature_stays_with_the_weights_that_it_was_fitted_to(workdir, tmp_path, capsys):
    run, out, table = tmp_path / "run", tmp_path / "model", tmp_path / "table.json"
    shutil.copytree(workdir, run)
    command = [str(run), "--out", str(out), "--dtype", "bfloat16"]
    assert bundle.main(command) == 0
    save_calibration(out, {"temperature": 1.5})
    assert bundle.main(command) == 0 and load_calibration(out) == {"temperature": 1.5}
    save_calibration(run / "checkpoints" / "10", {"temperature": 2.5})
    table.write_text(json.dumps({"model": str(out), "datasets": {"words": {"word_accuracy": 50.0}}}))
    assert bundle.main([*command, "--table", str(table)]) == 0 and load_calibration(out) == {"temperature": 1.5}
    assert bundle.main(command) == 0 and load_calibration(out)["temperature"] == 2.5
    config, variables = load_variables(out)
    save_inference(out, config, jax.tree.map(lambda x: 1.1 * x, variables), {})
    save_calibration(out, {"temperature": 1.5})
    capsys.readouterr()
    assert bundle.main([*command, "--table", str(table)]) == 0 and load_calibration(out)["temperature"] == 2.5
    assert f"{out}/calibration.json was fitted to the model there before" in capsys.readouterr().out


def test_a_model_stays_until_the_next_is_whole(workdir, tmp_path, capsys, monkeypatch):
    out = tmp_path / "model"
    assert bundle.main([str(workdir), "--out", str(out), "--note", "old"]) == 0

    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED:\n No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("orbax.checkpoint.StandardCheckpointer.save", full)
        assert bundle.main([str(workdir), "--out", str(out), "--note", "new"]) == 1
    message = f"bundle.py: {out} cannot be written: RESOURCE_EXHAUSTED: No space left on device\n"
    assert capsys.readouterr().err == message
    assert json.loads((out / "card.json").read_text())["note"] == "old" and crnn_jax.load(out)
    assert bundle.main([str(workdir), "--out", str(out), "--note", "new"]) == 0
    assert json.loads((out / "card.json").read_text())["note"] == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[1]", "expected one row per dataset"),
        ('{"datasets": {"x": 3}}', "expected one row per dataset"),
        ("{", "not JSON"),
    ],
)
def test_a_table_that_is_none_is_told(workdir, tmp_path, capsys, table, message):
    (tmp_path / "table.json").write_text(table)
    arguments = [str(workdir), "--out", str(tmp_path / "out"), "--table", str(tmp_path / "table.json")]
    assert bundle.main(arguments) == 1
    assert capsys.readouterr().err.startswith(f"bundle.py: {tmp_path}/table.json: {message}")
