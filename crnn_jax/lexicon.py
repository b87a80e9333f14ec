"""Words that a reader expects. Others can still be read: what is in the lexicon counts as likelier, no more."""

import math
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crnn_jax.synth.words import english_words

ENGLISH = "english"  # the name of the bundled list, the one that words are rendered from
BONUS = 4.0  # nats; between 3 and 6 all training splits of photographs gain about as much


class LexiconError(ValueError):
    """A lexicon that cannot be used; one line."""


@dataclass(frozen=True)
class Lexicon:
    """A set of words, lower case, and how much likelier they are, in nats: e^4 is 55 times.

    The case of a text does not matter, nor punctuation around it or a possessive ending.
    """

    words: frozenset[str]
    bonus: float = BONUS

    @classmethod
    def of(cls, words: Iterable[str], *, bonus: float = BONUS) -> "Lexicon":
        """The lexicon of these words. Raises LexiconError where there is none among them, or for an endless bonus."""
        if not math.isfinite(bonus):
            raise LexiconError(f"bonus = {bonus}: expected a number of nats")
        core_words = frozenset(core(word) for word in words) - {""}
        if not core_words:
            raise LexiconError("a lexicon needs at least one word")
        return cls(core_words, bonus)

    def __contains__(self, text: str) -> bool:
        return core(text) in self.words

    def choose(self, texts: Sequence[str], log_probs: Sequence[float]) -> tuple[int, float]:
        """The place of the likeliest text, given its log-probability without a lexicon, and its share of all, 0..1."""
        scores = [p + self.bonus * (text in self) for text, p in zip(texts, log_probs, strict=True)]
        best = max(range(len(scores)), key=scores.__getitem__)
        return best, 1 / math.fsum(math.exp(score - scores[best]) for score in scores)


def core(text: str) -> str:
    """What of a text is looked up: lower case, without punctuation around it and without "'s"."""
    return text.lower().strip(string.punctuation).removesuffix("'s")


def load_lexicon(name: str, *, bonus: float = BONUS) -> Lexicon:
    """The lexicon `english`, or a file's: words between blanks or line ends, UTF-8.

    Raises LexiconError, one line, for a file that cannot be read or has no words, and as `Lexicon.of`.
    """
    if name == ENGLISH:
        return Lexicon.of(english_words(), bonus=bonus)
    try:
        return Lexicon.of(Path(name).read_text(encoding="utf-8").split(), bonus=bonus)
    except LexiconError as error:
        raise LexiconError(f"{name}: {error}") from None
    except UnicodeDecodeError:
        raise LexiconError(f"{name}: not a text in UTF-8") from None
    except OSError as error:
        raise LexiconError(f"{name}: {error.strerror}; a lexicon is a file of words, or {ENGLISH!r}") from None
