"""The words of a run: rendered ones, real ones if the config names some, and those held out of both.

Rendered words, and real ones for fine-tuning, are on the device, so that a batch is a pure function of a key, these
arrays, and the index of its first example: pass `Words` as an argument of jitted code. Words of `data.sources` come
from disk, a batch at a time (`stream`).
"""

import zlib
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from crnn_jax.charset import Charset
from crnn_jax.config import RENDERED, Config, ConfigError
from crnn_jax.data.augment import augment
from crnn_jax.data.dataset import share_words
from crnn_jax.data.real import load_real, load_validation, real_batch, take
from crnn_jax.data.selection import select
from crnn_jax.data.stream import WordSource
from crnn_jax.synth.batch import Batch, Source, check_charset, load_source, synth_batch
from crnn_jax.synth.render import example_keys

REAL = 2  # folded into a step's key for its words that are not rendered: 0 and 1 give the keys of `split`


class Words(NamedTuple):
    """What batches are made of."""

    source: Source | None  # None if the charset can spell nothing that is rendered
    real: Batch | None = None
    held_out: Batch | None = None  # real words never trained on: data.validation, or the last tenths of data.real


def check_words(config: Config) -> None:
    """Raises ConfigError if data.real and data.share_real contradict each other, or if words are named twice.

    That is, trained on twice, or both trained and validated on.
    """
    data = config.data
    if data.share_real and not data.real:
        raise ConfigError(f"data.share_real = {data.share_real:g}, but there are no real words: name them in data.real")
    learnt = [path for path in (*data.real, *data.sources) if path != RENDERED]
    for i, path in enumerate(learnt):
        if share_words(path, learnt[:i]):
            field = "data.real" if data.real else "data.sources"
            raise ConfigError(f"{field} has {path} twice, or another dataset that shares files with it")
    both = [path for path in data.validation if share_words(path, learnt)]
    if both:
        raise ConfigError(f"data.validation has {both[0]}, which is also trained on: it would measure nothing")
    if data.real and not data.share_real:
        raise ConfigError("data.real names real words, but data.share_real = 0: no batch would have any")


def load_words(config: Config) -> tuple[Words, list[str]]:
    """The words of a config that are kept on the default device, and lines that say which real ones were kept.

    Raises ConfigError and DatasetError.
    """
    check_words(config)
    data = config.data
    if any(map(str.isspace, Charset.of(config.model.charset).characters)):
        raise ConfigError("model.charset has a space, but spaces are removed from labels: models read words, not lines")
    renders = data.share_real < 1 and (not data.sources or RENDERED in data.sources)
    if renders or not (data.real or data.validation):  # without real ones, rendered words choose the best checkpoint
        check_charset(config)
    source = load_source(config) if can_spell(config) else None
    real = held_out = None
    reports = []
    if data.real:
        real, held_out, report = load_real(config)
        reports.append(report)
    if data.validation:
        held_out, report = load_validation(config)
        reports.append(report)
    return Words(source, real, held_out), reports


def can_spell(config: Config) -> bool:
    """Whether the charset can spell rendered words; if not, as with a Greek one, no rendered words are held out."""
    try:
        check_charset(config)
    except ConfigError:
        return False
    return True


def open_sources(config: Config, *, cache: Path, processes: int) -> tuple[list[WordSource], list[float], list[str]]:
    """The datasets among `data.sources`, their weights, and lines that say what is kept (see `data.selection`)."""
    sources, weights, reports = [], [], []
    for path, weight in zip(config.data.sources, _weights(config), strict=True):
        if path == RENDERED:
            continue
        dataset, selection = select(path, config, cache=cache, processes=processes)
        sources.append(WordSource(dataset, selection, config, name=path))
        weights.append(weight)
        reports.append(selection.report(path))
        reports += [f"  damaged: {place}" for place in selection.damage]
    return sources, weights, reports


def fingerprint(words: Words, sources: list[WordSource], *, rows: int) -> dict[str, int | str]:
    """Facts about a run's words that its configuration lacks and that must be unchanged when it is resumed.

    `rows` words of every global batch come from disk; if others are rendered, it depends on the devices.
    """
    kinds = {"real words": words.real, "words to validate on": words.held_out}
    real = {name: _described(of_kind) for name, of_kind in kinds.items() if of_kind is not None}
    streamed = {"words of a batch from disk": rows} if sources else {}
    return real | streamed | {f"words of {source.name}": source.kept for source in sources}


def _described(words: Batch) -> str:
    """How many words these are, and a checksum of them."""
    checksum = 0
    for leaf in jax.device_get(words):
        checksum = zlib.crc32(np.ascontiguousarray(leaf), checksum)
    return f"{words.label.shape[0]} ({checksum:08x})"


def parts(config: Config) -> int:
    """How many equal parts a device's share of the batch must divide into: four if two kinds are mixed."""
    return 4 if 0 < config.data.share_real < 1 else 1


def streamed_rows(config: Config, size: int) -> int:
    """How many of a device's `size` examples come from disk; the others are rendered, in fours (see `render`).

    If there are both, there are at least four of each, so their shares of a global batch depend on the devices.
    """
    sources = config.data.sources
    if RENDERED not in sources:
        return size if sources else 0
    share = _weights(config)[sources.index(RENDERED)] / sum(_weights(config))
    fours = round(size * share / 4)
    if len(sources) > 1:
        if size < 8:
            told = f"{size} words per device are too few to mix rendered ones with those from disk"
            raise ConfigError(f"run.batch_size: {told}: expected at least 8")
        fours = min(max(fours, 1), size // 4 - 1)
    return size - 4 * fours


def train_batch(
    key: Array, words: Words, first_index: Array, *, streamed: Batch | None = None, config: Config, size: int
) -> Batch:
    """`size` examples of a global batch, from `first_index` on: rendered ones, then real or `streamed` ones."""
    render = partial(synth_batch, config=config)
    # Each kind numbers its own examples, so that devices that share a batch draw the same words as one does, if they
    # draw as many of each (see `streamed_rows`).
    device = first_index // size
    if streamed is not None:
        rows = streamed.image.shape[0]
        if config.data.augment:
            keys = example_keys(jax.random.fold_in(key, REAL), device * rows, rows)
            warp = partial(augment, style=config.data.style)
            streamed = streamed._replace(image=jax.vmap(warp)(keys, streamed.image))
        others = streamed
    else:
        rows = size * round(4 * config.data.share_real) // 4
        if rows:
            others = real_batch(
                jax.random.fold_in(key, REAL),
                words.real,
                batch_size=rows,
                style=config.data.style,
                first_index=device * rows,
            )
    if rows == size:
        return others
    rendered = render(key, words.source, batch_size=size - rows, first_index=device * (size - rows))
    return jax.tree.map(lambda *both: jnp.concatenate(both), rendered, others) if rows else rendered


def _weights(config: Config) -> tuple[float, ...]:
    return config.data.weights or (1.0,) * len(config.data.sources)


def rendered_held_out(key: Array, words: Words, first_index: Array, *, config: Config, size: int) -> Batch:
    """`size` rendered examples of held-out words (see `sample_word`)."""
    return synth_batch(key, words.source, batch_size=size, config=config, first_index=first_index, held_out=True)


def real_held_out(key: Array, words: Words, first_index: Array, *, size: int) -> Batch:
    """`size` of the held-out real words, in their order; `key` is not used."""
    return take(first_index, words.held_out, size=size)
