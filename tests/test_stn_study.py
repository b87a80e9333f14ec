"""experiments/stn_study.py: settings are configs, networks are trained once, and a small one learns to look."""

import json
import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import EXPERIMENTS, labelled_noise, load_script

from crnn_jax.config import ConfigError, override
from crnn_jax.synth.batch import load_source, synth_batch
from crnn_jax.training import population as populations


@pytest.fixture
def study():
    """The script."""
    return load_script("stn_study")


@pytest.fixture(scope="module")
def pools():
    """Words to train on and held-out ones, loosely cropped, rendered once: rendering them in every program of these
    tests would take half of its compilation time."""
    base = load_script("train").load_config("stn_study")
    style = replace(base.data.style, curve_share=0.0, margin_mean=200.0, margin_std=10.0)
    config, key, source = replace(base, data=replace(base.data, style=style)), jax.random.key(0), load_source(base)

    def draw(batch_size, **options):
        return jax.jit(partial(synth_batch, batch_size=batch_size, config=config, **options))(key, source)

    return draw(1024), draw(128, held_out=True)


@pytest.fixture
def pooled(study, pools, monkeypatch):
    """Words of the study are picked from the pools."""

    def make_words(config, kinds, size, *, held_out=False):
        def pick(key, source):
            index = jnp.arange(size) if held_out else jax.random.randint(key, (size,), 0, 1024)
            return jax.tree.map(lambda leaf: leaf[index], source[held_out])

        return pick

    monkeypatch.setattr(study, "load_source", lambda config: pools)
    monkeypatch.setattr(study, "make_words", make_words)


def test_every_setting_is_a_config_of_its_own(study):
    base = study.load_config("stn_study")
    for name, settings in study.STUDIES.items():
        configs = [override(base, changes) for changes in settings.values()]
        assert len(set(configs)) == len(configs) and base in configs
        assert len(set(study.keys(name).values())) == len(settings)


def test_held_out_words_are_the_same_in_every_kind(study):
    config = study.load_config("stn_study")
    draw = study.make_words(config, study.KINDS, 32, held_out=True)
    # In a program that returns labels alone, the rendering is not compiled.
    labels = jax.jit(lambda key, source: draw(key, source).label)(jax.random.key(0), study.load_source(config))
    labels = labels.reshape(len(study.KINDS), 8, -1)
    assert (labels == labels[:1]).all()
    with pytest.raises(ConfigError, match=re.escape("run.batch_size = 24: expected a multiple of 16")):
        study.make_words(config, study.KINDS, 24)


def test_networks_are_trained_once_and_go_on_where_they_stopped(study, pooled, tmp_path, monkeypatch):
    kinds = {"straight": study.KINDS["straight"]}
    run = ["run.steps=4", "run.steps_per_dispatch=1", "run.log_every=1", "run.eval_every=4", "run.checkpoint_every=2"]
    changes = ["model.stn.kind=affine", "run.batch_size=4", *run]
    base = override(study.load_config("stn_study"), changes)

    def train(out, *changes, seeds=(0,)):
        study.train_all(base, list(changes), list(seeds), 2, 128, tmp_path / out, kinds=kinds)
        rows = [json.loads(line) for line in (tmp_path / out / "results.jsonl").read_text().splitlines()]
        return {(row["change"], row["seed"]): row | {"seconds": 0} for row in rows}, len(rows)

    whole, _ = train("whole", "model.stn.bypass=0.25")
    save = study.Checkpoints.save

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(study.Checkpoints, "save", save_and_stop)
        train("stopped", "model.stn.bypass=0.25")
    assert train("stopped", "model.stn.bypass=0.25") == (whole, 1)
    assert len(whole["model.stn.bypass=0.25", 0]["stn_contrast"]) == 4
    assert 0 <= whole["model.stn.bypass=0.25", 0]["stn_spread"] < 0.1

    # What is done is not done again, seed by seed and setting by setting; and another config is refused.
    rows, count = train("stopped", "", "model.stn.bypass=0.25")
    assert count == 2 and rows.items() >= whole.items()
    base = override(base, ["run.batch_size=8"])
    with pytest.raises(ConfigError, match="has runs with a different run.batch_size; choose another --out"):
        train("stopped", "")


def test_labelled_words_are_read_as_well(study, tmp_path, capsys):
    labelled_noise(tmp_path / "noise", study.find_model("tiny"), 255, wrong=3)
    config = study.load_config("tiny")
    words = study.load_datasets([str(tmp_path / "noise")], config)
    [(name, _)] = study.load_datasets([str(tmp_path / "noise")], config, taken=["noise"]).items()
    assert name == str(tmp_path / "noise"), "its column would be another's"
    # Images that tiny reads as empty have no label to compare; the second batch is filled up with the first words.
    kept = int(re.search(r"noise: (\d+) words to validate on", capsys.readouterr().out)[1])
    assert 128 < kept < 255
    population = populations.init_population([config], [0, 1])
    population, _ = study.start_from(population, config, study.load_variables(study.find_model("tiny")), name="tiny")
    measured = study.read_datasets([config], population, words)
    np.testing.assert_allclose(measured["noise"], np.full((1, 2), 100 * (1 - 85 / kept)), rtol=1e-5)

    study.claim(tmp_path, config, "tiny", {"rendered": 1024, "noise": 200}, 1024)
    with pytest.raises(ConfigError, match="has runs with a different --data; choose another --out"):
        study.claim(tmp_path, config, "tiny", {"rendered": 1024, "noise": 199}, 1024)
    study.claim(tmp_path, config, "tiny", {"noise": 200, "rendered": 1024}, 1024)  # in another order
    base = json.loads((tmp_path / "base.json").read_text())
    (tmp_path / "base.json").write_text(json.dumps(base | {"init_images_seen": 1}))
    with pytest.raises(ConfigError, match="has runs with a different --init; choose another --out"):
        study.claim(tmp_path, config, "tiny", {"rendered": 1024, "noise": 200}, 1024)
    (tmp_path / "base.json").write_text(json.dumps(base))
    with pytest.raises(ConfigError, match="has runs with a different --held-out; choose another --out"):
        study.claim(tmp_path, config, "tiny", {"rendered": 1024, "noise": 200}, 128)


def test_results_of_another_study_are_told(study, tmp_path, capsys):
    (tmp_path / "ancestor.jsonl").write_text('{"variant": "as it was", "seed": 0}\n')
    assert study.main(["table", "--results", str(tmp_path / "ancestor.jsonl")]) == 1
    assert capsys.readouterr().err == f"stn_study.py: {tmp_path}/ancestor.jsonl: not a results file of stn_study.py\n"


@pytest.mark.parametrize(
    "wrong",
    [
        ["--init", "nope"],
        ["--set", "run.batch_size=30"],
        ["--data", "nope"],
        ["--studies", "rate", "--set", "optimizer.localisation_factor=1"],  # "x 0.1" would be a change of it
    ],
)
def test_what_cannot_be_trained_claims_no_folder(study, tmp_path, capsys, wrong):
    assert study.main(["train", *wrong, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("stn_study.py: ")
    assert not (tmp_path / "out").exists()


def test_the_table_and_the_figures_of_what_was_measured(study, tmp_path, capsys):
    results = EXPERIMENTS / "studies" / "stn.jsonl"
    assert study.main(["table", "--results", str(results), "--studies", "transformer"]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    columns = ["transformer", "converged", "all", *study.KINDS, "against the config", "spread"]
    assert header == "| " + " | ".join(columns) + " |"
    assert len(rows) == len(study.STUDIES["transformer"])
    figures = load_script("stn_figures")
    assert figures.main(["--results", str(results), "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"stn_{n}.svg" for n in ("curves", "gain", "settings")]
    assert ">rotated<" in (tmp_path / "stn_gain.svg").read_text()
    photographs = results.with_name("stn_photographs.jsonl")
    assert figures.main(["--results", str(photographs), "--out", str(tmp_path)]) == 0
    assert ">ic15_train<" in (tmp_path / "stn_gain.svg").read_text()
    assert study.main(["table", "--results", str(tmp_path / "none.jsonl")]) == 1
    assert "none.jsonl has no networks yet" in capsys.readouterr().err


def test_the_table_has_intervals_and_differences_seed_by_seed(study):
    table, kinds = study.table, ["straight", "curved"]

    def row(change, seed, straight, **curves):
        return {
            "change": change,
            "seed": seed,
            "words": kinds,
            "straight": straight,
            "curved": straight - 20.0,
            **curves,
        }

    rows = [row("", 0, 60.0), row("", 1, 62.0), row("a", 0, 65.0, stn_outside=[0, 0.6])]
    rows += [row("a", 1, 69.0)]
    rows[2]["stn_spread"], rows[3]["stn_spread"] = 0.03, 0.05
    *_, best, base = table("x", {"one": "a", "as it is": ""}, rows, kinds).splitlines()
    # Student's t of one degree of freedom is 12.706 at 97.5 %, the deviation of two values half their distance / 0.707.
    assert best == "| one | 1 of 2 | 57.0 ± 25.4 | 67.0 ± 25.4 | 47.0 ± 25.4 | +6.0 ± 12.7 | 4.0 ± 12.7 |"
    assert base == "| as it is | 2 of 2 | 51.0 ± 12.7 | 61.0 ± 12.7 | 41.0 ± 12.7 |  |  |"
    rows += [row("b", 7, 60.0)]  # a seed that the base does not have
    settings = {"one": "a", "other": "b", "as it is": ""}
    *_, line = study.difference_table("x", settings, rows, kinds).splitlines()
    assert line == "| one | 2 | +6.0 ± 12.7 | +6.0 ± 12.7 |"
    assert study.difference_table("x", {"other": "b", "as it is": ""}, rows, kinds) == ""


# The study at a small size. A recogniser that is held still (its learning rate is a millionth) reads few of the words,
# since they are cropped far too loosely, and a transformer learns from its loss alone where to look.
LEARNING = ["model.cnn=compact", "model.stn.kind=affine", "model.stn.disturbance=0", "optimizer.learning_rate=1e-6"]
LEARNING += ["optimizer.localisation_factor=400", "optimizer.warmup_steps=10", "optimizer.ema_decay=0"]
RUN = [
    "run.batch_size=16",
    "run.steps=100",
    "run.steps_per_dispatch=20",
    "run.log_every=20",
    "run.eval_every=100",
    "run.checkpoint_every=20",
]


def test_a_transformer_learns_where_to_look(optimised, study, pooled, tmp_path):
    """More words are read with a trained transformer than with one that stays as it starts, its rate being 0."""
    base, still = override(study.load_config("stn_study"), LEARNING + RUN), "optimizer.localisation_factor=0"
    loose = {"loose": study.KINDS["straight"]}
    study.train_all(base, ["", still], [0], 2, 128, tmp_path, init="tiny", kinds=loose)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    read = {row["change"]: row["loose"] for row in rows}
    assert read[""] > 22 and read[still] < 10
