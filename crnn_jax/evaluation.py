"""Labelled words as a model reads them: every word, and their row of the table."""

import json
import math
import os
import string
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crnn_jax.batches import batch_shapes
from crnn_jax.calibration import expected_calibration_error
from crnn_jax.config import RENDERED, Config
from crnn_jax.data.damage import Damage, whole_records
from crnn_jax.data.dataset import open_dataset, share_words, take_part
from crnn_jax.data.rendered import RenderedWords
from crnn_jax.data.sample import Dataset, DatasetError
from crnn_jax.lexicon import Lexicon
from crnn_jax.metrics import normalise, score_compared
from crnn_jax.reader import Reader, Views
from crnn_jax.reading import Reading
from crnn_jax.stn import Diagnosis
from crnn_jax.wordlist import WordList

RESERVED = (RENDERED, "all", "all words")  # row names that no dataset at a path gets
CHUNK = 512  # images in memory

Row = dict[str, int | float]  # of the table
Among = WordList | dict[str, WordList]  # a closed list of words, or one for each image, by image name


class Given(NamedTuple):
    """One word of a dataset, ready to be read."""

    index: int  # in the dataset
    views: Views
    label: str
    name: str  # of the image in the dataset
    height: int  # pixels, of the image as it was given


class Chunk(NamedTuple):
    """Some words of a dataset."""

    words: list[Given]
    seconds: float  # that decoding and fitting took


class Word(NamedTuple):
    """One word as it was read."""

    label: str  # as it stands in the dataset
    text: str  # as it was read
    truth: str  # the label as the protocol compares it
    prediction: str  # the text as the protocol compares it
    confidence: float  # 0..1
    height: int  # pixels, of the image as it was given
    name: str = ""  # of the image in its dataset
    diagnosis: Diagnosis | None = None  # what the model's STN did with it, if it has one and this was asked for
    index: int = 0  # in its dataset

    @property
    def correct(self) -> bool:
        """Whether the protocol finds no difference."""
        return self.prediction == self.truth


@dataclass(frozen=True)
class Evaluation:
    """All words of a dataset in its order, as they were read and compared."""

    words: list[Word]
    seconds: float  # to decode, fit and read them

    def row(self) -> Row:
        """The row of the table; percentages as 0..100, the mean confidence as 0..1."""
        score = score_compared(
            [word.prediction for word in self.words],
            [word.truth for word in self.words],
            [word.confidence for word in self.words],
        )
        return {
            "count": score.count,
            "word_accuracy": score.word_accuracy,
            "one_minus_ned": score.one_minus_ned,
            "character_error_rate": score.cer,
            "confidence": score.confidence,
            "expected_calibration_error": expected_calibration_error(
                [word.confidence for word in self.words], [word.correct for word in self.words]
            ),
            "images_per_second": score.count / self.seconds,
        }


def all_words(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The words of several datasets together."""
    return Evaluation([word for e in evaluations for word in e.words], sum(e.seconds for e in evaluations))


def open_datasets(
    paths: Iterable[str | os.PathLike],
    config: Config,
    *,
    part: str = "all",
    taken: Iterable[str] = (),
    strict: bool = True,
) -> dict[str, Dataset]:
    """The datasets at `paths`, or the same part of each (see `dataset.take_part`), by their names in the table.

    These names are neither `taken` nor RESERVED. `strict` is that of `open_dataset`.

    `rendered` stands for held-out words in the style that the model of `config` was trained on; they are always taken
    whole. Raises DatasetError, also for a dataset that is given twice.
    """
    paths, datasets, taken = list(map(str, paths)), {}, set(taken)
    for i, path in enumerate(paths):
        before = paths[:i]
        if path in before or path != RENDERED and share_words(path, (other for other in before if other != RENDERED)):
            raise DatasetError(f"{path}: given twice")
    for path in paths:
        if path == RENDERED:
            datasets[path] = RenderedWords(config)
            continue
        name = name_of(path, {*datasets, *RESERVED, *taken}, suffix="" if part == "all" else f", {part}")
        try:
            datasets[name] = take_part(open_dataset(path, strict=strict), part)
        except DatasetError as error:
            raise DatasetError(str(error) if path in str(error) else f"{path}: {error}") from None
    return datasets


def name_of(path: str, taken: Container[str], *, suffix: str = "") -> str:
    """A dataset's name in a table: the last part of its path, or more of the path if that is taken, and `suffix`."""
    names = (Path(path).name or path, path, str(Path(path).absolute()))
    return next(name + suffix for name in names if name + suffix not in taken)


def dataset_words(
    reader: Reader, dataset: Dataset, name: str, *, thorough: bool = False, damage: Damage | None = None
) -> Iterator[Chunk]:
    """Chunks of a dataset, with a progress bar that shows its name; `thorough` as in `Reader.views`.

    What cannot be read is counted in `damage`, or without it raises an error (see `whole_records`).
    """
    words, begin = [], time.perf_counter()
    for index, (_, label, of_image), grey in whole_records(dataset, damage, name=name):
        words.append(Given(index, reader.views(grey, thorough=thorough), label, of_image, len(grey)))
        if len(words) == CHUNK:
            yield Chunk(words, time.perf_counter() - begin)
            words, begin = [], time.perf_counter()
    if words:
        yield Chunk(words, time.perf_counter() - begin)


def read_words(
    reader: Reader,
    chunks: Iterable[Chunk],
    *,
    cased: bool = False,
    punctuation: bool = False,
    lexicon: Lexicon | None = None,
    among: Among | None = None,
    diagnose: bool = False,
    compiled: set[tuple[int, int]] | None = None,
) -> Evaluation:
    """Reads chunks, and compares the words by `metrics.normalise` for the model's charset.

    With a list `among`, which replaces a lexicon, only its words are read; with a list for each image, by name, only
    the words of that list, and an image without one is read as "". With `diagnose` an STN is diagnosed, too.

    A chunk with batches of a new shape is read twice, since most of its first reading is compilation. Callers that read
    several datasets in the same way pass the same set of `compiled` shapes, at first empty, each time. The diagnosis is
    not part of the measured time.
    """
    read = _way_to_read(reader, lexicon, among)
    compiled = set() if compiled is None else compiled
    words, seconds = [], 0.0
    compared = partial(normalise, cased=cased, punctuation=punctuation, charset=reader.charset.characters)
    for chunk in chunks:
        views = [given.views for given in chunk.words]
        shapes = batch_shapes([image for turns in views for margins in turns for image in margins])
        if isinstance(among, dict):
            own = [among[given.name] for given in chunk.words if given.name in among]
            shapes |= {labels.shape for words_of_one in own for labels, _ in words_of_one.groups}
        if shapes - compiled:
            compiled |= shapes
            read(chunk.words)
        begin = time.perf_counter()
        readings = read(chunk.words)
        seconds += chunk.seconds + time.perf_counter() - begin
        diagnoses = [None] * len(readings)
        if diagnose and reader.has_stn:
            diagnoses = [transform.diagnosis for transform in reader.transform([turns[0][0] for turns in views])]
        for (index, _, label, name, height), reading, diagnosis in zip(chunk.words, readings, diagnoses, strict=True):
            text, confidence = reading
            compare = compared(label), compared(text)
            words.append(Word(label, text, *compare, confidence, height, name, diagnosis, index))
    return Evaluation(words, seconds)


def _way_to_read(
    reader: Reader, lexicon: Lexicon | None, among: Among | None
) -> Callable[[Sequence[Given]], list[Reading]]:
    def read(words):
        return reader.read_views([word.views for word in words], lexicon=lexicon)

    def choose(words):
        return reader.choose_views([word.views for word in words], among)

    def choose_each(words):
        listed = [word for word in words if word.name in among]
        chosen = iter(reader.choose_views([word.views for word in listed], [among[word.name] for word in listed]))
        return [next(chosen) if word.name in among else Reading("", 0.0) for word in words]

    return read if among is None else choose_each if isinstance(among, dict) else choose


def not_expressed(reader: Reader, *, cased: bool, punctuation: bool) -> list[str]:
    """What is compared but not in the model's charset, one clause for each: labels with it are always wrong."""
    characters = reader.charset.characters
    told = []
    if cased and not (any(map(str.isupper, characters)) and any(map(str.islower, characters))):
        told.append("has letters of only one case: with --cased, labels with the other are always wrong")
    if punctuation and not any(c in string.punctuation for c in characters):
        told.append("has no punctuation marks: with --punctuation, labels with one are always wrong")
    return told


def mean_diagnosis(words: Iterable[Word]) -> Diagnosis | None:
    """The mean over the words that were diagnosed; None where there are none."""
    diagnoses = [word.diagnosis for word in words if word.diagnosis is not None]
    return Diagnosis(*np.mean(diagnoses, axis=0).tolist()) if diagnoses else None


def format_head(width: int) -> str:
    """The head of the table whose rows `format_row` makes; the longest name in it has `width` characters."""
    columns = (
        f"{'words':>6}  {'accuracy':>8}  {'1-NED':>6}  {'CER':>6}  {'confidence':>10}  {'ECE':>5}  {'images/s':>8}"
    )
    return f"{'dataset':<{width}}  {columns}"


def format_row(name: str, row: Row, width: int) -> str:
    """A row of the table as text in columns."""
    return (
        f"{name:<{width}}  {row['count']:>6}  {row['word_accuracy']:>8.2f}  {row['one_minus_ned']:>6.2f}"
        f"  {row['character_error_rate']:>6.2f}  {row['confidence']:>10.3f}"
        f"  {row['expected_calibration_error']:>5.2f}  {row['images_per_second']:>8.0f}"
    )


def to_json(table: dict) -> str:
    """Tables of rows as JSON, which has no NaN: a ratio of nothing is null."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        if isinstance(value, list):
            return [plain(part) for part in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return json.dumps(plain(table), indent=2)
