"""A closed list of words, of which an image shows one: what CTC has to know of it to tell which (`Reader.choose`)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from crnn_jax.charset import Charset, is_spelled
from crnn_jax.lexicon import LexiconError
from crnn_jax.reading import Reading

FILLED = 16  # spellings and labels are filled up to twice that, four times, ...: lists of like sizes share a program


@dataclass(frozen=True)
class WordList:
    """Words that can be read, and the ways in which a model can spell each.

    A word is spelled as it stands, and all in lower case, all in upper case and with a capital in front: a model whose
    charset has both cases reads `exit` in EXIT, too. What its charset lacks of punctuation marks and blanks is left
    out. Words that differ in their case alone, or in what is left out, are one: the first.
    """

    words: tuple[str, ...]  # as they were given, W of them
    left_out: tuple[str, ...]  # those with a letter or digit that the charset lacks, and those without any character
    labels: Int[np.ndarray, "S N"]  # class ids of all spellings, those of a word one behind the other; zeros behind
    lengths: Int[np.ndarray, " S"]  # 0 of those that fill up
    starts: Int[np.ndarray, " W"]  # where the spellings of each word begin

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def of(cls, words: Iterable[str], charset: Charset) -> "WordList":
        """The list of these words. Raises LexiconError where the charset can spell none."""
        if isinstance(words, str):
            raise LexiconError("expected a list of words, also of one: [word]")
        ways, left_out = {}, []
        for word in dict.fromkeys(words):
            spellings = _spellings(word, charset)
            if spellings:
                ways.setdefault(spellings[0].lower(), (word, spellings))
            else:
                left_out.append(word)
        if not ways:
            told = f" that the model can spell, as {_shown(left_out)}" if left_out else ""
            raise LexiconError(f"there is no word{told}")
        known, spelled = zip(*ways.values(), strict=True)
        ids = [charset.encode(spelling) for spellings in spelled for spelling in spellings]
        labels = np.zeros((_filled(len(ids)), _filled(max(map(len, ids)))), np.int32)
        for row, of_row in zip(labels, ids, strict=False):
            row[: len(of_row)] = of_row
        lengths = np.zeros(len(labels), np.int32)
        lengths[: len(ids)] = [len(row) for row in ids]
        starts = np.cumsum([0, *map(len, spelled)])[:-1]
        return cls(known, tuple(left_out), labels, lengths, starts)

    @property
    def warning(self) -> str:
        """What is never read, one line; empty where there is nothing of that."""
        share = f"{len(self.left_out)} of {len(self.left_out) + len(self)} words"
        told = f"the model lacks characters of {share}, which it will never read: {_shown(self.left_out)}"
        return told if self.left_out else ""

    def choose(self, log_probs: Sequence[Float[np.ndarray, "_ S"]], *, temperature: float = 1.0) -> Reading:
        """The word that an image shows, by the log-probabilities of the spellings, a row a look at it.

        There is an array for the image as it is and one for each of its turns, in which a single character does not
        count (see `best_turn`). A word has one spelling in one look: probabilities are added. The confidence is the
        word's share of them, divided by the temperature as in a softmax. It reads nothing where no word is possible.
        """
        there = np.count_nonzero(self.lengths)
        of_turns = [np.logaddexp.reduceat(looks[:, :there], self.starts, axis=1) for looks in log_probs]
        for turned in of_turns[1:]:
            turned[:, self.lengths[self.starts] < 2] = -np.inf
        of_words = np.logaddexp.reduce(np.concatenate(of_turns))
        best = of_words.argmax()
        if of_words[best] == -np.inf:
            return Reading("", 0.0)
        shares = np.exp((of_words - of_words[best]) / temperature)
        return Reading(self.words[best], float(1 / shares.sum()))


def load_word_list(path: str | PathLike, charset: Charset) -> WordList:
    """The list of the words of a file, one a line, in UTF-8; a word may have blanks inside.

    Raises LexiconError, one line, for a file that cannot be read, and as `WordList.of`.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
        return WordList.of(filter(None, map(str.strip, lines)), charset)
    except LexiconError as error:
        raise LexiconError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise LexiconError(f"{path}: not a text in UTF-8") from None
    except OSError as error:
        raise LexiconError(f"{path}: {error.strerror}; expected a file with a word a line") from None


def _spellings(word: str, charset: Charset) -> tuple[str, ...]:
    """The ways in which the charset spells a word, all of them different; none where it lacks one of its letters."""
    known = set(charset.characters)
    ways = {charset.fold(way): None for way in (word, word.lower(), word.upper(), word.capitalize())}
    kept = {"".join(c for c in way if c in known or is_spelled(c)): None for way in ways}
    return tuple(way for way in kept if way and known.issuperset(way))


def _shown(words: Sequence[str]) -> str:
    return ", ".join(map(repr, words[:3])) + (", ..." if len(words) > 3 else "")


def _filled(count: int) -> int:
    """The next of FILLED, twice that, four times, ..."""
    return FILLED * 2 ** max(0, (-(-count // FILLED) - 1).bit_length())
