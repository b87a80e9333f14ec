"""Closed lists of words, one of which an image shows, as CTC needs them to decide which (`Reader.choose`)."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from string import capwords

import numpy as np
from jaxtyping import Float, Int

from crnn_jax.charset import Charset, is_spelled, respell
from crnn_jax.ctc import needed_frames
from crnn_jax.lexicon import LexiconError
from crnn_jax.reading import Reading

LENGTHS = 8, 16  # characters: spellings up to these are scored apart from longer ones, which saves time


@dataclass(frozen=True, eq=False)
class WordList:
    """Words that can be read, and the ways in which a model can spell each.

    A word is spelled as it stands, in lower case, in upper case and with capital initials, so that a model whose
    charset has both cases reads `exit` in EXIT too. Punctuation marks and spaces that the charset lacks are left out.
    Of words that are then spelled alike, such as C, C++ and C#, or Open and OPEN, only one is read: the first of which
    nothing is left out, or else the first.
    """

    charset: Charset  # of the model
    words: tuple[str, ...]  # as they were given, W of them
    unread: tuple[str, ...]  # those that the charset or the frames cannot spell
    taken_for: tuple[tuple[str, str], ...]  # words spelled as another one that differs by more than case, and that one
    labels: Int[np.ndarray, "S N"]  # class ids of all spellings, word by word; padded with zeros
    lengths: Int[np.ndarray, " S"]
    starts: Int[np.ndarray, " W"]  # where the spellings of each word begin

    @classmethod
    def of(cls, words: Iterable[str], charset: Charset, *, frames: int | None = None) -> "WordList":
        """The list of these words, for a model with at most `frames` frames.

        Raises LexiconError if it can spell none of them, TypeError for anything but a list of strings.
        """
        words = None if isinstance(words, str) else list(dict.fromkeys(words))
        if words is None or not all(isinstance(word, str) for word in words):
            raise TypeError("expected a list of words, even for one: [word]")
        words = list(map(str, words))  # NumPy has its own strings
        alike, unread = {}, []
        for word in words:
            ways = _spellings(word, charset)
            if ways and (frames is None or needed_frames(ways[0]) <= frames):
                alike.setdefault(ways[0].lower(), []).append((word, ways))
            else:
                unread.append(word)
        if not alike:
            told = f"the model can spell none of the words: {_shown(map(repr, unread))}"
            raise LexiconError(told if unread else "the list has no words")
        chosen, taken_for = [], []
        for group in alike.values():
            word, ways = next((pair for pair in group if charset.fold(pair[0]) in pair[1]), group[0])
            chosen.append((word, ways))
            taken_for += [(other, word) for other, _ in group if other.lower() != word.lower()]
        ids = [charset.encode(way) for _, ways in chosen for way in ways]
        lengths = np.array([len(row) for row in ids], np.int32)
        # The smallest dtype for the ids: evaluate.py keeps a list of 1,000 words for each of thousands of images.
        labels = np.zeros((len(ids), _up_to(max(map(len, ids)), 4)), np.min_scalar_type(-charset.num_classes))
        for row, of_row in zip(labels, ids, strict=True):
            row[: len(of_row)] = of_row
        starts = np.cumsum([0, *(len(ways) for _, ways in chosen)])[:-1]
        return cls(charset, tuple(word for word, _ in chosen), tuple(unread), tuple(taken_for), labels, lengths, starts)

    @cached_property
    def groups(self) -> list[tuple[Int[np.ndarray, "_ _"], Int[np.ndarray, " _"]]]:
        """Labels and lengths of the spellings, short ones first, in groups padded so that similar lists share programs.

        Padding adds at most a quarter to a large group.
        """
        groups = []
        for rows, limit in self._parts:
            size = _up_to(len(rows), max(16, 2 ** (len(rows).bit_length() - 3)))
            labels, lengths = np.zeros((size, limit), self.labels.dtype), np.zeros(size, np.int32)
            labels[: len(rows)], lengths[: len(rows)] = self.labels[rows, :limit], self.lengths[rows]
            groups.append((labels, lengths))
        return groups

    @cached_property
    def places(self) -> Int[np.ndarray, " S"]:
        """The place of each spelling in all groups concatenated."""
        places, first = np.zeros(len(self.lengths), int), 0
        for (rows, _), (labels, _) in zip(self._parts, self.groups, strict=True):
            places[rows] = first + np.arange(len(rows))
            first += len(labels)
        return places

    @cached_property
    def _parts(self) -> list[tuple[np.ndarray, int]]:
        """The spellings of each group, and its number of label slots."""
        longest = self.labels.shape[1]
        limits = [*(limit for limit in LENGTHS if limit < longest), longest]
        group = np.searchsorted(limits, self.lengths)
        parts = [(np.flatnonzero(group == i), limit) for i, limit in enumerate(limits)]
        return [(rows, limit) for rows, limit in parts if rows.size]

    def warnings(self) -> Iterator[str]:
        """Which words of the list are never read, one line per reason."""
        unread, alike = len(self.unread), len(self.taken_for)
        total = len(self.words) + unread + alike
        if unread:
            yield f"{unread} of {total} words cannot be spelled by the model: {_shown(map(repr, self.unread))}"
        if alike:
            shown = _shown(f"{word!r} as {other!r}" for word, other in self.taken_for)
            yield f"{alike} of {total} words are spelled like others, since the charset lacks some marks: {shown}"

    def choose(self, log_probs: Sequence[Float[np.ndarray, "_ S"]]) -> Reading:
        """The word that an image shows, from the log-probabilities of the spellings, one row per view of it.

        There is an array for the image as it is and one for each of its turns, in which single characters do not count
        (see `best_turn`). Spellings and views exclude one another, so a word's probabilities are added. The confidence
        is the word's share of the total. The reading is empty if no word is possible.
        """
        of_turns = [np.logaddexp.reduceat(looks, self.starts, axis=1) for looks in log_probs]
        for turned in of_turns[1:]:
            turned[:, self.lengths[self.starts] < 2] = -np.inf
        of_words = np.logaddexp.reduce(np.concatenate(of_turns))
        best = of_words.argmax()
        if of_words[best] == -np.inf:
            return Reading("", 0.0)
        return Reading(self.words[best], float(1 / np.exp(of_words - of_words[best]).sum()))


def load_words(path: str | os.PathLike) -> list[str]:
    """The words of a UTF-8 file, one per line; a word may contain spaces. Raises LexiconError, one line."""
    words = load_words_or_lists(path)
    if isinstance(words, dict):
        first = "\t".join([next(iter(words)), *next(iter(words.values()))])
        raise LexiconError(f"{path}: expected one word per line and nothing else, got {first[:80]!r}")
    return words


def load_words_or_lists(path: str | os.PathLike) -> list[str] | dict[str, list[str]]:
    """The words of a file, one per line, or by image, from lines `image<TAB>word<TAB>word ...`.

    Raises LexiconError, one line, if there are none, or if each image has only one word: its label.
    """
    lines = _lines(path)
    if not lines:
        raise LexiconError(f"{path}: the file has no words")
    if not any("\t" in line for line in lines):
        return lines
    lists = {}
    for line in lines:
        name, *words = (cell.strip() for cell in line.split("\t"))
        if not any(words):
            raise LexiconError(f"{path}: an image without words: {line[:80]!r}")
        if name in lists:
            raise LexiconError(f"{path}: {name} is listed twice")
        lists[name] = list(filter(None, words))
    if all(len(words) == 1 for words in lists.values()):
        first = next(line for line in lines if "\t" in line)
        raise LexiconError(f"{path}: expected one word per line, or several per image, not its label: {first[:80]!r}")
    return lists


def _lines(path: str | os.PathLike) -> list[str]:
    """The lines of a file that are not empty."""
    try:
        lines = [line.strip() for line in Path(os.path.expanduser(path)).read_text(encoding="utf-8-sig").split("\n")]
    except UnicodeDecodeError:
        raise LexiconError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise LexiconError(f"{path}: {error.strerror}; expected a file with one word per line") from None
    return list(filter(None, lines))


@lru_cache(maxsize=200_000)  # the lists of many images have many words in common
def _spellings(word: str, charset: Charset) -> tuple[str, ...]:
    """The different ways in which the charset spells a word; none if it lacks one of the word's letters."""
    known = set(charset.characters)
    word = respell(word, charset.characters)
    cases = word, word.lower(), word.upper(), capwords(word, " ")
    # A case with more letters (STRASSE for straße) would also spell another word.
    ways = (charset.fold(way) for way in cases if len(way) == len(word))
    spelled = (way for way in ways if known.issuperset(filter(is_spelled, way)))
    return tuple(filter(None, dict.fromkeys(map(charset.keep, spelled))))


def _shown(told: Iterable[str]) -> str:
    told = list(told)
    return ", ".join(told[:3]) + (", ..." if len(told) > 3 else "")


def _up_to(count: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-count // step) * step
