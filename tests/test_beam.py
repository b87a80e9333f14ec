"""Beam search against the sum over all paths, one by one, and against CTC's loss."""

from collections import defaultdict
from functools import partial
from itertools import groupby, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crnn_jax.beam import beam_search
from crnn_jax.ctc import ctc_loss


def search(logits, **options) -> list[dict[tuple[int, ...], float]]:
    """Each example's texts and their log-probabilities, the best first, without those of free beams."""
    ids, lengths, log_probs = jax.device_get(jax.jit(jax.vmap(partial(beam_search, **options)))(jnp.float32(logits)))
    results = []
    for rows, counts, row_log_probs in zip(ids, lengths, log_probs, strict=True):
        assert (rows[np.arange(rows.shape[1]) >= counts[:, None]] == 0).all()
        there = row_log_probs > -np.inf
        texts = [tuple(row[:count].tolist()) for row, count in zip(rows[there], counts[there], strict=True)]
        assert len(set(texts)) == len(texts)
        assert (np.diff(row_log_probs[there]) <= 0).all()
        results.append(dict(zip(texts, row_log_probs[there].tolist(), strict=True)))
    return results


@pytest.mark.parametrize(("frames", "classes"), [(5, 3), (4, 4), (1, 4)])
def test_with_a_beam_for_every_text_it_sums_over_all_paths(frames, classes):
    logits = 2 * np.random.default_rng(frames).normal(size=(6, frames, classes))
    for row, found in zip(logits, search(logits, beams=100), strict=True):
        probabilities = np.exp(row) / np.exp(row).sum(-1, keepdims=True)
        expected = defaultdict(float)
        for path in product(range(classes), repeat=frames):
            text = tuple(label for label, _ in groupby(path) if label)
            expected[text] += np.prod(probabilities[range(frames), path])
        assert found.keys() == expected.keys()
        for text, log_prob in found.items():
            assert log_prob == pytest.approx(np.log(expected[text]), abs=1e-4)


def test_it_finds_the_text_whose_paths_are_likelier_together_than_the_likeliest_path():
    """Both frames are most likely blank, and yet a text is likelier than the empty one: three paths spell it."""
    logits = np.log([[[0.6, 0.4], [0.6, 0.4]]])
    [found] = search(logits, beams=2)
    assert list(found) == [(1,), ()]
    np.testing.assert_allclose(np.exp(list(found.values())), [0.64, 0.36], rtol=1e-5)


def test_a_beam_of_words_length_has_the_probabilities_of_the_loss():
    """At the size of a model, with frames as confident as a model's, dropping paths loses little."""
    frames, classes = 25, 37
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4, frames, classes))
    logits[np.arange(4)[:, None], np.arange(frames), generator.integers(0, 5, (4, frames))] += 8
    for row, found in zip(logits, search(logits), strict=True):
        assert len(found) == 32
        text = next(iter(found))
        loss, fits = ctc_loss(jnp.float32(row)[None], jnp.array([text]), jnp.array([len(text)]))
        assert fits[0]
        assert found[text] == pytest.approx(-float(loss[0]), abs=1e-2)


def test_a_text_can_grow_by_no_more_than_the_likeliest_classes():
    logits = np.array([[[0.0, 3.0, 2.0, 1.0]]])
    [found] = search(logits, beams=8, classes=2)
    assert list(found) == [(1,), (2,), ()]


@pytest.mark.parametrize("options", [{"beams": 0}, {"classes": 0}])
def test_less_than_one_beam_or_class_is_an_error(options):
    with pytest.raises(ValueError, match="expected at least one of each"):
        beam_search(jnp.zeros((3, 4)), **options)
