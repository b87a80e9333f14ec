"""How well words were read: word accuracy, 1-NED, CER, confidence, as sums that are divided once, at the end."""

import math
import string
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from crnn_jax.charset import is_spelled, respell


@dataclass(frozen=True)
class Score:
    """Sums over words; without words the ratios are NaN."""

    count: int = 0  # words
    correct: int = 0  # words read without an error
    ned_sum: float = 0.0  # of 1 - distance / longer length of each word
    edits: int = 0  # insertions, deletions and substitutions
    characters: int = 0  # of the true words
    confidence_sum: float = 0.0

    @property
    def word_accuracy(self) -> float:
        """Words read without an error, 0 .. 100."""
        return 100 * _ratio(self.correct, self.count)

    @property
    def one_minus_ned(self) -> float:
        """Mean of 1 - distance / longer length over words, 0 .. 100: the 1-N.E.D. of ICDAR 2019 (ReCTS, LSVT)."""
        return 100 * _ratio(self.ned_sum, self.count)

    @property
    def cer(self) -> float:
        """Character error rate: edits per 100 true characters, 0 and up."""
        return 100 * _ratio(self.edits, self.characters)

    @property
    def confidence(self) -> float:
        """Mean confidence, 0 .. 1."""
        return _ratio(self.confidence_sum, self.count)


def score_compared(predictions: Iterable[str], truths: Iterable[str], confidences: Iterable[float]) -> Score:
    """The score of predictions against the true words, as given. ValueError if the three differ in length."""
    count = correct = edits = characters = 0
    ned_sum = confidence_sum = 0.0
    for prediction, truth, confidence in zip(predictions, truths, confidences, strict=True):
        distance = edit_distance(prediction, truth)
        longer = max(len(prediction), len(truth))
        count += 1
        correct += distance == 0
        ned_sum += 1 - distance / longer if longer else 1.0  # two empty words are equal
        edits += distance
        characters += len(truth)
        confidence_sum += float(confidence)
    return Score(count, correct, ned_sum, edits, characters, confidence_sum)


def normalise(text: str, *, cased: bool = False, punctuation: bool = False, charset: str = "") -> str:
    """`text` as the protocol compares it: lower-case ASCII letters and digits, everything else dropped.

    `cased` keeps the case; `punctuation` keeps the 32 ASCII punctuation marks. Spaces are always dropped. Non-ASCII
    letters and digits of a model's `charset` are also kept, and with `punctuation` its marks. Different Unicode
    spellings of the same text are equal (`charset.respell`).
    """
    kept, text = _kept(punctuation, charset), respell(text, charset)
    return "".join(c for c in (text if cased else text.lower()) if c in kept)


@cache
def _kept(punctuation: bool, charset: str) -> frozenset[str]:
    beyond = "".join(c for c in charset if not c.isascii() and (punctuation or is_spelled(c)))
    marks = string.punctuation if punctuation else ""
    return frozenset(string.ascii_letters + string.digits + marks + beyond + beyond.lower())


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: the least number of insertions, deletions and substitutions that turn `a` into `b`."""
    if a == b:
        return 0
    above = list(range(len(b) + 1))  # distances from the part of a read so far to every prefix of b
    for i, x in enumerate(a, start=1):
        row = [i]
        for y, diagonal, up in zip(b, above, above[1:], strict=False):
            # These comparisons take half the time of min().
            best = diagonal
            if x != y:
                left = row[-1]
                if up < best:
                    best = up
                if left < best:
                    best = left
                best += 1
            row.append(best)
        above = row
    return above[-1]


def _ratio(total: int | float, count: int) -> float:
    return total / count if count else float("nan")


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """The 95 % interval, 0..1, of a share of `correct` in `count`, from the sample size alone; NaN without any.

    Wilson 1927: unlike the usual interval it stays within 0..1, and is not centred on the share.
    """
    if not count:
        return math.nan, math.nan
    z, share = 1.96, correct / count
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low, high = ((middle + sign * spread) / (1 + z * z / count) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)
