"""A reading of one image, and the choice among several readings of it."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple


class Reading(NamedTuple):
    """One word as it was read."""

    text: str
    # 0..1: the product over frames of the likeliest class's probability or, with a lexicon, the text's share of the
    # probability of the texts considered, at the Reader's temperatures; with a closed list the word's share of the
    # whole list, at temperature 1.
    confidence: float


def agreed(readings: Sequence[Reading]) -> Reading:
    """The most confident reading of the text with the highest total confidence.

    That text's mean confidence over all readings would separate right from wrong a little better, but is far too low
    for a probability.
    """
    total = defaultdict(float)
    for text, confidence in readings:
        total[text] += confidence
    return max(readings, key=lambda reading: (total[reading.text], reading.confidence))


def best_turn(turns: Sequence[Reading]) -> Reading:
    """The reading with the most confidence per character, of the image as it is and of its turned views.

    In turned views single characters do not count: a tall image of a single one, such as an I, is upright.
    """
    first, *others = turns
    return max([first, *(reading for reading in others if len(reading.text) > 1)], key=_confidence_a_character)


def _confidence_a_character(reading: Reading) -> float:
    """Makes readings of unequal length comparable: those of one character easily get a high confidence."""
    return reading.confidence ** (1 / len(reading.text)) if reading.text else 0.0
