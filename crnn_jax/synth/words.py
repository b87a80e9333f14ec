"""Which words are rendered: English words in several cases, numbers and prices, random strings and codes.

Ten per cent of the English words are held out: training renders neither them, in any case, nor random strings that
spell one. A string that spells one only once its marks are dropped (p&l, for a charset without &) is not caught: one
training string in 4,000. The split is by a checksum of the word, so it is the same everywhere and for every list.
"""

import lzma
import string
import zlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt8, UInt32

from crnn_jax.synth.bank import FIRST_GLYPH, NUM_GLYPHS
from crnn_jax.synth.draws import Draws

GLYPHS = "".join(chr(FIRST_GLYPH + glyph) for glyph in range(NUM_GLYPHS))  # a glyph's id is its place here
PAD = 255
HELD_OUT_ONE_IN = 10
CASES = (0.32, 0.64, 0.96)  # lower up to the first, UPPER up to the second, Title up to the third, miXeD beyond
MARKS = ".,!?:;'\"-&*)]"  # after a word or inside it
OPENING_MARKS = "\"'([#@$-*&"  # in front of a word

# d: a digit, a: a letter, x: a letter or a digit, in the case drawn for the whole string; all else stands for itself.
NUMBER_FORMS = (
    "d dd dd dd ddd ddd ddd dddd dddd dddd ddddd dddddd ddddddd dddddddd dddddddddd "
    "$d $dd $ddd $d.dd $dd.dd $ddd.dd $d,ddd d.d d.dd dd.d dd.dd ddd.d d,ddd dd,ddd ddd,ddd d% dd% dd.d% "
    "d:dd dd:dd dd/dd d/dd dd/dd/dd dd.dd.dd dd-dd ddd-dddd (ddd) #d #dd +dd d+d dd-dd-dd dda ddaa daa ddaaa"
).split()
CODE_FORMS = (
    "a aa aaa aaaa aaaaa aaaaaa aaaaaaa aaaaaaaa x xx xxx xxxx xxxxx xxxxxx xxxxxxx xxxxxxxx xxxxxxxxxx xxxxxxxxxxxx "
    "ad add addd adddd aad aadd aaddd aadddd aaad aaadd aaaddd da dda ddda dad adad a-d a-dd aa-dd aa-ddd a.a. a&a"
).split()
DRAWN = {"d": string.digits, "a": string.ascii_lowercase, "x": string.digits + string.ascii_lowercase}


class WordTable(NamedTuple):
    """Strings as rows of glyph ids, padded with 255; English words from the shortest to the longest."""

    train: UInt8[Array, "n L"]
    held_out: UInt8[Array, "m L"]
    held_out_hashes: UInt32[Array, " m"]  # sorted
    numbers: UInt8[Array, "i L"]  # forms
    codes: UInt8[Array, "j L"]  # forms


def _rows(strings, max_length: int) -> np.ndarray:
    """Strings as rows of glyph ids."""
    joined = "".join(s.ljust(max_length) for s in strings).encode("ascii")
    codes = np.frombuffer(joined, np.uint8).reshape(-1, max_length)
    return np.where(codes == 32, PAD, codes - FIRST_GLYPH).astype(np.uint8)


def is_held_out(word: str) -> bool:
    """Whether training never renders this word; the case does not matter."""
    return zlib.crc32(word.lower().encode()) % HELD_OUT_ONE_IN == 0


@cache
def english_words() -> tuple[str, ...]:
    """The bundled word list, lower case (`assets/LICENSES.md` names its source)."""
    packed = (files("crnn_jax.synth") / "assets" / "words.txt.xz").read_bytes()
    return tuple(lzma.decompress(packed).decode().split())


@cache
def _split_words() -> tuple[list[str], list[str]]:
    """The words of training and the held-out ones, from the shortest to the longest."""
    split = [], []
    for word in sorted(english_words(), key=len):
        split[is_held_out(word)].append(word)
    return split


class Strings(NamedTuple):
    """The strings of a table; words from the shortest to the longest."""

    train: list[str]
    held_out: list[str]
    numbers: list[str]
    codes: list[str]


def spellable(max_length: int, *, lacking: str = "") -> Strings:
    """The words and forms of at most `max_length` characters without those in `lacking`, letters and digits."""
    missing = frozenset(lacking)

    def fits(text: str) -> bool:
        return len(text) <= max_length and missing.isdisjoint(text)

    def can_be_filled(form: str) -> bool:
        return len(form) <= max_length and all(missing.isdisjoint(DRAWN.get(c, c)) for c in form)

    words = (list(filter(fits, group)) for group in _split_words())
    return Strings(*words, *(list(filter(can_be_filled, forms)) for forms in (NUMBER_FORMS, CODE_FORMS)))


def load_words(max_length: int = 24, *, lacking: str = "") -> WordTable:
    """The table of the `spellable` strings, on the default device; a kind without any keeps all of its strings."""
    strings = spellable(max_length)
    if lacking:
        strings = [few or every for few, every in zip(spellable(max_length, lacking=lacking), strings, strict=True)]
    train, held_out, numbers, codes = (jnp.asarray(_rows(rows, max_length)) for rows in strings)
    return WordTable(train, held_out, jnp.sort(jax.jit(jax.vmap(spelling_hash))(held_out)), numbers, codes)


def _is_lower(glyphs):
    return (glyphs >= GLYPHS.index("a")) & (glyphs <= GLYPHS.index("z"))


def _is_upper(glyphs):
    return (glyphs >= GLYPHS.index("A")) & (glyphs <= GLYPHS.index("Z"))


def spelling_hash(glyphs: Int[Array, " L"] | UInt8[Array, " L"]) -> UInt32[Array, ""]:
    """A case-insensitive hash of a padded row of glyphs."""
    glyphs = glyphs.astype(jnp.uint32)
    lower = jnp.where(_is_upper(glyphs), glyphs + 32, glyphs)
    powers = jnp.cumprod(jnp.full(glyphs.shape, 0x01000193, jnp.uint32))  # FNV's prime
    return jnp.sum(jnp.where(glyphs == PAD, 0, (lower + 1) * powers), dtype=jnp.uint32)


def _set_case(draws: Draws, glyphs: Int[Array, " L"]) -> Int[Array, " L"]:
    """Lower, upper, title or mixed case for a row that is lower case."""
    which, coin = draws.uniform(), draws.uniform(size=glyphs.shape[0]) < 0.5
    first = jnp.arange(glyphs.shape[0]) == jnp.argmax(_is_lower(glyphs))  # may follow an opening mark
    raised = jnp.where(
        which < CASES[0], False, jnp.where(which < CASES[1], True, jnp.where(which < CASES[2], first, coin))
    )
    return jnp.where(raised & _is_lower(glyphs), glyphs - 32, glyphs)


def _fill_form(draws: Draws, form: Int[Array, " L"]) -> Int[Array, " L"]:
    """A form's letters and digits drawn at random."""
    digit = GLYPHS.index("0") + jnp.floor(draws.uniform(0.0, 10.0, size=form.shape[0])).astype(jnp.int32)
    letter = GLYPHS.index("a") + jnp.floor(draws.uniform(0.0, 26.0, size=form.shape[0])).astype(jnp.int32)
    either = jnp.where(draws.uniform(size=form.shape[0]) < 10 / 36, digit, letter)
    filled = jnp.where(form == GLYPHS.index("d"), digit, form)
    filled = jnp.where(form == GLYPHS.index("a"), letter, filled)
    return jnp.where(form == GLYPHS.index("x"), either, filled)


def _ids(characters: str) -> Int[Array, " n"]:
    return jnp.array([GLYPHS.index(c) for c in characters])


def _punctuate(draws: Draws, glyphs: Int[Array, " L"]) -> Int[Array, " L"]:
    """One mark in front of, after or inside a word, if there is room for it."""
    length = jnp.sum(glyphs != PAD)
    where, inside = draws.uniform(), draws.choice(1 << 16) % jnp.maximum(length, 1)
    position = jnp.where(where < 0.6, length, jnp.where(where < 0.8, 0, inside))
    opening, closing = _ids(OPENING_MARKS), _ids(MARKS)
    mark = jnp.where(position == 0, opening[draws.choice(len(opening))], closing[draws.choice(len(closing))])
    slots = jnp.arange(glyphs.shape[0])
    marked = jnp.where(slots < position, glyphs, jnp.where(slots == position, mark, jnp.roll(glyphs, 1)))
    return jnp.where(length < glyphs.shape[0], marked, glyphs)


def sample_word(
    bits: UInt32[Array, " n"],
    table: WordTable,
    *,
    held_out: bool = False,
    length_bias: float = 1.0,
    share_digits: float = 0.0,
    share_random: float = 0.0,
    share_punctuation: float = 0.0,
) -> tuple[Int[Array, " L"], Int[Array, ""]]:
    """One string to render: glyph ids (0 after the end) and its length. Needs `5 L + 16` words of random `bits`.

    `share_digits` of the strings are numbers, prices, dates; `share_random` are random strings and codes; the rest are
    English words, `share_punctuation` of them with a mark. `held_out` takes English words that training never sees; its
    numbers and codes are fresh draws, so short ones occur in training too. With a `length_bias` of b, a share x
    of the words is among the shortest x ** b of the list; 1 is uniform over the list.
    """
    draws = Draws(bits)
    words = table.held_out if held_out else table.train
    place = draws.uniform() ** length_bias  # in the list, which is sorted by length
    word = words[jnp.minimum((place * words.shape[0]).astype(jnp.int32), words.shape[0] - 1)].astype(jnp.int32)
    forms = [f[draws.choice(f.shape[0])].astype(jnp.int32) for f in (table.numbers, table.codes)]
    kind = draws.uniform()
    form = jnp.where(kind < share_digits, *forms)
    filled = _fill_form(draws, form)
    is_word = kind >= share_digits + share_random
    if not held_out:
        is_word = is_word | _spells_held_out(filled, table)
    marked = jnp.where(draws.chance(share_punctuation), _punctuate(draws, word), word)
    glyphs = _set_case(draws, jnp.where(is_word, marked, filled))
    length = jnp.sum(glyphs != PAD)
    return jnp.where(glyphs == PAD, 0, glyphs), length


def _spells_held_out(glyphs: Int[Array, " L"], table: WordTable) -> Bool[Array, ""]:
    """Whether the row spells a held-out word (or, one time in 300,000, only has the hash of one)."""
    value = spelling_hash(glyphs)
    place = jnp.searchsorted(table.held_out_hashes, value)
    return table.held_out_hashes[jnp.minimum(place, table.held_out_hashes.shape[0] - 1)] == value
