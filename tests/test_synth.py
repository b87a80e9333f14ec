"""Words, rendering and batches: what a step renders, what that depends on, and what it never shows."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crnn_jax.charset import Charset
from crnn_jax.config import Config, ConfigError, DataConfig, ModelConfig
from crnn_jax.synth import render as rendering
from crnn_jax.synth.batch import check_charset, glyph_classes, lacking, load_source, synth_batch, to_classes
from crnn_jax.synth.colour import Fill, paint
from crnn_jax.synth.draws import Draws
from crnn_jax.synth.layout import lay_out
from crnn_jax.synth.style import MJSYNTH, PHOTO, PLAIN, STYLES
from crnn_jax.synth.words import (
    GLYPHS,
    OPENING_MARKS,
    PAD,
    _rows,
    english_words,
    is_held_out,
    load_words,
    sample_word,
    spelling_hash,
)

CONFIG = Config(data=DataConfig(style=MJSYNTH, fonts=6, share_digits=0.1, share_random=0.1, share_punctuation=0.1))
KEY = jax.random.key(5)


def render(*arguments, **options):
    """Compiled: its operations one by one take longer."""
    return jax.jit(partial(rendering.render, **options))(*arguments)


@pytest.fixture(scope="module")
def source():
    return load_source(CONFIG)


@pytest.fixture(scope="module")
def draw():
    return jax.jit(partial(synth_batch, config=CONFIG, batch_size=16))


def spell(glyphs, length):
    return "".join(GLYPHS[g] for g in np.asarray(glyphs)[: int(length)])


@pytest.fixture(scope="module")
def strings():
    """3,000 strings of training and 3,000 held-out ones, with a large share of random strings."""
    table = load_words(24)

    def sample(bits, held_out):
        return sample_word(bits, table, held_out=held_out, share_digits=0.1, share_random=0.5, share_punctuation=0.0)

    drawn = {}
    for held_out in (False, True):
        bits = jax.random.bits(jax.random.key(int(held_out)), (3000, 5 * 24 + 16))
        glyphs, lengths = jax.jit(jax.vmap(partial(sample, held_out=held_out)))(bits)
        drawn[held_out] = [spell(g, n) for g, n in zip(glyphs, lengths, strict=True)]
    return drawn


def test_a_tenth_of_the_words_is_held_out():
    words = english_words()
    assert len(words) > 90_000 and len(set(words)) == len(words)
    assert 0.09 < sum(map(is_held_out, words)) / len(words) < 0.11
    assert is_held_out("Word") == is_held_out("word")


def test_training_never_spells_a_held_out_word(strings):
    held_out = {w for w in english_words() if is_held_out(w)}
    assert not [s for s in strings[False] if s.lower() in held_out]
    words = [s for s in strings[True] if s.isalpha() and s.lower() in held_out]
    assert len(words) > 1000  # so the same check does find them


def test_a_random_string_that_spells_a_held_out_word_is_replaced():
    table = load_words(24)
    word = next(w for w in english_words() if is_held_out(w) and len(w) == 3)
    # Only one form, and it spells the word: without the check every random string would.
    forms = jnp.asarray(_rows([word.upper()], 24))
    table = table._replace(codes=forms)
    bits = jax.random.bits(KEY, (50, 5 * 24 + 16))
    glyphs, lengths = jax.vmap(partial(sample_word, table=table, share_random=1.0))(bits)
    assert word not in {spell(g, n).lower() for g, n in zip(glyphs, lengths, strict=True)}


def test_shares_and_cases(strings):
    numbers = [s for s in strings[True] if not any(c.isalpha() for c in s)]
    assert 0.07 < len(numbers) / 3000 < 0.18  # a tenth are numbers, and some codes are digits only
    vocabulary = set(english_words())
    words = [s for s in strings[True] if len(s) > 3 and s.lower() in vocabulary]
    shares = [np.mean([f(w) for w in words]) for f in (str.islower, str.isupper, str.istitle)]
    assert all(0.25 < share < 0.4 for share in shares)
    assert 0 < 1 - sum(shares) < 0.1  # mixed case


def test_spelling_hash_sees_letters_but_not_case():
    rows = _rows(["Word", "wORD", "wrod", "word1", "wor"], 8)
    hashes = np.asarray(jax.vmap(spelling_hash)(jnp.asarray(rows)))
    assert hashes[0] == hashes[1] and len(set(hashes)) == 4
    assert (rows[3] != PAD).sum() == 5


def test_labels_drop_what_the_charset_lacks():
    charset = Charset.of("36")
    classes = jnp.array(glyph_classes(charset))
    glyphs = jnp.array([GLYPHS.index(c) for c in "-It's!"] + [0, 0])
    label, length = to_classes(glyphs, jnp.int32(6), classes)
    assert charset.decode(np.asarray(label)) == "its" and length == 3


@pytest.mark.parametrize("characters", ["abcdefghijklm", "ABCDEFGHIJKLM0123456789"])
def test_strings_that_the_charset_cannot_spell_are_not_drawn(characters):
    charset = Charset.of(characters)
    table, classes = load_words(24, lacking=lacking(charset)), jnp.array(glyph_classes(charset))
    shares = {"share_digits": 0.2 if "0" in characters else 0.0, "share_punctuation": 0.5}
    glyphs, lengths = jax.vmap(partial(sample_word, table=table, **shares))(jax.random.bits(KEY, (500, 5 * 24 + 16)))
    labels, _ = jax.vmap(to_classes, in_axes=(0, 0, None))(glyphs, lengths, classes)
    for string, label in zip(map(spell, glyphs, lengths), np.asarray(labels), strict=True):
        assert charset.decode(label) == "".join(filter(str.isalnum, charset.fold(string))) != ""


def test_a_charset_that_can_spell_nothing_of_a_kind_is_refused():
    def check(charset, **shares):
        check_charset(Config(model=ModelConfig(charset=charset), data=DataConfig(**shares)))

    with pytest.raises(ConfigError, match="can spell no English word: set data.share_digits and data.share_random"):
        check("0123456789")
    with pytest.raises(ConfigError, match="can spell no random string: set data.share_random=0"):
        check("0123456789", share_digits=0.9, share_random=0.1)
    check("0123456789", share_digits=1.0, share_random=0.0)
    with pytest.raises(ConfigError, match="lacks 0123456789, so it can spell no number: set data.share_digits=0"):
        check("abcdefghijklmnopqrstuvwxyz")
    check("abcdefghijklmnopqrstuvwxyz", share_digits=0.0)


def test_a_word_behind_an_opening_mark_can_have_a_title():
    table = load_words(24)
    bits = jax.random.bits(KEY, (2000, 5 * 24 + 16))
    strings = map(spell, *jax.vmap(partial(sample_word, table=table, share_punctuation=1.0))(bits))
    opened = [s for s in strings if s[0] in OPENING_MARKS and len(s) > 3]
    assert len(opened) > 100 and 0.25 < np.mean([s[1:].istitle() for s in opened]) < 0.4


def test_more_fonts_than_there_are():
    with pytest.raises(ConfigError, match="data.fonts = 9999: expected at most 327"):
        load_source(Config(data=DataConfig(fonts=9999)))


def test_images_are_full_of_words(source, draw):
    batch = draw(KEY, source)
    assert batch.image.shape == (16, 32, 100) and batch.image.dtype == jnp.uint8
    assert np.asarray(batch.image).reshape(16, -1).std(1).min() > 3
    assert np.all(np.asarray(batch.label_length) > 0)


def test_an_example_depends_on_key_and_index_alone(source, draw):
    whole = draw(KEY, source)
    halves = [jax.jit(partial(synth_batch, config=CONFIG, batch_size=8))(KEY, source, first_index=i) for i in (0, 8)]
    for name in whole._fields:
        joined = np.concatenate([np.asarray(getattr(half, name)) for half in halves])
        difference = np.abs(np.asarray(getattr(whole, name)).astype(int) - joined.astype(int))
        # Programs for different batch sizes may round a grey level differently at JPEG's quantiser: labels never.
        assert difference.max() == 0 if name != "image" else np.mean(difference > 0) < 0.02
    other = draw(jax.random.key(6), source)
    assert not np.array_equal(whole.image, other.image) and not np.array_equal(whole.label, other.label)


def test_held_out_batches_hold_held_out_words(source):
    config = replace(CONFIG, data=replace(CONFIG.data, share_digits=0.0, share_random=0.0, share_punctuation=0.0))
    for held_out in (False, True):
        batch = jax.jit(partial(synth_batch, batch_size=8, config=config, held_out=held_out))(KEY, source)
        words = [Charset.of("36").decode(row) for row in np.asarray(batch.label)]
        assert all(is_held_out(word) == held_out for word in words)


@pytest.mark.parametrize("style", sorted(STYLES))
def test_ink_is_visible_in_every_style(source, style):
    glyphs = jnp.tile(jnp.array([GLYPHS.index(c) for c in "Word"]), (64, 1))
    images = np.asarray(render(KEY, source.bank, glyphs, jnp.full(64, 4), style=STYLES[style])).astype(float)
    assert np.isfinite(images).all()
    assert images.reshape(64, -1).std(1).min() > 3
    assert images.reshape(64, -1).std(1).max() > 30


def test_plain_words_look_like_their_glyphs(source):
    """The ink of an upright word stands where its letters are, and an l is narrower than an m."""
    style = replace(PLAIN, border_width=(1.0, 0.0), bold_share=0.0, margin_std=0.0)

    def images_of(letter, fit):
        letters = jnp.full((4, 1), GLYPHS.index(letter))
        return np.asarray(render(KEY, source.bank, letters, jnp.ones(4, jnp.int32), style=style, fit=fit)).astype(float)

    for letter in "lm":
        images = images_of(letter, "resize")
        ink = np.abs(images - np.median(images[:, :2], axis=(1, 2), keepdims=True)) > 30
        assert ink[:, 8:24, 20:80].any((1, 2)).all()
    # Which fonts are drawn depends on the key alone; after a word its last column is repeated.
    narrow, wide = ((images_of(letter, "pad") != images_of(letter, "pad")[..., -1:]).any(1).sum(1) for letter in "lm")
    assert (narrow < wide).all() and np.median(wide / narrow) > 1.5


def test_only_some_rows_have_a_neighbour(source):
    glyphs = jnp.tile(jnp.arange(6) + GLYPHS.index("a"), (16, 1))
    style = replace(PLAIN, margin_mean=60.0)
    alone, beside = (
        np.asarray(render(KEY, source.bank, glyphs, jnp.full(16, 6), style=replace(style, neighbour_share=share)))
        for share in (0.0, 1.0)
    )
    changed = (alone != beside).any((1, 2))
    assert not changed[np.arange(16) % 4 != 2].any() and changed[2::4].sum() >= 3


def test_panels_and_frames_lie_on_the_ground_near_the_sides(source):
    glyphs = jnp.full((32, 4), GLYPHS.index("m"))
    plain, framed = (
        np.asarray(render(KEY, source.bank, glyphs, jnp.full(32, 4), style=replace(PLAIN, edge_share=share)))
        for share in (0.0, 1.0)
    )
    difference = np.abs(framed.astype(float) - plain).mean(0)
    rim = np.ones((32, 100), bool)
    rim[10:22, 15:85] = False
    assert difference[rim].mean() > 1.4 * difference[~rim].mean()


def test_small_capitals_are_smaller_behind_the_first(source):
    style = replace(PLAIN, small_caps_share=1.0, kerning_share=0.0)

    def letter_scales(text):
        draws = Draws(jax.random.bits(KEY, (256,)))
        glyphs = jnp.array([GLYPHS.index(c) for c in text])
        layout = lay_out(draws, source.bank, glyphs, jnp.int32(len(text)), jnp.array(False), style=style)
        return 1 / np.asarray(layout.cell_maps[4])  # font pixels of a texel

    capitals, lower = letter_scales("HHHH"), letter_scales("hhhh")
    assert 0.64 < capitals[1] / capitals[0] < 0.86
    np.testing.assert_allclose(capitals[2:], capitals[1], rtol=1e-4)
    np.testing.assert_allclose(lower, lower[0], rtol=1e-4)


def test_a_length_bias_draws_short_words_as_often_as_it_says():
    table = load_words(24)
    sizes = np.sum(np.asarray(table.train) != PAD, axis=1)
    assert (np.diff(sizes) >= 0).all()
    bits = jax.random.bits(KEY, (4000, 5 * 24 + 16))
    lengths = np.asarray(jax.vmap(lambda b: sample_word(b, table, length_bias=2.0)[1])(bits))
    for length in (3, 5, 8):
        share = np.mean(sizes <= length)  # of the list
        assert abs(np.mean(lengths <= length) - share**0.5) < 0.03


def test_width_and_height_are_free(source):
    glyphs = jnp.full((4, 6), GLYPHS.index("a"))
    images = render(KEY, source.bank, glyphs, jnp.full(4, 6), style=MJSYNTH, height=24, width=200)
    assert images.shape == (4, 24, 200) and np.asarray(images).std() > 3


def test_words_of_any_length_can_be_rendered(source):
    """Without more random bits for more letters, tracing would raise an IndexError."""
    trace = partial(jax.eval_shape, partial(rendering.render, style=PHOTO, width=560))
    images = trace(KEY, source.bank, jnp.full((4, 130), GLYPHS.index("o")), jnp.full(4, 130))
    assert (images.shape, images.dtype) == ((4, 32, 560), jnp.uint8)


def test_textures_smaller_than_the_image_go_on_in_a_mirror():
    textures = jnp.arange(24, dtype=jnp.uint8).reshape(2, 3, 4) * 10
    second = Fill(jnp.zeros(()), jnp.int32(12), jnp.ones(()), jnp.int32(0), jnp.array(True))  # nothing but the texture
    layer = 255 * np.asarray(paint(second, textures, (7, 6)))
    rows, columns = [0, 1, 2, 1, 0, 1, 2], [0, 1, 2, 3, 2, 1]
    np.testing.assert_allclose(layer, np.asarray(textures[1])[rows][:, columns], atol=1e-3)


def test_pad_keeps_the_aspect_and_repeats_the_last_column(source):
    """A short word leaves the right of a wide image to its last column, a long one fills it."""
    glyphs = jnp.tile(jnp.arange(12) + GLYPHS.index("a"), (8, 1))
    lengths = jnp.array([2] * 4 + [12] * 4)
    images = np.asarray(render(KEY, source.bank, glyphs, lengths, style=PLAIN, fit="pad"))
    flat = (images == images[:, :, -1:]).all(1)  # columns equal to the last one
    constant = flat[:, ::-1].cumprod(1).sum(1)  # how many of them at the end
    assert constant[:4].min() > 20 and constant[4:].max() < 4
    stretched = np.asarray(render(KEY, source.bank, glyphs, lengths, style=PLAIN))
    np.testing.assert_array_equal(images[4:], stretched[4:])  # long enough to be stretched in both


def test_draws_are_in_range_and_run_out():
    draws = Draws(jax.random.bits(KEY, (4000,)))
    uniform, normal = draws.uniform(2.0, 3.0, size=1500), draws.normal(size=1500)
    assert 2 < uniform.min() and uniform.max() < 3 and abs(float(uniform.mean()) - 2.5) < 0.05
    assert abs(float(normal.mean())) < 0.1 and abs(float(normal.std()) - 1) < 0.1
    assert 0 <= int(draws.choice(3)) < 3
    with pytest.raises(IndexError, match="4000"):
        draws.uniform(size=1000)
