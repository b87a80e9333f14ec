"""Prefix beam search: the likeliest texts of a CTC network, where greedy decoding has only the likeliest path.

Many paths spell a text, with other blanks and with characters held longer or shorter; their probabilities add up
(Graves and Jaitly 2014, algorithm 1, without its prior). After every frame the `beams` likeliest prefixes are kept.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Beams(NamedTuple):
    """The likeliest texts of one example, the best first."""

    ids: Int[Array, "M T"]  # class ids packed to the left, zeros behind
    lengths: Int[Array, " M"]  # how many of them count
    log_probs: Float[Array, " M"]  # nats, of the text; -inf where there are fewer texts than beams


class _State(NamedTuple):
    ids: Int[Array, "M T"]
    lengths: Int[Array, " M"]
    blank: Float[Array, " M"]  # log-probability of the prefix's paths that end in a blank
    label: Float[Array, " M"]  # and of those that end in its last label


def beam_search(logits: Float[Array, "T K"], *, beams: int = 32, classes: int = 8) -> Beams:
    """The M = `beams` likeliest texts of ONE example.

    Prefixes grow only by the `classes` likeliest labels of a frame; paths into a prefix that is kept always count. With
    as many beams as there are prefixes, and all classes, the log-probabilities are exact, those of `ctc.ctc_loss`;
    otherwise they miss the paths that were dropped. Raises ValueError if either is less than one.
    """
    if min(beams, classes) < 1:
        raise ValueError(f"beams = {beams}, classes = {classes}: expected at least one of each")
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    frames, num_classes = log_probs.shape
    best, labels = jax.lax.top_k(log_probs[:, 1:], min(classes, num_classes - 1))
    nothing = jnp.full(beams, -jnp.inf)
    state = _State(
        ids=jnp.zeros((beams, frames), jnp.int32),
        lengths=jnp.zeros(beams, jnp.int32),
        blank=nothing.at[0].set(0.0),  # one empty prefix; the other places are free
        label=nothing,
    )
    state, _ = jax.lax.scan(_step, state, (log_probs, best, labels + 1))
    return Beams(state.ids, state.lengths, jnp.logaddexp(state.blank, state.label))


def _step(state: _State, frame):
    log_probs, best, labels = frame  # of all classes; of the likeliest labels; these labels
    beams, frames = state.ids.shape
    total = jnp.logaddexp(state.blank, state.label)
    places = jnp.arange(frames)
    at_end = places[None] == state.lengths[:, None] - 1
    last = jnp.sum(jnp.where(at_end, state.ids, 0), axis=1)  # 0 for the empty prefix

    def growth(label, log_prob):
        """Log-probability of prefixes (rows) extended by `label`: two equal labels need a blank in between."""
        return jnp.where(label == last[:, None], state.blank[:, None], total[:, None]) + log_prob

    # child[i, j]: prefix j is prefix i plus one label, so extending i by that label adds to j.
    stems = jnp.where(at_end, 0, state.ids)
    child = (state.lengths[None] == state.lengths[:, None] + 1) & (total > -jnp.inf)[None]
    child &= jnp.all(state.ids[:, None] == stems[None], axis=-1)
    grown_into = jnp.where(child, growth(last[None], log_probs[last][None]), -jnp.inf)
    held = jnp.where(last > 0, state.label + log_probs[last], -jnp.inf)
    blank = total + log_probs[0]
    label = jnp.logaddexp(held, jax.nn.logsumexp(grown_into, axis=0))
    there = jnp.any(child[:, None] & (last[None, None] == labels[None, :, None]), axis=-1)
    grown = jnp.where(there, -jnp.inf, growth(labels[None], best[None]))

    scores, chosen = jax.lax.top_k(jnp.concatenate([jnp.logaddexp(blank, label), grown.ravel()]), beams)
    grows = chosen >= beams
    source = jnp.where(grows, (chosen - beams) // labels.size, chosen)
    added = labels[(chosen - beams) % labels.size]
    ids, lengths = state.ids[source], state.lengths[source]
    is_new = grows[:, None] & (places[None] == lengths[:, None])
    state = _State(
        ids=jnp.where(is_new, added[:, None], ids),
        lengths=lengths + grows,
        blank=jnp.where(grows, -jnp.inf, blank[source]),
        label=jnp.where(grows, scores, label[source]),
    )
    return state, None
