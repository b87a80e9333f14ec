"""The compiled functions that a Reader runs, on variables and a batch of images, uint8[B, H, W]."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from crnn_jax.beam import beam_search
from crnn_jax.ctc import greedy_decode, text_log_probs
from crnn_jax.model import CRNN
from crnn_jax.stn import Diagnosis

SCORED = 16  # images whose words are scored at a time, except on a CPU


@partial(jax.jit, static_argnames="model")
def apply(variables, images, *, model: CRNN):
    """The logits, float32[B, T, K]."""
    return model.apply(variables, images)


@partial(jax.jit, static_argnames="model")
def read_batch(variables, temperature, images, *, model: CRNN):
    """Class ids of the texts, int32[B, T] padded with zeros, and confidences, float32[B]."""
    # Dividing by a positive number does not move the maximum: the text is the same at every temperature.
    ids, _, confidence = jax.vmap(greedy_decode)(model.apply(variables, images) / temperature)
    return ids, confidence


@partial(jax.jit, static_argnames="model")
def search_batch(variables, images, *, model: CRNN):
    """Class ids of the likeliest texts, int32[B, beams, T], and their log-probabilities, float32[B, beams]."""
    beams = jax.vmap(beam_search)(model.apply(variables, images))
    return beams.ids, beams.log_probs


@partial(jax.jit, static_argnames="model")
def score_batch(variables, groups, images, *, model: CRNN):
    """Log-probabilities of the spellings of a word list (`WordList.groups`), float32[B, S]."""
    # On a CPU one image at a time: the scores of all words for all images would not fit in the cache.
    batch_size = None if jax.default_backend() == "cpu" else SCORED

    def score(logits):
        return jnp.concatenate([text_log_probs(logits, *group) for group in groups])

    return lax.map(score, model.apply(variables, images), batch_size=batch_size)


def score_texts(logits, groups) -> Float[np.ndarray, " S"]:
    """The same for one image, from its logits. One program per group size: lists of similar length share programs."""
    return np.concatenate([_score_group(logits, *group) for group in groups])


_score_group = jax.jit(text_log_probs)


@partial(jax.jit, static_argnames="model")
def transform_batch(variables, images, *, model: CRNN):
    """The STN's output images and its parameters, and the numbers of its Diagnosis, [B] each."""
    made, updated = model.apply(variables, images, method="transform", mutable=["diagnostics"])
    return made, Diagnosis(*(updated["diagnostics"]["stn"][f"stn_{name}"] for name in Diagnosis._fields))
