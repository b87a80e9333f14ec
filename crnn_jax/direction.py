"""Words of scripts that run from right to left: the order in which their characters stand in the image.

Labels and readings are in logical order, as they are typed and spoken; the frames of CTC run from left to right.
"""

import re
import unicodedata
from itertools import groupby

MIRRORED = str.maketrans("()[]{}<>«»‹›", ")(][}{><»«›‹")  # signs that are drawn the other way round

FIRST = "\u0590"  # no character before this one runs to the left

# A letter for each bidirectional class (UAX #9, table 4); N of all others.
KINDS = {"L": "L", "R": "R", "AL": "R", "EN": "E", "AN": "A", "ES": "S", "ET": "T", "CS": "C"}

# What becomes part of the word from left to right that it stands beside (rules W7, N1), then of a number (W4, W5).
TO_WORDS = [
    (re.compile("[EA]+(?=L)|(?<=L)[EA]+"), "L"),
    (re.compile("(?<=L)[NSCT]+(?=[LEA])|(?<=[LEA])[NSCT]+(?=L)"), "L"),
]
TO_NUMBERS = [
    (re.compile("(?<=E)[SC](?=E)"), "E"),
    (re.compile("(?<=A)C(?=A)"), "A"),
    (re.compile("T+(?=E)|(?<=E)T+"), "E"),
]


def reorder(text: str) -> str:
    """A word in visual order, from left to right, given it in logical order, or the reverse: it is its own inverse, of
    words that do not begin with a combining mark.

    A word without a letter of Hebrew, Arabic or their like stays as it is. With one it is read from right to left as a
    whole, but for numbers and words of other scripts in it, which keep their order: the Unicode bidirectional algorithm
    (UAX #9) for a word in a paragraph that runs to the left. It is simpler where that could not be inverted: signs
    beside other scripts do not depend on what comes first, and beside Arabic letters all numbers are Arabic ones.

    Combining marks stay behind their letter, and brackets become those that are drawn.
    """
    if text.isascii() or not any(c >= FIRST and unicodedata.bidirectional(c) in ("R", "AL") for c in text):
        return text
    clusters = split_clusters(text)
    kinds = _kinds(clusters)
    ordered = []
    for is_kept, run in groupby(zip(clusters, kinds, strict=True), key=lambda pair: pair[1] in "LEA"):
        characters = [cluster if is_kept else cluster.translate(MIRRORED) for cluster, _ in run]
        ordered += characters[::-1] if is_kept else characters
    return "".join(reversed(ordered))


def split_clusters(text: str) -> list[str]:
    """Each character with the combining marks behind it."""
    clusters = []
    for c in text:
        if clusters and unicodedata.category(c)[0] == "M":
            clusters[-1] += c
        else:
            clusters.append(c)
    return clusters


def _kinds(clusters: list[str]) -> str:
    """A letter of KINDS for each, after all joins."""
    classes = [unicodedata.bidirectional(cluster[0]) for cluster in clusters]
    kinds = "".join(KINDS.get(name, "N") for name in classes)
    if {"AL", "AN"} & set(classes):
        kinds = kinds.replace("E", "A")
    return _joined(_joined(kinds, TO_WORDS), TO_NUMBERS)


def _joined(kinds: str, joins: list[tuple[re.Pattern, str]]) -> str:
    before = None
    while before != kinds:
        before = kinds
        for pattern, kind in joins:
            kinds = pattern.sub(lambda found, kind=kind: kind * len(found[0]), kinds)
    return kinds
