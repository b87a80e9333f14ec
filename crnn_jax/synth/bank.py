"""The glyph bank: every printable ASCII character of several hundred fonts as signed distance fields.

It ships with the package (`assets/glyphs.npz.xz`, built by experiments/build_bank.py) and is what words are rendered
from, on the device. A glyph is one square cell of texels; a texel holds the distance to the glyph's outline, so that
weight, borders, anti-aliasing and blur are thresholds of one number (Green 2007, "Improved alpha-tested magnification
for vector textures and special effects").
"""

import functools
import io
import lzma
from importlib import resources
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float32, UInt8, UInt32

NUM_GLYPHS = 94  # the printable ASCII characters: glyph g is chr(FIRST_GLYPH + g)
FIRST_GLYPH = 33
CELL = 48  # texels along a side of a cell
SPREAD = 6  # texels: distances saturate here; also the margin around the ink in its cell


class Bank(NamedTuple):
    """Glyphs and background crops on the device; F fonts, T textures, S = CELL.

    texels: 2 x 2 neighbourhoods of the distance fields, so that one gather is a bilinear sample: byte 0 is the texel
        itself, byte 1 the one to its right, byte 2 the one below, byte 3 the one below to the right (edges repeat).
        A byte is 128 + 127 * distance / SPREAD, the distance in texels, positive (> 128) inside the ink. The centre
        of texel (row, column) is at (row + 0.5, column + 0.5); the ink's top left corner is at (SPREAD, SPREAD).
    metrics: cell texels per em, then in em with y up from the baseline: left, top and bottom of the ink, its width,
        and the advance.
    textures: grey crops of photographs and of noise, for backgrounds and fills.
    """

    texels: UInt32[Array, "F 94 S S"]
    metrics: Float32[Array, "F 94 6"]
    textures: UInt8[Array, "T 40 128"]


class Font(NamedTuple):
    """Where one font of the bank comes from. Names are for attribution; the bank itself numbers its fonts."""

    family: str
    category: str  # sans-serif | serif | display | handwriting | monospace
    licence: str  # SPDX identifier; the text is assets/licenses/<licence>.txt


def load_bank(fonts: int = 0) -> Bank:
    """Loads the bank that ships with the package onto the default device (870 kB per font).

    Args:
        fonts: how many fonts; 0 means all. Fewer are taken from all categories in proportion (see choose_fonts).

    Raises:
        ValueError: the bank has fewer fonts.
    """
    chosen = choose_fonts([font.category for font in font_table()], fonts, seed=0) if fonts else slice(None)
    fields, metrics = (array[chosen] for array in read_glyphs())
    textures = read_arrays("textures.npz.xz")["textures"]
    return Bank(*(jax.device_put(array) for array in (pack(fields), metrics, textures)))


@functools.cache
def font_table() -> list[Font]:
    """The fonts of the bank, in its order."""
    header, *rows = (line.split("\t") for line in read_asset("fonts.tsv").decode().splitlines())
    columns = [header.index(name) for name in Font._fields]
    return [Font(*(row[column] for column in columns)) for row in rows]


def choose_fonts(categories: list[str], count: int, *, seed: int = 0) -> np.ndarray:
    """Indices of `count` fonts, spread over the categories in proportion to their sizes; int64[count], sorted.

    Each category is shuffled, a font's place in it becomes a fraction of the category, and the fonts with the smallest
    fractions are chosen. So a larger choice includes every smaller one of the same seed.

    Raises:
        ValueError: count is not in 1 .. the number of fonts.
    """
    if not 1 <= count <= len(categories):
        raise ValueError(f"fonts must be in 1..{len(categories)} (or 0 for all), not {count}")
    rng = np.random.default_rng(seed)
    place = np.empty(len(categories))
    for category in sorted(set(categories)):
        members = np.flatnonzero(np.array(categories) == category)
        place[members] = (rng.permutation(len(members)) + 0.5) / len(members)
    return np.sort(np.argsort(place, kind="stable")[:count])


def pack(fields: np.ndarray) -> np.ndarray:
    """Every texel's 2 x 2 neighbourhood in one word: uint8[F, G, S, S] -> uint32[F, G, S, S]; see Bank.texels."""
    packed = np.empty(fields.shape, np.uint32)
    for i, cells in enumerate(fields):  # one font at a time fits the CPU's cache: ten times faster than all at once
        texels = np.pad(cells, ((0, 0), (0, 1), (0, 1)), mode="edge").astype(np.uint32)
        pairs = texels[..., :-1] | texels[..., 1:] << 8
        np.bitwise_or(pairs[:, :-1], pairs[:, 1:] << 16, out=packed[i])
    return packed


def read_glyphs() -> tuple[np.ndarray, np.ndarray]:
    """The distance fields, uint8[F, 94, S, S], and the metrics, float32[F, 94, 6], of all fonts."""
    arrays = read_arrays("glyphs.npz.xz")
    fields = arrays["levels"]  # 0..63, spread over 0..255 here
    fields <<= 2
    fields |= fields >> 6
    return fields, arrays["metrics"]


def read_arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of an asset that is an .npz file inside an .xz file."""
    with np.load(io.BytesIO(lzma.decompress(read_asset(name)))) as file:
        return dict(file)


def read_asset(name: str) -> bytes:
    """A file of the package's assets folder."""
    return (resources.files(__package__) / "assets" / name).read_bytes()
