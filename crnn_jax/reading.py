"""What was read of one image, and which of several readings of it counts."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple


class Reading(NamedTuple):
    """One word as it was read."""

    text: str
    # 0..1: the product over frames of the likeliest class's probability, or with a lexicon the text's share of the
    # probability of the texts that were looked at, at the Reader's temperatures; of a closed list the word's share of
    # all of them, at temperature 1.
    confidence: float


def agreed(readings: Sequence[Reading]) -> Reading:
    """The reading of most confidence of the text that most confidence in all is for.

    Its mean over all readings would tell right from wrong a little better, but is far too low for a probability.
    """
    total = defaultdict(float)
    for text, confidence in readings:
        total[text] += confidence
    return max(readings, key=lambda reading: (total[reading.text], reading.confidence))


def best_turn(turns: Sequence[Reading]) -> Reading:
    """The reading of most confidence a character, of the image as it is and of those of its turns that make a word.

    In turned views single characters do not count: an upright I would be read as a lying h.
    """
    first, *others = turns
    return max([first, *(reading for reading in others if len(reading.text) > 1)], key=_confidence_a_character)


def _confidence_a_character(reading: Reading) -> float:
    """What compares readings of unequal length: nothing and a single character are read with confidence easily."""
    return reading.confidence ** (1 / len(reading.text)) if reading.text else 0.0
