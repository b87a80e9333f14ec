"""Held-out rendered words as a dataset."""

from functools import partial

import jax
import numpy as np

from crnn_jax.charset import Charset
from crnn_jax.config import Config, ConfigError
from crnn_jax.data.sample import Dataset, DatasetError, Record
from crnn_jax.synth.batch import check_charset, load_source, synth_batch

SEED = 20_000  # not used by any training run or its evaluation
BATCH = 64


class RenderedWords(Dataset):
    """English words that training never sees, and fresh numbers and codes, in the style, size and charset of a config.

    They are always the same for one config. Short numbers and codes may occur in training, too. They are rendered when
    the dataset is made, so that timing the reading does not time the rendering. Raises DatasetError for a charset that
    cannot spell them.
    """

    def __init__(self, config: Config, *, count: int = 2048):
        try:
            check_charset(config)
        except ConfigError as error:
            raise DatasetError(f"rendered: {error}") from None
        source, charset = load_source(config), Charset.of(config.model.charset)
        render = jax.jit(partial(synth_batch, batch_size=BATCH, config=config, held_out=True))
        self._words: list[Record] = []
        for first in range(0, count, BATCH):
            batch = jax.device_get(render(jax.random.key(SEED), source, first_index=first))
            for image, label in zip(batch.image, batch.label, strict=True):
                self._words.append(Record(np.asarray(image), charset.decode(label), f"word {len(self._words)}"))
        del self._words[count:]

    def __len__(self) -> int:
        return len(self._words)

    def __getitem__(self, index: int) -> Record:
        return self._words[index]
