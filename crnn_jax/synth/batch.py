"""A training batch from nothing but a key: words drawn, rendered and labelled on the device."""

import string
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt8

from crnn_jax.charset import Charset
from crnn_jax.config import Config, ConfigError
from crnn_jax.synth.bank import Bank, font_table, load_bank
from crnn_jax.synth.render import example_keys, render
from crnn_jax.synth.words import GLYPHS, WordTable, load_words, sample_word, spellable


class Source(NamedTuple):
    """All that rendering needs, on the device: about 300 MB with every font. Pass it as an argument of jitted code."""

    bank: Bank
    words: WordTable
    classes: Int[Array, "94"]  # class id of each glyph, 0 where the charset has none


class Batch(NamedTuple):
    """Images with their labels."""

    image: UInt8[Array, "B H W"]
    label: Int[Array, "B N"]  # class ids, 0 after the end
    label_length: Int[Array, " B"]


def load_source(config: Config) -> Source:
    """The glyph bank and the words of a config, on the default device. Raises ConfigError for too many fonts."""
    data, fonts = config.data, len(font_table())
    if data.fonts > fonts:
        raise ConfigError(f"data.fonts = {data.fonts}: expected at most {fonts}, or 0 for all")
    charset = Charset.of(config.model.charset)
    words = load_words(data.max_length, lacking=lacking(charset))
    return Source(load_bank(data.fonts), words, jnp.array(glyph_classes(charset)))


def glyph_classes(charset: Charset) -> list[int]:
    """The class id of each glyph, 0 where the charset has none."""
    return [charset.encode(c)[0] if c in charset.characters else 0 for c in map(charset.fold, GLYPHS)]


def lacking(charset: Charset) -> str:
    """The letters (in lower case) and digits that the charset lacks in some case: no string with them has a label.

    Marks do not count: a label just loses them.
    """
    lost = (c.lower() for c, id in zip(GLYPHS, glyph_classes(charset), strict=True) if c.isalnum() and not id)
    return "".join(sorted(set(lost)))


def check_charset(config: Config) -> None:
    """Raises ConfigError if strings of a kind are to be rendered that the charset cannot spell."""
    data, without = config.data, lacking(Charset.of(config.model.charset))
    if set(without) >= set(string.ascii_lowercase + string.digits):
        raise ConfigError(
            "model.charset has no ASCII letters or digits, and only those are rendered: train on data.real with "
            "data.share_real=1, or on data.sources with a data.validation"
        )
    strings = spellable(data.max_length, lacking=without)
    words = 1 - data.share_digits - data.share_random
    shares = {"train": words, "held_out": words, "numbers": data.share_digits, "codes": data.share_random}
    for kind, share in shares.items():
        if share > 0 and not getattr(strings, kind):
            told = {"numbers": "number: set data.share_digits=0", "codes": "random string: set data.share_random=0"}
            what = told.get(kind, "English word: set data.share_digits and data.share_random to 1 together")
            instead = " (or, to train on data.sources alone, set data.validation)" if data.sources else ""
            raise ConfigError(f"model.charset lacks {without}, so it can spell no {what}{instead}")


def to_classes(glyphs: Int[Array, " N"], length: Int[Array, ""], classes: Int[Array, "94"]):
    """A string's label: its class ids, without gaps for characters that the charset lacks, and their number."""
    ids = jnp.where(jnp.arange(glyphs.shape[0]) < length, classes[glyphs], 0)
    label = ids[jnp.argsort(ids == 0, stable=True)]
    return label, jnp.sum(label > 0)


def synth_batch(
    key, source: Source, *, batch_size: int, config: Config, first_index=0, held_out: bool = False
) -> Batch:
    """Draw, render and label `batch_size` words. Example i depends on `key` and `first_index + i` alone.

    `held_out` draws English words that training never sees (see `sample_word`); use a key of its own for it.
    """
    word_key, image_key = jax.random.split(key)
    data, model = config.data, config.model

    def draw(example_key):
        bits = jax.random.bits(example_key, (5 * data.max_length + 16,))
        return sample_word(
            bits,
            source.words,
            held_out=held_out,
            length_bias=data.length_bias,
            share_digits=data.share_digits,
            share_random=data.share_random,
            share_punctuation=data.share_punctuation,
        )

    glyphs, lengths = jax.vmap(draw)(example_keys(word_key, first_index, batch_size))
    image = render(
        image_key,
        source.bank,
        glyphs,
        lengths,
        style=data.style,
        height=model.height,
        width=model.width,
        fit=model.fit,
        first_index=first_index,
    )
    label, label_length = jax.vmap(to_classes, in_axes=(0, 0, None))(glyphs, lengths, source.classes)
    return Batch(image, label, label_length)
