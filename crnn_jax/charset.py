"""Text to class ids and back. Class 0 is the CTC blank; the character at position i of a charset is class i + 1."""

import functools
import string
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from crnn_jax.direction import reorder, split_clusters

BLANK = 0

PRESETS = {
    "36": string.digits + string.ascii_lowercase,
    "62": string.digits + string.ascii_lowercase + string.ascii_uppercase,
    "94": string.digits + string.ascii_lowercase + string.ascii_uppercase + string.punctuation,
}

# Typographic marks and their ASCII equivalents.
PLAIN = dict.fromkeys("‘’‚", "'") | dict.fromkeys("“”„", '"') | dict.fromkeys("‐‑–—", "-")


@dataclass(frozen=True)
class Charset:
    """The characters that a model can read, in the order of its classes.

    Raises ValueError if a character occurs twice or there is none.
    """

    characters: str

    def __post_init__(self):
        if not self.characters:
            raise ValueError("a charset needs at least one character")
        repeated = sorted({c for c in self.characters if self.characters.count(c) > 1})
        if repeated:
            raise ValueError(f"a charset's characters must be distinct, but these are repeated: {_quoted(repeated)}")

    @classmethod
    def of(cls, spec: str) -> "Charset":
        """The charset that `spec` names (`36`, `62`, `94`), or else the one made of the characters of `spec`."""
        return cls(PRESETS.get(spec, spec))

    @property
    def num_classes(self) -> int:
        """The size K of the logits: the characters and the blank."""
        return len(self.characters) + 1

    @functools.cached_property
    def _class_of(self) -> dict[str, int]:
        return {character: i for i, character in enumerate(self.characters, start=1)}

    def encode(self, text: str) -> list[int]:
        """Class ids of `text`, 1 .. num_classes - 1, in the order of the image, from left to right.

        Raises ValueError, which names the characters outside the charset.
        """
        visual = reorder(text)
        unknown = sorted(set(visual) - self._class_of.keys())
        if unknown:
            raise ValueError(f"label {text!r} has characters outside the charset: {_quoted(unknown)}")
        return [self._class_of[character] for character in visual]

    def decode(self, ids: Iterable) -> str:
        """The text of class ids (a list or 1-D array) as it is typed: in Hebrew or Arabic the rightmost comes first.

        Blanks, which also fill up label arrays, are left out.
        Repeats are kept: merging the repeats of a CTC path is the decoder's job. ValueError for an id without a class.
        """
        ids = np.asarray(ids, dtype=np.int64).tolist()
        if any(not 0 <= i < self.num_classes for i in ids):
            found = f"{min(ids)} to {max(ids)}"
            raise ValueError(f"class ids run from 0 to {self.num_classes - 1}, but these run from {found}")
        return reorder("".join(self.characters[i - 1] for i in ids if i != BLANK))

    def keep(self, text: str) -> str:
        """`text` without the characters that the charset lacks, as drawn in the image: brackets may be mirrored."""
        return reorder("".join(c for c in reorder(text) if c in self._class_of))

    def fold(self, text: str) -> str:
        """`text` with each letter that the charset has only in the other case converted to that case."""
        if "Σ" in text and len(text.lower()) == len(text):  # its lower case is another letter at a word's end
            lower = text.lower()
            text = "".join(b if a == "Σ" and b in self._class_of else a for a, b in zip(text, lower, strict=True))
        return text.translate(self._folding)

    @functools.cached_property
    def _folding(self) -> dict[int, str]:
        return _Folding(self.characters)


class _Folding(dict):
    """For `str.translate`: what `Charset.fold` makes of a character, computed when it is first met."""

    def __init__(self, characters: str):
        super().__init__({ord(c): c for c in characters})
        self._characters = frozenset(characters)

    def __missing__(self, code: int) -> str:
        c = chr(code)
        cases = c.lower()[0], c.upper()  # İ in lower case is two characters: an i and its dot
        self[code] = next((case for case in cases if case in self._characters), c)
        return self[code]


def respell(text: str, characters: str) -> str:
    """`text`, a typed label, in plain Unicode spelling, except for what `characters` contains.

    A letter and the accents behind it become one character (NFC), typographic quotation marks and dashes ASCII ones.
    What `characters` contains, in either case, stays as it is.
    """
    if text.isascii():
        return text
    known = in_both_cases(characters)
    return "".join(_respelled(cluster, known) for cluster in split_clusters(text))


def _respelled(cluster: str, known: frozenset[str]) -> str:
    if known.issuperset(cluster):
        return cluster
    return "".join(c if c in known else PLAIN.get(c, c) for c in unicodedata.normalize("NFC", cluster))


@functools.cache
def in_both_cases(characters: str) -> frozenset[str]:
    """The characters in both cases."""
    return frozenset(characters + characters.lower() + characters.upper())


def is_spelled(character: str) -> bool:
    """Whether a character is a letter, a digit or a mark on one, so that a word without it is another word."""
    return unicodedata.category(character)[0] in "LMN"


def _quoted(characters: list[str]) -> str:
    return " ".join(repr(character) for character in characters)
