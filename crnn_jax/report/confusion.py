"""Which characters are mistaken for which, from alignments of the readings with the true words."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Confusions:
    """Counts over words, from alignments with the fewest edits (Levenshtein 1966)."""

    occurrences: Counter[str] = field(default_factory=Counter)  # of each character in the true words
    substitutions: Counter[tuple[str, str]] = field(default_factory=Counter)  # (true, read)
    deletions: Counter[str] = field(default_factory=Counter)  # true but not read
    insertions: Counter[str] = field(default_factory=Counter)  # read but not there


def count_confusions(pairs: Iterable[tuple[str, str]]) -> Confusions:
    """The confusions in pairs of a true word and its reading, both in the form that the protocol compares."""
    confusions = Confusions()
    for truth, prediction in pairs:
        confusions.occurrences.update(truth)
        if truth == prediction:
            continue
        for true, read in align(truth, prediction):
            if not read:
                confusions.deletions[true] += 1
            elif not true:
                confusions.insertions[read] += 1
            elif true != read:
                confusions.substitutions[true, read] += 1
    return confusions


def align(truth: str, prediction: str) -> list[tuple[str, str]]:
    """Pairs of a true and a read character; one of them is empty where a character is missing or extra.

    An alignment with the fewest edits; among several, the one that prefers substitutions, starting from the end.
    """
    rows = [list(range(len(prediction) + 1))]  # distances of every prefix of the truth to every prefix read
    for i, true in enumerate(truth, start=1):
        above, row = rows[-1], [i]
        for j, read in enumerate(prediction, start=1):
            row.append(min(above[j - 1] + (true != read), above[j] + 1, row[j - 1] + 1))
        rows.append(row)
    pairs, i, j = [], len(truth), len(prediction)
    while i or j:
        if i and j and rows[i][j] == rows[i - 1][j - 1] + (truth[i - 1] != prediction[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((truth[i], prediction[j]))
        elif i and rows[i][j] == rows[i - 1][j] + 1:
            i -= 1
            pairs.append((truth[i], ""))
        else:
            j -= 1
            pairs.append(("", prediction[j]))
    return pairs[::-1]
