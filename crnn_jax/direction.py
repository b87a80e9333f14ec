"""Words of scripts that run from right to left: the order in which their characters stand in the image.

Labels and readings are in logical order, as they are typed and spoken; the frames of CTC run from left to right.
"""

import re
import unicodedata
from itertools import groupby

MIRRORED = str.maketrans("()[]{}<>«»‹›", ")(][}{><»«›‹")  # signs that are mirrored in right-to-left text

FIRST = "\u0590"  # no character before this one runs from right to left

# A letter for each bidirectional class (UAX #9, table 4); N for all others.
KINDS = {"L": "L", "R": "R", "AL": "R", "EN": "E", "AN": "A", "ES": "S", "ET": "T", "CS": "C"}

# What joins the left-to-right word beside it (rules W7, N1), then what joins the number beside it (W4, W5).
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
    """Turns a word from logical into visual order, from left to right, or back.

    It is its own inverse for words that do not begin with a combining mark. A word without Hebrew, Arabic or similar
    letters stays as it is. Any other is reversed, except that numbers and words of other scripts in it keep their
    order: the Unicode bidirectional algorithm (UAX #9) for a word in a right-to-left paragraph. It is simplified where
    that could not be inverted: signs beside other scripts do not depend on what comes first, and beside Arabic letters
    all numbers are Arabic ones.

    Combining marks stay behind their letter, and brackets are mirrored as they are drawn.
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
    """Each character with the combining marks that follow it."""
    clusters = []
    for c in text:
        if clusters and unicodedata.category(c)[0] == "M":
            clusters[-1] += c
        else:
            clusters.append(c)
    return clusters


def _kinds(clusters: list[str]) -> str:
    """The letter of KINDS for each cluster, after all joins."""
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
