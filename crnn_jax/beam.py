"""Prefix beam search: the likeliest texts of a CTC network, where greedy decoding has only its likeliest path.

Many paths spell a text, with the blanks elsewhere and characters held longer or shorter; their probabilities add up
(Graves and Jaitly 2014, algorithm 1, without its prior). Frame by frame the `beams` likeliest beginnings are kept.
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
    blank: Float[Array, " M"]  # log-probability of the beginning's paths that end in a blank
    label: Float[Array, " M"]  # and of those that end in its last label


def beam_search(logits: Float[Array, "T K"], *, beams: int = 32, classes: int = 8) -> Beams:
    """The likeliest texts of ONE example, M = `beams` of them.

    `classes`: how many labels, the likeliest of a frame, a beginning can grow by there; one that it ends in already is
    counted always. With as many beams as there are beginnings, and all classes, the log-probabilities are exact, those
    of `ctc.ctc_loss`; else they miss the paths that were dropped. Raises ValueError for less than one of either.
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
        blank=nothing.at[0].set(0.0),  # one beginning that is empty; the other places are free
        label=nothing,
    )
    state, _ = jax.lax.scan(_step, state, (log_probs, best, labels + 1))
    return Beams(state.ids, state.lengths, jnp.logaddexp(state.blank, state.label))


def _step(state: _State, frame):
    log_probs, best, labels = frame  # of all classes; of the likeliest labels; these
    beams, frames = state.ids.shape
    total = jnp.logaddexp(state.blank, state.label)
    places = jnp.arange(frames)
    at_end = places[None] == state.lengths[:, None] - 1
    last = jnp.sum(jnp.where(at_end, state.ids, 0), axis=1)  # 0 of the empty one

    def growth(label, log_prob):
        """Beginnings (rows) that one of `label` is added to: two equal ones need a blank in between."""
        return jnp.where(label == last[:, None], state.blank[:, None], total[:, None]) + log_prob

    # child[i, j]: beginning j is i and one label more. What i grows into then adds to what j is.
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
