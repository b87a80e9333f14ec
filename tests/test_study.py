"""experiments/study.py: every variant is a config, a run is done once, and the table shows the differences."""

import json
from dataclasses import replace

import pytest
from small import SMALL, labelled_noise, load_script, save_small

from crnn_jax.config import Config


@pytest.fixture
def study():
    """The script."""
    return load_script("study")


def test_every_variant_changes_the_config_and_sees_as_many_images(study):
    base = study.load_config("tiny")
    for variants in study.STUDIES.values():
        changes = [c for c in variants.values() if c != ["model.normalise=contrast"]]  # which tiny has already
        configs = [study.variant_config(base, change, steps=40, seed=3) for change in changes]
        assert len({(c.data, c.model, c.optimizer, c.run.batch_size) for c in configs}) == len(configs)
        assert {(c.run.steps * c.run.batch_size, c.run.seed) for c in configs} == {(40 * 64, 3)}
        assert all(c.run.eval_every == c.run.checkpoint_every == c.run.steps for c in configs)


def test_runs_are_done_once_and_their_words_are_told(study, tmp_path, monkeypatch, capsys):
    model, done = save_small(tmp_path / "model"), []
    labelled_noise(tmp_path / "data", model, 12, wrong=3)

    def train(config, workdir, *, init=None):
        save_small(workdir)
        done.append((config.data.length_bias, config.run.seed, init))
        return {"step": config.run.steps}

    monkeypatch.setattr(study, "train", train)
    monkeypatch.setattr(study, "load_config", lambda name: replace(Config(), model=SMALL))
    arguments = [
        "style",
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "out"),
        "--steps",
        "20",
        "--seeds",
        "0",
        "1",
    ]
    arguments += ["--variants", "photo", "shorter words", "words as in a dictionary"]  # which this base has already
    assert study.main(arguments) == study.main(arguments) == 0
    assert done == [(1.0, 0, None), (3.0, 0, None), (1.0, 1, None), (3.0, 1, None)]
    out = capsys.readouterr().out
    assert "| shorter words | 2 | 66.67 ± 0.00 | 66.67 ± 0.00 | +0.00 ± 0.00 |" in out
    assert "words as in a dictionary: same as tiny; left out" in out
    assert study.main([*arguments[:-3], "words as in a dictionary"]) == 1
    assert capsys.readouterr().err == "study.py: no variant is left to train\n"
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["all"] for line in lines] == pytest.approx([200 / 3] * 4)
    assert study.main([*arguments, "--set", "run.batch_size=32"]) == 1
    assert "has runs with a different run.batch_size; choose another --out" in capsys.readouterr().err
    (tmp_path / "out" / "results.jsonl").write_text('{"variant": "ph')
    assert study.main(arguments) == 1
    assert "results.jsonl: a line is not JSON: " in capsys.readouterr().err


def test_the_table_tells_the_difference_from_the_base_seed_by_seed(study):
    rows = [{"variant": v, "seed": seed, "all": a} for v, seed, a in (("photo", 0, 50.0), ("photo", 1, 60.0))]
    rows += [{"variant": "no blur", "seed": seed, "all": a} for seed, a in ((0, 52.0), (1, 64.0))]
    *_, best, base = study.table(rows, [], base="photo").splitlines()
    assert best == "| no blur | 2 | 58.00 ± 8.49 | +3.00 ± 1.41 |"
    assert base == "| photo | 2 | 55.00 ± 7.07 |  |"
