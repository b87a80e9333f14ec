"""Words to images, on the device: `render(key, bank, glyphs, lengths, style=...) -> uint8[B, H, W]`.

Four stages, each for one word and mapped over the batch: lay out, locate texels, cover with ink, compose and shoot.
They are in `layout.py`, `ink.py`, `colour.py` and `camera.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from crnn_jax.synth.bank import Bank
from crnn_jax.synth.camera import draw_camera, shoot
from crnn_jax.synth.colour import compose, draw_look
from crnn_jax.synth.draws import Draws
from crnn_jax.synth.ink import cover, locate, underline_cover
from crnn_jax.synth.layout import lay_out
from crnn_jax.synth.style import Style

BORDER_EVERY = 4  # every fourth word has two layers of ink: an outline, an inset or a shadow
NEIGHBOUR_EVERY, NEIGHBOUR_AT = 4, 2  # every fourth word, unbordered, may have a neighbour (Style.neighbour_share)
RANDOM_WORDS, ROOM = 224, 100  # 32-bit words of randomness per image, enough for up to ROOM letters


def example_keys(key, first_index, count: int):
    """A key for each of `count` examples of a global batch, which depends only on `key` and the example's index."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(first_index + jnp.arange(count))


def _stage(function, *rows):
    """`vmap(function)` over the rows of its arguments, computed before anything that uses it.

    XLA for CPUs would recompute a stage inside every gather of the next one (a third of the speed), and it drops
    optimization barriers before it fuses. It does not fuse across a loop's body; two iterations cost least.
    """
    if jax.default_backend() != "cpu":
        return jax.vmap(function)(*rows)
    count = jax.tree.leaves(rows)[0].shape[0]
    odd = count % 2
    halves = jax.tree.map(lambda x: jnp.concatenate([x, x[-odd:]]) if odd else x, rows)
    halves = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), halves)
    result = jax.lax.map(lambda half: jax.vmap(function)(*half), halves)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], result)


def render(
    key,
    bank: Bank,
    glyphs: Int[Array, "B L"],
    lengths: Int[Array, " B"],
    *,
    style: Style,
    height: int = 32,
    width: int = 100,
    fit: str = "resize",
    first_index: int | Int[Array, ""] = 0,
) -> UInt8[Array, "B {height} {width}"]:
    """Render a batch of words as grey images. Pure: the same key, words and style give the same images.

    `glyphs` are ids of the bank (`ord(character) - 33`), of which row i uses the first `lengths[i]`, 1 to L. Image i
    depends only on `key`, `first_index + i` and its own word, so a device that renders rows d to e of a global batch
    passes `first_index=d`; d must be a multiple of 4, because every fourth word is outlined or shaded.

    `fit` is what `images.fit_image` would do to the crop: resize stretches it to the image; pad keeps its aspect ratio,
    up to `width`, and repeats its last column to the right.
    """
    batch, size = glyphs.shape[0], (height, width)
    texels, cell = bank.texels.reshape(-1), bank.texels.shape[2]
    rows, aspect = jnp.arange(batch), width / height if fit == "pad" else None
    random_words = RANDOM_WORDS + max(0, glyphs.shape[1] - ROOM)
    if glyphs.shape[1] == 1:  # ink.py lets every pixel choose between an odd and an even letter: both must exist
        glyphs = jnp.pad(glyphs, ((0, 0), (0, 1)))

    def set_out(example_key, glyphs, length, bordered):
        draws = Draws(jax.random.bits(example_key, (random_words,)))
        layout = lay_out(draws, bank, glyphs, length, bordered, style=style, aspect=aspect)
        return layout, draw_look(draws, bank.textures, size=size, style=style), draw_camera(draws, style)

    def layer(layouts, shift, radius):
        places = _stage(lambda lay, s: locate(lay, s, size=size, cell=cell), layouts, shift)
        return _stage(lambda p, lay, r: cover(texels, p, lay, r), places, layouts, radius)

    def set_neighbour(example_key, glyphs, length, layout):
        """Another word in this one's view: its letters shuffled, in its font because drawn with the same bits."""
        bits = jax.random.bits(example_key, (random_words,))
        order = jnp.argsort(
            jnp.where(jnp.arange(glyphs.shape[0]) < length, bits[: glyphs.shape[0]], jnp.uint32(2**32 - 1))
        )
        other = lay_out(Draws(bits), bank, glyphs[order], length, jnp.array(False), style=style, aspect=aspect)
        return other._replace(view=layout.view)

    def finish(layout, look, camera, lower, upper):
        lower = jnp.maximum(lower.astype(jnp.float32) / 255, underline_cover(layout, size=size))
        upper = None if upper is None else upper.astype(jnp.float32) / 255
        image = shoot(camera, 255 * compose(look, bank.textures, lower, upper, style=style), style=style)
        if fit == "pad":
            last = jnp.maximum(jnp.round(layout.filled * width).astype(jnp.int32), 1) - 1
            image = image[:, jnp.minimum(jnp.arange(width), last)]
        return jnp.clip(jnp.round(image), 0, 255).astype(jnp.uint8)

    keys = example_keys(key, first_index, batch)
    scenes = _stage(set_out, keys, glyphs, lengths, rows % BORDER_EVERY == 0)
    lower = layer(scenes[0], scenes[0].lower_shift, scenes[0].lower_radius)
    if style.neighbour_share > 0:
        some = np.flatnonzero(np.arange(batch) % NEIGHBOUR_EVERY == NEIGHBOUR_AT)
        own = scenes[0]
        others = _stage(set_neighbour, *jax.tree.map(lambda x: x[some], (keys, glyphs, lengths, own)))
        beside = layer(others, own.neighbour_shift[some], own.lower_radius[some])
        lower = lower.at[some].max(beside)
    # The upper layer and what it needs are computed only for the bordered words.
    bordered, simple = (np.flatnonzero((np.arange(batch) % BORDER_EVERY == 0) == wanted) for wanted in (True, False))
    framed = jax.tree.map(lambda x: x[bordered], scenes)
    upper = layer(framed[0], jnp.zeros_like(framed[0].lower_shift), framed[0].upper_radius)
    images = [_stage(finish, *framed, lower[bordered], upper)]
    if simple.size:
        images.append(_stage(finish, *jax.tree.map(lambda x: x[simple], scenes), lower[simple], None))
    return jnp.concatenate(images)[np.argsort(np.concatenate([bordered, simple]))]
