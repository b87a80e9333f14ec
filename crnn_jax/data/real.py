"""Real words for fine-tuning, kept on the device: 10,000 of them are 32 MB, and a step needs nothing from the host."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np

from crnn_jax.charset import Charset
from crnn_jax.config import Config
from crnn_jax.data.augment import augment
from crnn_jax.data.damage import Damage, whole_records
from crnn_jax.data.dataset import open_dataset, tenth_start
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.target import class_ids, fit, reasons, turned, unfit
from crnn_jax.images import ImageError
from crnn_jax.synth.batch import Batch
from crnn_jax.synth.render import example_keys
from crnn_jax.synth.style import Style


def load_real(config: Config) -> tuple[Batch, Batch | None, str]:
    """The words of `config.data.real`: those to train on, the last tenth of every dataset, and a line on what was kept.

    The tenth may be empty (None) if there is `data.validation`.

    Labels lose their spaces and the punctuation marks that the charset lacks, as in evaluation. Words are left out, and
    counted, if they have other characters that it lacks, have no characters, are too long for the label's slots or the
    frames, run up or down (`turned`), or are damaged, up to a share `data.max_damaged` of each dataset. Raises
    DatasetError.
    """
    charset = Charset.of(config.model.charset)
    parts, left_out = ([], []), Counter()
    for path in config.data.real:
        dataset, damage = open_dataset(path, strict=False), Damage()
        tenth = tenth_start(dataset)
        for index, record, grey in whole_records(dataset, damage):
            ids = class_ids(record.label, charset)
            reason = unfit(ids, config) or turned(grey.shape, ids)
            left_out[reason] += 1
            if not reason:
                parts[index >= tenth].append((fit(grey, config), ids))
        if len(damage) > config.data.max_damaged * len(dataset):
            raise DatasetError(
                f"{path}: {len(damage)} of {len(dataset)} words are damaged, more than data.max_damaged = "
                f"{config.data.max_damaged:g}; the first: {damage.places[0][1]}"
            )
        left_out += Counter({"damaged": len(damage)})
    kept = left_out.pop("", 0)
    if not parts[0] or not parts[1] and not config.data.validation:
        what = f"none of the {kept} usable words is in the last tenth" if parts[0] else "no words are left to train on"
        raise DatasetError(f"{', '.join(config.data.real)}: {what}{reasons(left_out)}")
    apart = "not used, since data.validation is set" if config.data.validation else "held out"
    report = f"{kept} real words, {len(parts[1])} of them {apart}{reasons(left_out)}"
    return *(_stack(part, config.data.max_length) if part else None for part in parts), report


def load_validation(config: Config) -> tuple[Batch, str]:
    """At most `data.held_out_words` of the words of `data.validation`, rounded up, and a line on what was kept.

    The same number is examined in every dataset, evenly spread over it. The model's limits are those of `load_real`,
    but words on their side are kept, as in evaluate.py. Raises DatasetError.
    """
    charset, kept, left_out = Charset.of(config.model.charset), [], Counter()
    for path in config.data.validation:
        dataset = open_dataset(path, strict=False)
        left_out["damaged"] += len(dataset.damage)
        most = -(-config.data.held_out_words // len(config.data.validation))
        for index in np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).astype(int)).tolist():
            try:
                [sample] = dataset.samples(index, stop=index + 1)
            except (DatasetError, ImageError):
                left_out["damaged"] += 1
                continue
            ids = class_ids(sample.label, charset)
            reason = unfit(ids, config)
            left_out[reason] += 1
            if not reason:
                kept.append((fit(sample.image, config), ids))
    left_out = {reason: count for reason, count in left_out.items() if reason and count}
    if not kept:
        raise DatasetError(f"{', '.join(config.data.validation)}: no words are left to validate on{reasons(left_out)}")
    return _stack(kept, config.data.max_length), f"{len(kept)} words to validate on{reasons(left_out)}"


def real_batch(key, words: Batch, *, batch_size: int, style: Style, first_index=0) -> Batch:
    """`batch_size` words drawn at random and augmented; example i depends on `key` and `first_index + i` alone."""

    def draw(example_key):
        pick_key, augment_key = jax.random.split(example_key)
        index = jax.random.randint(pick_key, (), 0, words.image.shape[0])
        image = augment(augment_key, words.image[index], style=style)
        return Batch(image, words.label[index], words.label_length[index])

    return jax.vmap(draw)(example_keys(key, first_index, batch_size))


def take(first, words: Batch, *, size: int) -> Batch:
    """`size` of the words as they are, from number `first` on; after the last one the first comes again."""
    index = (first + jnp.arange(size)) % words.label.shape[0]
    return jax.tree.map(lambda leaf: leaf[index], words)


def _stack(samples: list[tuple[np.ndarray, list[int]]], slots: int) -> Batch:
    images, ids = zip(*samples, strict=True)
    labels = np.array([row + [0] * (slots - len(row)) for row in ids], np.int32)
    lengths = np.array([len(row) for row in ids], np.int32)
    return Batch(*map(jnp.asarray, (np.stack(images), labels, lengths)))
