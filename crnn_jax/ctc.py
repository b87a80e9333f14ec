"""Connectionist temporal classification (Graves et al. 2006): loss, frame posteriors, greedy decoding. Blank is 0."""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def ctc_loss(
    logits: Float[Array, "B T K"], labels: Int[Array, "B N"], label_lengths: Int[Array, " B"]
) -> tuple[Float[Array, " B"], Bool[Array, " B"]]:
    """Negative log-likelihood of each label, in nats and float32, and whether the label fits into T frames at all.

    `labels` holds class ids from 1 on, the first `label_lengths` of each row, followed by zeros; N >= 1. An infeasible
    label (see `feasible`) has loss 0 and gradient 0: use the mask to leave it out of a mean. No NaN or infinity arises
    as long as the logits' sums along a path stay below 1e5, optax's logarithm of 0.

    Whatever the dtype of the logits, everything is computed in float32 at the highest matmul precision: bfloat16 is off
    by 0.1 nats at a loss of 100, and optax picks the labels' log-probabilities by a product with a one-hot.
    """
    import optax  # not at the top: reading does without it and starts faster

    batch, frames, _ = logits.shape
    fits = feasible(labels, label_lengths, frames=frames)
    label_paddings = (jnp.arange(labels.shape[1])[None] >= label_lengths[:, None]).astype(jnp.float32)
    with jax.default_matmul_precision("highest"):
        loss = optax.ctc_loss(logits.astype(jnp.float32), jnp.zeros((batch, frames)), labels, label_paddings)
    # Rounding can take the loss of a label of probability 1 to -8e-8; jnp.maximum would halve the gradient at 0.
    loss = loss - jax.lax.stop_gradient(jnp.minimum(loss, 0.0))
    return jnp.where(fits, loss, 0.0), fits


def needed_frames(label: Sequence) -> int:
    """How many frames it takes to spell one label: one for each character, and a blank between equal neighbours."""
    return len(label) + sum(a == b for a, b in pairwise(label))


def feasible(labels: Int[Array, "B N"], label_lengths: Int[Array, " B"], *, frames: int) -> Bool[Array, " B"]:
    """Whether `frames` frames can spell each label (`needed_frames`)."""
    inside = jnp.arange(1, labels.shape[1])[None] < label_lengths[:, None]
    repeats = jnp.sum((labels[:, 1:] == labels[:, :-1]) & inside, axis=1)
    return label_lengths + repeats <= frames


def frame_posteriors(
    logits: Float[Array, "B T K"], labels: Int[Array, "B N"], label_lengths: Int[Array, " B"]
) -> Float[Array, "B T K"]:
    """The probability of each class at each frame given that the label is right, over all paths that spell it.

    Rows sum to 1. By the identity d loss / d logits = softmax(logits) - posterior (Graves et al. 2006, eq. 16),
    differentiating the loss is the forward-backward recursion. For an infeasible label, the softmax itself.
    """
    logits = logits.astype(jnp.float32)
    gradient = jax.grad(lambda z: ctc_loss(z, labels, label_lengths)[0].sum())(logits)
    return jax.nn.softmax(logits) - gradient


def text_log_probs(
    logits: Float[Array, "T K"], labels: Int[Array, "W N"], label_lengths: Int[Array, " W"]
) -> Float[Array, " W"]:
    """The log-probability of each of W texts of ONE example, over all paths that spell it; -inf if infeasible.

    Minus `ctc_loss` of each, by the forward recursion alone (Graves et al. 2006, section 4.1), for all texts at once.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    # A blank before every label and after the last; it may only be skipped between two different labels.
    states = jnp.zeros((len(labels), 2 * labels.shape[1] + 1), jnp.int32).at[:, 1::2].set(labels)
    passes = (states[:, 2:] != 0) & (states[:, 2:] != states[:, :-2])

    def behind(paths, states):
        return jnp.pad(paths, ((0, 0), (states, 0)), constant_values=-jnp.inf)

    def step(paths, frame):
        passing = jnp.where(passes, paths[:, :-2], -jnp.inf)
        arrived = jnp.logaddexp(jnp.logaddexp(paths, behind(paths[:, :-1], 1)), behind(passing, 2))
        return arrived + frame[states], None

    start = jnp.where(jnp.arange(states.shape[1]) < 2, log_probs[0][states], -jnp.inf)
    paths, _ = jax.lax.scan(step, start, log_probs[1:])
    ends = 2 * label_lengths[:, None] - jnp.arange(2)[None]  # the last blank, the last label
    return jax.nn.logsumexp(jnp.where(ends >= 0, jnp.take_along_axis(paths, ends, axis=1), -jnp.inf), axis=1)


def greedy_decode(logits: Float[Array, "T K"]) -> tuple[Int[Array, " T"], Int[Array, ""], Float[Array, ""]]:
    """The most probable path of ONE example, collapsed: repeats merged, then blanks dropped.

    Returns:
        ids: int32, the class ids packed to the left, zeros behind.
        length: how many of them count.
        confidence: the probability of that one path, 0..1: the product over all frames, blanks included, of the
            largest class probability. Other paths spell the same text, so the text's own probability is higher.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    path = jnp.argmax(log_probs, axis=-1).astype(jnp.int32)
    previous = jnp.concatenate([jnp.zeros(1, jnp.int32), path[:-1]])
    kept = (path != 0) & (path != previous)
    # Every kept id goes to its rank among the kept; the others go one past the end, where `drop` discards them.
    slot = jnp.where(kept, jnp.cumsum(kept) - 1, path.size)
    ids = jnp.zeros_like(path).at[slot].set(path, mode="drop")
    return ids, jnp.sum(kept, dtype=jnp.int32), jnp.exp(jnp.sum(jnp.max(log_probs, axis=-1)))
