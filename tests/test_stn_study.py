"""experiments/stn_study.py: settings are configs, networks are trained once, and a small one learns to look."""

import json
import re
from dataclasses import replace

import jax
import pytest
from small import EXPERIMENTS, load_script

import crnn_jax.stn
from crnn_jax.config import ConfigError, override
from crnn_jax.training import population as populations


@pytest.fixture
def study(monkeypatch):
    """The script, which imports its neighbours."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return load_script("stn_study")


def test_every_setting_is_a_config_of_its_own(study):
    base = study.get_config()
    for name, settings in study.STUDIES.items():
        configs = [override(base, changes) for changes in settings.values()]
        assert len(set(configs)) == len(configs) and base in [*configs, base]
        assert len(set(study.keys(name).values())) == len(settings)
    assert sum("" in study.keys(name).values() for name in study.STUDIES) == len(study.STUDIES)


def test_held_out_words_are_the_same_in_every_kind(study):
    draw = study.make_words(study.get_config(), 32, True)
    batch = jax.jit(draw)(jax.random.key(0), study.load_source(study.get_config()))
    labels = batch.label.reshape(len(study.KINDS), 8, -1)
    assert (labels == labels[:1]).all()
    with pytest.raises(ConfigError, match=re.escape("run.batch_size = 24: expected a multiple of 16")):
        study.make_words(study.get_config(), 24)


# The study at a small size. A recogniser is held still (its learning rate is a millionth) in front of words that it
# cannot read, since they are cropped far too loosely, and a transformer learns from its loss alone where to look.
LEARNING = ["model.stn.kind=affine", "model.stn.disturbance=0", "optimizer.learning_rate=1e-6"]
LEARNING += ["optimizer.localisation_factor=3000", "optimizer.warmup_steps=10", "optimizer.ema_decay=0"]
RUN = [
    "run.steps=100",
    "run.steps_per_dispatch=20",
    "run.log_every=20",
    "run.eval_every=100",
    "run.checkpoint_every=20",
]


def accuracies(study, out, monkeypatch, *changes: str) -> list[float]:
    """Of loosely cropped words, in per cent: what networks with these changes read."""
    loose = replace(study.STRAIGHT, margin_mean=130.0, margin_std=10.0)
    monkeypatch.setattr(study, "KINDS", {"straight": study.STRAIGHT, "loose": loose})
    base = override(study.get_config(), [*LEARNING, *RUN])
    study.train_all(base, list(changes), [0], 1, 128, out, init="tiny")
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [row["change"] for row in rows] == list(changes)
    return [row["loose"] for row in rows]


def test_a_transformer_learns_where_to_look(study, tmp_path, monkeypatch):
    with_it, without = accuracies(study, tmp_path, monkeypatch, "", "model.stn.kind=none")
    assert without < 50
    assert with_it > without + 20


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_with_a_wrong_gradient_of_the_sampler_it_does_not(study, tmp_path, monkeypatch, factor):
    right = crnn_jax.stn.bilinear_sample

    def wrong(image, xy, **options):
        still = jax.lax.stop_gradient(xy)
        return right(image, still + factor * (xy - still), **options)

    monkeypatch.setattr(crnn_jax.stn, "bilinear_sample", wrong)
    populations._train_program.cache_clear()
    (with_it,) = accuracies(study, tmp_path, monkeypatch, "")
    populations._train_program.cache_clear()
    assert with_it < 50
