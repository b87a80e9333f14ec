"""CTC against brute force over all paths, and greedy decoding against plain Python."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from crnn_jax.ctc import ctc_loss, feasible, frame_posteriors, greedy_decode, text_log_probs

T, K, N = 5, 3, 6
LABELS = [[], [1], [2, 1], [1, 1], [1, 2, 1], [2, 2, 2], [1, 2, 2, 1], [1, 2, 1, 2, 1], [1, 1, 2, 2], [1] * 6]


def collapse(path):
    return [k for k, _ in itertools.groupby(path) if k != 0]


def padded(labels, width=N):
    return jnp.array([row + [0] * (width - len(row)) for row in labels]), jnp.array([len(row) for row in labels])


@pytest.fixture(scope="module")
def case():
    logits = 2 * jax.random.normal(jax.random.key(0), (len(LABELS), T, K))
    return logits, *padded(LABELS)


@pytest.fixture(scope="module")
def brute(case):
    """For each label: the probability of all paths that spell it, and their share by frame and class."""
    probs = np.asarray(jax.nn.softmax(case[0]), np.float64)
    total, share = np.zeros(len(LABELS)), np.zeros(case[0].shape)
    for path in itertools.product(range(K), repeat=T):
        for b, label in enumerate(LABELS):
            if collapse(path) == label:
                p = np.prod(probs[b, range(T), path])
                total[b] += p
                share[b, range(T), path] += p
    return total, share


@pytest.fixture(scope="module")
def value_and_gradient():
    def summed(logits, labels, lengths):
        loss, fits = ctc_loss(logits, labels, lengths)
        return loss.sum(), (loss, fits)

    return jax.jit(jax.value_and_grad(summed, has_aux=True))


def test_texts_of_one_example_have_the_probability_of_all_paths(case):
    logits, labels, lengths = case
    for row in logits[:3]:
        probs = np.asarray(jax.nn.softmax(row), np.float64)
        expected = dict.fromkeys(map(tuple, LABELS), 0.0)
        for path in itertools.product(range(K), repeat=T):
            text = tuple(collapse(path))
            if text in expected:
                expected[text] += np.prod(probs[range(T), path])
        found = np.exp(jax.jit(text_log_probs)(row, labels, lengths))
        np.testing.assert_allclose(found, list(expected.values()), rtol=2e-5)
        assert (found[-2:] == 0).all()  # no path is long enough


def test_loss_is_that_of_all_paths(case, brute, value_and_gradient):
    (_, (loss, fits)), gradient = value_and_gradient(*case)
    possible = brute[0] > 0
    assert possible.tolist() == [True] * 8 + [False] * 2  # [1, 1, 2, 2] needs 6 frames, six times 1 needs 11
    assert fits.tolist() == possible.tolist()
    np.testing.assert_allclose(loss[possible], -np.log(brute[0][possible]), rtol=1e-5)
    assert not np.any(loss[~possible]) and not np.any(gradient[~possible])
    assert np.abs(gradient[possible]).max(axis=(1, 2)).min() > 0.01


def test_frame_posteriors_are_those_of_all_paths(case, brute):
    posteriors = np.asarray(jax.jit(frame_posteriors)(*case))
    possible = brute[0] > 0
    expected = brute[1][possible] / brute[0][possible][:, None, None]
    np.testing.assert_allclose(posteriors[possible], expected, atol=2e-6)
    np.testing.assert_allclose(posteriors[~possible], jax.nn.softmax(case[0])[~possible], atol=1e-6)


def test_what_lies_behind_the_label_is_not_read(case, value_and_gradient):
    logits, labels, lengths = case
    noise = jax.random.randint(jax.random.key(1), labels.shape, 1, K)
    other = jnp.where(jnp.arange(N)[None] < lengths[:, None], labels, noise)
    (_, (loss, _)), gradient = value_and_gradient(logits, other, lengths)
    (_, (expected, _)), expected_gradient = value_and_gradient(*case)
    np.testing.assert_allclose(loss, expected, atol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


def test_loss_of_a_certain_label_is_never_negative(value_and_gradient):
    # Frames 1 to 3 are surely "1", the outer two "1" or blank: all four paths spell "1", and their sum rounds past 1.
    batch = 200
    logits = jnp.zeros((batch, T, K)).at[:, :, 2].set(-40.0).at[:, 1:4, 1].set(40.0)
    logits = logits.at[:, ::4, :2].set(jax.random.normal(jax.random.key(3), (batch, 2, 2)))
    labels, lengths = jnp.ones((batch, 1), jnp.int32), jnp.ones(batch, jnp.int32)
    unclamped = jax.jit(optax.ctc_loss)(logits, jnp.zeros((batch, T)), labels, jnp.zeros((batch, 1)))
    assert float(unclamped.min()) < 0  # or this test would show nothing
    (_, (loss, fits)), gradient = value_and_gradient(logits, labels, lengths)
    assert fits.all() and 0 <= float(loss.min()) and float(loss.max()) < 1e-6
    assert float(jnp.abs(gradient).max()) < 1e-6


def test_huge_logits_give_finite_gradients(value_and_gradient):
    logits, labels, lengths = 1e5 * jax.nn.one_hot(jnp.array([[1, 2, 1, 0, 1]] * 2), K), *padded([[1, 2], [1]])
    (_, (loss, _)), gradient = value_and_gradient(logits, labels, lengths)
    assert np.isfinite(loss).all() and np.isfinite(gradient).all()


def test_bfloat16_logits_are_cast_first(case):
    logits, labels, lengths = case
    half = logits.astype(jnp.bfloat16)
    loss = jax.jit(ctc_loss)(half, labels, lengths)[0]
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, jax.jit(ctc_loss)(half.astype(jnp.float32), labels, lengths)[0], rtol=1e-6)


def test_feasible_counts_the_blank_between_equal_neighbours():
    labels, lengths = padded([[], [1], [1, 1], [1, 2, 2], [2, 2, 2]], width=3)
    needed = [0, 1, 3, 4, 5]
    for frames in range(6):
        assert feasible(labels, lengths, frames=frames).tolist() == [frames >= n for n in needed]


def test_greedy_decode_equals_plain_python():
    frames, classes = 9, 4
    logits = 2 * np.random.default_rng(0).normal(size=(40, frames, classes)).astype(np.float32)
    logits[0] = 10 * np.eye(classes)[[0] * frames]  # all blank
    logits[1] = 10 * np.eye(classes)[[1, 2, 3, 1, 2, 3, 1, 2, 3]]  # nothing to drop
    logits[3] = 0  # ties take the first class, the blank
    logits[2] = 10 * np.eye(classes)[[1, 1, 0, 1, 1, 2, 2, 0, 0]]
    ids, lengths, confidences = jax.tree.map(np.asarray, jax.jit(jax.vmap(greedy_decode))(logits))
    assert ids.dtype == lengths.dtype == np.int32
    for row, row_ids, length, confidence in zip(logits, ids, lengths, confidences, strict=True):
        text = collapse(row.argmax(-1).tolist())
        assert row_ids.tolist() == text + [0] * (frames - len(text)) and length == len(text)
        probs = np.exp(row) / np.exp(row).sum(-1, keepdims=True)
        np.testing.assert_allclose(confidence, probs.max(-1).prod(), rtol=1e-5)
    assert ids[2].tolist()[:4] == [1, 1, 2, 0]
