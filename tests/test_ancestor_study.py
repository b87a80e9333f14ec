"""experiments/ancestor_study.py: each run is done once, a faulty network trains, the table and STNs are reported."""

import json
import math
from dataclasses import replace

import pytest
from small import load_script
from toy import DIGITS, SLOTS, toy_config, toy_source, toy_words

from crnn_jax.ancestor import FAULTS
from crnn_jax.config import ConfigError, ModelConfig, StnConfig, override
from crnn_jax.stacks import KERAS_NARROW, STACKS
from crnn_jax.training import words

TOY = replace(
    toy_config(log_every=2),
    model=ModelConfig(
        charset=DIGITS,
        width=144,  # the padded labels take 31 of its 36 frames, of which two are discarded
        cnn="keras_narrow",
        lstm_features=4,
        stn=StnConfig(kind="affine", placement="block7"),
    ),
)


@pytest.fixture
def study(monkeypatch):
    """The script, with a small network."""
    module = load_script("ancestor_study")
    monkeypatch.setattr(module, "load_config", lambda name: TOY)
    return module


def test_every_variant_is_another_run_of_as_many_words(study):
    base = load_script("train").load_config("keras_stn_narrow")
    runs = []
    for variant in study.VARIANTS.values():
        config = study.variant_config(base, variant, steps=40, batch=8, seed=3)
        assert (config.run.steps, config.run.batch_size, config.run.seed) == (40, 8, 3)
        runs.append((variant.faults, config))
    assert len(set(runs)) == len(runs)
    assert study.VARIANTS["as it was"].faults == FAULTS and study.VARIANTS["all mended"].faults == ()
    assert study.VARIANTS["padding mended"].faults == tuple(fault for fault in FAULTS if fault != "padding")


@pytest.mark.parametrize(
    "change, message",
    [
        ("model.cnn=tiny", "model.cnn = 'tiny': expected a keras stack"),
        ("data.max_length=17", "data.max_length = 17: expected at most 16"),
        ("data.sources=folder", "data.real, data.sources: expected none"),
    ],
)
def test_what_cannot_be_studied_is_said_in_one_line(study, change, message):
    with pytest.raises(ConfigError, match=message):
        study.variant_config(override(TOY, [change]), study.Variant(()), steps=4, batch=8, seed=0)


def test_a_faulty_network_trains_and_reads(study, monkeypatch, capsys):
    monkeypatch.setattr(words, "load_source", toy_source)
    monkeypatch.setattr(words, "synth_batch", toy_words)
    monkeypatch.setitem(STACKS, "keras_narrow", tuple((b[0]._replace(features=2), *b[1:]) for b in KERAS_NARROW))
    config = study.variant_config(TOY, study.VARIANTS["as it was"], steps=4, batch=32, seed=0)
    assert config.data.max_length == SLOTS
    row = study.train_variant(config, FAULTS)
    assert sorted(row) == ["all", "loss", "seconds", "stn_deviation", "stn_outside"]
    assert 0 <= row["all"] <= 100 and math.isfinite(row["loss"]) and row["loss"] > 0 and row["stn_deviation"] > 0
    assert "step 4 of 4, loss" in capsys.readouterr().out


def test_runs_are_done_once_and_told_in_a_table(study, tmp_path, monkeypatch, capsys):
    done = []

    def train_variant(config, faults):
        done.append((config.run.seed, faults))
        stn = {} if config.model.stn.kind == "none" else {"stn_deviation": 0.25, "stn_outside": 0.5}
        return {"all": 80.0 - 5 * len(faults) + config.run.seed, "loss": 1.0, "seconds": 1} | stn

    monkeypatch.setattr(study, "train_variant", train_variant)
    arguments = ["--steps", "4", "--batch", "8", "--seeds", "0", "1", "--out", str(tmp_path)]
    arguments += ["--variants", "as it was", "all mended, no STN"]
    assert study.main(arguments) == study.main(arguments) == 0
    assert done == [(0, FAULTS), (0, ()), (1, FAULTS), (1, ())]
    out = capsys.readouterr().out
    assert "| all mended, no STN | 2 | 80.50 ± 0.71 | +30.00 ± 0.00 |" in out
    assert "as it was: the STN deviates by 0.25 ± 0.00 from the identity, 50.0 % of its grid is outside" in out
    assert "no STN: the STN" not in out
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["all"] for line in lines] == [50, 80, 51, 81]
    # Runs of another config are refused, and what a killed run has left is reported.
    assert study.main([*arguments, "--set", "optimizer.learning_rate=1"]) == 1
    assert "has runs with a different optimizer.learning_rate; choose another --out" in capsys.readouterr().err
    (tmp_path / "results.jsonl").write_text(lines[0] + "\n" + lines[1][:20])
    assert study.main(arguments) == 1 and len(done) == 4
    assert "results.jsonl: a line is not JSON" in capsys.readouterr().err


def test_errors_are_one_line(study, tmp_path, capsys):
    assert study.main(["--set", "model.cnn=tiny", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("ancestor_study.py: model.cnn = 'tiny'")
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        study.main(["--variants", "as it is"])
    assert "unknown variant 'as it is': expected any of as it was, all mended" in capsys.readouterr().err
