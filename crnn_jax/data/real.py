"""Real words for fine-tuning, kept on the device: 10,000 of them are 32 MB, and a step needs nothing of the host."""

from collections import Counter
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from crnn_jax.charset import Charset
from crnn_jax.config import Config
from crnn_jax.data.augment import augment
from crnn_jax.data.dataset import open_dataset, tenth_start
from crnn_jax.data.sample import DatasetError
from crnn_jax.images import fit_image
from crnn_jax.metrics import normalise
from crnn_jax.model import num_frames
from crnn_jax.synth.batch import Batch
from crnn_jax.synth.render import example_keys
from crnn_jax.synth.style import Style


class RealWords(NamedTuple):
    """Labelled images at the model's size."""

    image: UInt8[Array, "R H W"]
    label: Int[Array, "R N"]  # class ids, 0 behind the end
    label_length: Int[Array, " R"]


def load_real(config: Config) -> tuple[RealWords, RealWords, str]:
    """The words of `config.data.real`: those to train on, the last tenth of every dataset, and a line on what was kept.

    Labels lose their spaces and the punctuation marks that the charset lacks, as the evaluation's protocol has it. Left
    out, and counted, are words with other characters that it lacks, without a character, and too long for the label's
    slots or the frames. Raises DatasetError and ImageError.
    """
    charset = Charset.of(config.model.charset)
    parts, left_out = ([], []), Counter()
    for path in config.data.real:
        dataset = open_dataset(path)
        tenth = tenth_start(dataset)
        for index, sample in enumerate(dataset):
            ids = _class_ids(sample.label, charset)
            reason = _unfit(ids, config)
            left_out[reason] += 1
            if not reason:
                parts[index >= tenth].append((_fit(sample.image, config), ids))
    kept = left_out.pop("", 0)
    if not parts[0] or not parts[1]:
        raise DatasetError(f"{', '.join(config.data.real)}: no words are left to train on, or none in the last tenth")
    reasons = "".join(f"; {count} left out: {reason}" for reason, count in sorted(left_out.items()))
    report = f"{kept} real words, {len(parts[1])} of them held out{reasons}"
    return *(_stack(part, config.data.max_length) for part in parts), report


def real_batch(key, words: RealWords, *, batch_size: int, style: Style, first_index=0) -> Batch:
    """`batch_size` words drawn at random and augmented; example i depends on `key` and `first_index + i` alone."""

    def draw(example_key):
        pick_key, augment_key = jax.random.split(example_key)
        index = jax.random.randint(pick_key, (), 0, words.image.shape[0])
        image = augment(augment_key, words.image[index], style=style)
        return Batch(image, words.label[index], words.label_length[index])

    return jax.vmap(draw)(example_keys(key, first_index, batch_size))


def _class_ids(label: str, charset: Charset) -> list[int] | None:
    """The class ids of a label, None where it has a letter or digit that the charset lacks."""
    label = "".join(charset.fold(label).split())
    known = "".join(c for c in label if c in charset.characters)
    dropped = "".join(c for c in label if c not in charset.characters)
    foreign = normalise(dropped, cased=True) or not dropped.isascii()
    return None if foreign else charset.encode(known)


def _unfit(ids: list[int] | None, config: Config) -> str:
    """Why a word cannot be trained on; empty where it can."""
    if ids is None:
        return "characters outside the charset"
    if not ids:
        return "no characters"
    if len(ids) > config.data.max_length:
        return f"longer than data.max_length = {config.data.max_length}"
    frames = num_frames(config.model, config.model.width)
    if len(ids) + sum(a == b for a, b in pairwise(ids)) > frames:  # see `ctc.feasible`
        return f"too long for {frames} frames"
    return ""


def _fit(image: np.ndarray, config: Config) -> np.ndarray:
    # One size for all: with fit="pad" longer words are squeezed into the narrowest bucket, as rendered ones are.
    model = config.model
    return fit_image(image, height=model.height, width=model.width, fit=model.fit, max_width=model.width)


def _stack(samples: list[tuple[np.ndarray, list[int]]], slots: int) -> RealWords:
    images, ids = zip(*samples, strict=True)
    labels = np.array([row + [0] * (slots - len(row)) for row in ids], np.int32)
    lengths = np.array([len(row) for row in ids], np.int32)
    return RealWords(*map(jnp.asarray, (np.stack(images), labels, lengths)))
