"""The words of a run: rendered ones, real ones among them where the config names some, and those held out of both.

Everything is on the device, so that a batch is a pure function of a key, these arrays, and the index of its first
example: pass `Words` as an argument of jitted code.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from crnn_jax.config import Config
from crnn_jax.data.real import RealWords, load_real, real_batch
from crnn_jax.synth.batch import Batch, Source, load_source, synth_batch

REAL = 1  # folded into a step's key for its real words


class Words(NamedTuple):
    """What batches are made of."""

    source: Source
    real: RealWords | None = None
    real_tenth: RealWords | None = None  # of every real dataset the last tenth, never trained on


def load_words(config: Config) -> tuple[Words, str]:
    """The words of a config, on the default device, and a line on what was kept of the real ones ("" without any)."""
    source = load_source(config)
    if not config.data.real:
        return Words(source), ""
    real, tenth, report = load_real(config)
    return Words(source, real, tenth), report


def parts(config: Config) -> int:
    """Into how many equal parts a device's share of the batch is to be divisible: four where two kinds are mixed."""
    return 4 if 0 < config.data.share_real < 1 else 1


def train_batch(key: Array, words: Words, first_index: Array, *, config: Config, size: int) -> Batch:
    """`size` examples of a global batch, from `first_index` on; `config.data.share_real` of them are real."""
    render = partial(synth_batch, config=config)
    quarters = round(4 * config.data.share_real)
    real_size = size * quarters // 4
    if real_size == 0:
        return render(key, words.source, batch_size=size, first_index=first_index)
    # The two kinds count their examples apart, so that devices that share a batch draw the same words as one does.
    real = real_batch(
        jax.random.fold_in(key, REAL),
        words.real,
        batch_size=real_size,
        style=config.data.style,
        first_index=first_index * quarters // 4,
    )
    if real_size == size:
        return real
    rendered = render(key, words.source, batch_size=size - real_size, first_index=first_index * (4 - quarters) // 4)
    return jax.tree.map(lambda *both: jnp.concatenate(both), rendered, real)


def rendered_held_out(key: Array, words: Words, first_index: Array, *, config: Config, size: int) -> Batch:
    """`size` rendered examples of words that training never renders."""
    return synth_batch(key, words.source, batch_size=size, config=config, first_index=first_index, held_out=True)


def real_held_out(key: Array, words: Words, first_index: Array, *, size: int) -> Batch:
    """The real words of the last tenths as they are, in their order; behind the last the first come again."""
    tenth = words.real_tenth
    index = (first_index + jnp.arange(size)) % tenth.label.shape[0]
    return Batch(tenth.image[index], tenth.label[index], tenth.label_length[index])
