"""Held-out rendered words as a dataset."""

from collections.abc import Iterator
from functools import cached_property, partial

import jax
import numpy as np

from crnn_jax.charset import Charset
from crnn_jax.config import Config
from crnn_jax.data.sample import Sample
from crnn_jax.synth.batch import load_source, synth_batch

SEED = 20_000  # not that of any training or of its evaluation
BATCH = 64


class RenderedWords:
    """Words that training never sees, in the style, size and charset of a config; always the same of one config.

    Rendered together when the first is asked for, so that who times the reading does not time the rendering.
    """

    def __init__(self, config: Config, *, count: int = 2048):
        self.config, self.count = config, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        return self.samples()

    def samples(self, start: int = 0, *, stop: int | None = None) -> Iterator[Sample]:
        """Samples `start` .. `stop` - 1."""
        return iter(self._samples[start:stop])

    @cached_property
    def _samples(self) -> list[Sample]:
        source, charset = load_source(self.config), Charset.of(self.config.model.charset)
        render = jax.jit(partial(synth_batch, batch_size=BATCH, config=self.config, held_out=True))
        samples = []
        for first in range(0, self.count, BATCH):
            batch = jax.device_get(render(jax.random.key(SEED), source, first_index=first))
            for image, label in zip(batch.image, batch.label, strict=True):
                samples.append(Sample(np.asarray(image), charset.decode(label), f"word {len(samples)}"))
        return samples[: self.count]
