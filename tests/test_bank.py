import lzma
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

from crnn_jax.synth import bank

ASSETS = Path(bank.__file__).parent / "assets"


@pytest.fixture(scope="module")
def glyphs():
    return bank.read_glyphs()


def test_load_bank():
    loaded = bank.load_bank(fonts=3)
    assert loaded.texels.shape == (3, bank.NUM_GLYPHS, bank.CELL, bank.CELL) and loaded.texels.dtype == np.uint32
    assert loaded.metrics.shape == (3, bank.NUM_GLYPHS, 6) and loaded.metrics.dtype == np.float32
    assert loaded.textures.shape[1:] == (40, 128) and loaded.textures.dtype == np.uint8
    assert all(isinstance(array, jax.Array) for array in loaded)


def test_all_fonts_are_there(glyphs):
    fields, metrics = glyphs
    assert len(fields) == len(metrics) == len(bank.font_table()) >= 200


def test_every_glyph_has_ink_inside_its_margin(glyphs):
    fields, _ = glyphs
    assert (fields.max((2, 3)) > 128).all()
    border = np.ones((bank.CELL, bank.CELL), bool)
    border[bank.SPREAD : -bank.SPREAD, bank.SPREAD : -bank.SPREAD] = False
    assert (fields[..., border] <= 128 + 127 / bank.SPREAD).all()
    # The ink's top left corner is in its place: just inside the margin, the first rows and columns have some ink.
    inner = fields[..., bank.SPREAD : -bank.SPREAD, bank.SPREAD : -bank.SPREAD]
    assert (inner[..., :2, :].max((2, 3)) > 100).all() and (inner[..., :2].max((2, 3)) > 100).all()


def test_fields_are_distances_in_texels(glyphs):
    letters = glyphs[0][:, ord("D") - bank.FIRST_GLYPH].astype(float)
    down, right = np.gradient(letters, axis=(1, 2))
    slope = np.hypot(down, right)[abs(letters - 128) < 32] * bank.SPREAD / 127  # near the outline: texels per texel
    assert abs(np.median(slope) - 1) < 0.1


def test_metrics_are_of_the_ink(glyphs):
    fields, metrics = glyphs
    per_em, left, top, bottom, width, advance = np.moveaxis(metrics, -1, 0)
    assert (per_em > 0).all() and (top > bottom).all() and (width > 0).all() and (advance >= 0).all()
    assert (per_em * np.maximum(width, top - bottom) <= bank.CELL - 2 * bank.SPREAD + 1e-3).all()
    # Width and height in texels agree with the field's own extent, up to the texels that an edge half covers.
    inside = fields > 128
    for extent, axis in ((per_em * width, 2), (per_em * (top - bottom), 3)):
        covered = inside.any(axis)
        last = bank.CELL - covered[..., ::-1].argmax(-1) - bank.SPREAD
        assert np.quantile(abs(last - extent), 0.99) < 1.5
    letter = {character: ord(character) - bank.FIRST_GLYPH for character in "xpdHWi"}
    assert np.mean(bottom[:, letter["p"]] < -0.05) > 0.8  # it descends, except in small capitals
    assert np.mean(top[:, letter["d"]] > top[:, letter["x"]]) > 0.9
    assert np.mean(abs(bottom[:, letter["H"]]) < 0.06) > 0.8  # it stands on the baseline
    assert (width[:, letter["W"]] > width[:, letter["i"]]).mean() > 0.98


def test_pack_puts_the_neighbourhood_into_four_bytes():
    fields = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 5), dtype=np.uint8)
    packed = bank.pack(fields)
    assert packed.dtype == np.uint32 and packed.shape == fields.shape
    for font, glyph, y, x in np.ndindex(fields.shape):
        cell, below, right = fields[font, glyph].astype(int), min(y + 1, 4), min(x + 1, 4)
        expected = cell[y, x] | cell[y, right] << 8 | cell[below, x] << 16 | cell[below, right] << 24
        assert packed[font, glyph, y, x] == expected


def test_choose_fonts():
    categories = [font.category for font in bank.font_table()]
    chosen = bank.choose_fonts(categories, 40)
    assert len(set(chosen)) == 40
    assert (chosen == bank.choose_fonts(categories, 40)).all()
    assert set(bank.choose_fonts(categories, 20)) < set(chosen)
    assert set(chosen) != set(bank.choose_fonts(categories, 40, seed=1))
    drawn = Counter(categories[i] for i in chosen)
    for category, size in Counter(categories).items():
        assert abs(drawn[category] - 40 * size / len(categories)) <= 1
    assert (bank.choose_fonts(categories, len(categories)) == np.arange(len(categories))).all()
    for count in (0, -1, len(categories) + 1):
        with pytest.raises(ValueError, match="fonts must be"):
            bank.choose_fonts(categories, count)


def test_load_bank_takes_the_chosen_fonts(glyphs):
    chosen = bank.choose_fonts([font.category for font in bank.font_table()], 2)
    np.testing.assert_array_equal(np.asarray(bank.load_bank(fonts=2).texels) & 255, glyphs[0][chosen])


def test_textures_are_mostly_quiet():
    textures = bank.read_arrays("textures.npz.xz")["textures"]
    contrast = textures.std((1, 2))
    assert len(textures) >= 300 and np.median(contrast) < 30 and contrast.max() > 50


def test_words():
    words = lzma.decompress(bank.read_asset("words.txt.xz")).decode().split()
    assert words == sorted(set(words)) and len(words) > 80_000
    assert all(word.isascii() and word.isalpha() and word.islower() and len(word) <= 23 for word in words)
    assert {"the", "recognition", "tried", "running"} <= set(words)  # base forms and inflections


def test_licences_are_shipped_and_all_is_small():
    table = bank.read_asset("fonts.tsv").decode().splitlines()
    assert all(all(column.strip() for column in row.split("\t")) for row in table)
    for font in bank.font_table():
        assert len((ASSETS / "licenses" / f"{font.licence}.txt").read_text()) > 1000
    sizes = {path.name: path.stat().st_size for path in [*ASSETS.iterdir(), *(ASSETS / "licenses").iterdir()]}
    assert all(
        name in bank.read_asset("LICENSES.md").decode() for name in sizes if name not in ("licenses", "LICENSES.md")
    )
    assert sum(sizes.values()) < 8e6
