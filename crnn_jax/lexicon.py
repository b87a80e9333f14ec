"""Words that a reader expects. Words in the lexicon only count as likelier: others can still be read."""

import math
import os
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crnn_jax.charset import is_spelled, respell
from crnn_jax.synth.words import english_words

ENGLISH = "english"  # the name of the bundled list, the one that words are rendered from
BONUS = 0.8  # nats per character; anywhere from 0.7 to 1 all training splits of photographs gain about as much


class LexiconError(ValueError):
    """A lexicon that cannot be used; the message is one line."""


@dataclass(frozen=True)
class Lexicon:
    """A set of lower-case words, and how much likelier they are, in nats per character.

    The longer a text, the less likely it is a word by chance, so the bonus is per character: with 0.8 nats a word of
    three letters counts as 11 times as likely, one of ten as 3,000 times. The case of a text does not matter, nor does
    punctuation around it or a possessive ending. A word with marks or spaces inside also stands for the word without
    them, as read by a model whose charset lacks them.
    """

    words: frozenset[str]
    bonus: float = BONUS

    @classmethod
    def of(cls, words: Iterable[str], *, bonus: float = BONUS) -> "Lexicon":
        """The lexicon of these words.

        Raises LexiconError if there are none or the bonus is not finite; TypeError for anything but a list of strings.
        """
        words = None if isinstance(words, str) else list(words)
        if words is None or not all(isinstance(word, str) for word in words):
            raise TypeError("a lexicon takes a list of words, even for one: [word]")
        if not isinstance(bonus, int | float | np.number) or not math.isfinite(bonus):
            raise LexiconError(f"bonus = {bonus!r}: expected a number of nats")
        core_words = {core(word) for word in words}
        spelled = {word if word.isalnum() else "".join(filter(is_spelled, word)) for word in core_words}
        core_words = frozenset(core_words | spelled) - {""}
        if not core_words:
            raise LexiconError("a lexicon needs at least one word")
        return cls(core_words, bonus)

    def __contains__(self, text: str) -> bool:
        return core(text) in self.words

    def scores(self, texts: Sequence[str], log_probs: Sequence[float]) -> list[float]:
        """The log-probabilities of texts with the lexicon, up to a constant, given those without it."""
        words = map(core, texts)
        return [p + self.bonus * len(word) * (word in self.words) for word, p in zip(words, log_probs, strict=True)]

    def choose(
        self, texts: Sequence[str], log_probs: Sequence[float], *, temperature: float = 1.0
    ) -> tuple[int, float]:
        """The index of the likeliest text, and its share of all, 0..1, in softmax(scores / temperature)."""
        scores = self.scores(texts, log_probs)
        best = max(range(len(scores)), key=scores.__getitem__)
        return best, 1 / math.fsum(math.exp((score - scores[best]) / temperature) for score in scores)


def core(text: str) -> str:
    """The part of a text that is looked up: lower case, without punctuation around it and without "'s"."""
    return respell(text, "").lower().strip(string.punctuation).removesuffix("'s")


def load_lexicon(name: str | os.PathLike, *, bonus: float = BONUS) -> Lexicon:
    """The lexicon `english`, or that of a UTF-8 file of words separated by white space.

    Raises LexiconError, one line, for a file that cannot be read or has no words, and as `Lexicon.of` does.
    """
    if name == ENGLISH:
        return Lexicon.of(english_words(), bonus=bonus)
    try:
        return Lexicon.of(Path(os.path.expanduser(name)).read_text(encoding="utf-8-sig").split(), bonus=bonus)
    except LexiconError as error:
        raise LexiconError(f"{name}: {error}") from None
    except UnicodeDecodeError:
        raise LexiconError(f"{name}: not UTF-8 text") from None
    except OSError as error:
        raise LexiconError(f"{name}: {error.strerror}; a lexicon is a file of words, or {ENGLISH!r}") from None
