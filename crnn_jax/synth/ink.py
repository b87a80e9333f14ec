"""How much ink of a laid-out word covers each pixel: two gathers per pixel into the bank's distance fields.

Every pixel is mapped backwards into the cells of the nearest even-numbered and the nearest odd-numbered letter, which
are always its two neighbours. Weight, outline, anti-aliasing and soft edges are thresholds of a single distance.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8, UInt16, UInt32

from crnn_jax.synth.bank import SPREAD
from crnn_jax.synth.layout import Layout, View

Size = tuple[int, int]


class Texels(NamedTuple):
    """The addresses of a layer's samples, for each pixel and each of its two candidate letters."""

    index: Int[Array, "2 H W"]  # into the flat bank
    fraction: UInt16[Array, "2 H W"]  # between texels, 8 bits each: x | y << 8


def word_plane(view: View, size: Size) -> tuple[Float[Array, "H W"], Float[Array, "H W"]]:
    """Word-plane x and y (font pixels) of the centre of every pixel of an image of `size` (height, width)."""
    height, width = size
    x = view.centre[0] + view.extent[0] * ((jnp.arange(width) + 0.5) / width - 0.5)[None, :]
    y = view.centre[1] + view.extent[1] * ((jnp.arange(height) + 0.5) / height - 0.5)[:, None]
    scale = 1 / jnp.maximum(1 + view.tilt[0] * x + view.tilt[1] * y, 0.2)
    (a, b), (c, d) = view.matrix
    return (a * x + b * y) * scale, (c * x + d * y) * scale


def locate(layout: Layout, shift: Float[Array, "2"], *, size: Size, cell: int) -> Texels:
    """The texels of the two candidate letters of every pixel; the ink is moved by `shift` (font pixels)."""
    x, y = word_plane(layout.view, size)
    x, y = x - shift[0], y - shift[1]
    indices, fractions = [], []
    for parity in (0, 1):
        centres, maps = layout.centres[parity::2], layout.cell_maps[:, parity::2]
        starts = layout.cell_starts[parity::2]
        chosen, start = [m[0] for m in maps], starts[0]
        # A chain of comparisons instead of a gather of each letter's numbers: it fuses and needs no memory traffic.
        for k in range(1, centres.shape[0]):
            beyond = x > (centres[k - 1] + centres[k]) / 2
            chosen = [jnp.where(beyond, m[k], so_far) for m, so_far in zip(maps, chosen, strict=True)]
            start = jnp.where(beyond, starts[k], start)
        xx, xy, x0, yx, yy, y0 = chosen
        # 8 bits of fraction; outside its cell a letter has no ink, so the edge of the cell stands in.
        column = (jnp.clip(xx * x + xy * y + x0 - 0.5, 0.0, cell - 1.01) * 256).astype(jnp.int32)
        row = (jnp.clip(yx * x + yy * y + y0 - 0.5, 0.0, cell - 1.01) * 256).astype(jnp.int32)
        indices.append(start + (row >> 8) * cell + (column >> 8))
        fractions.append(((column & 255) | (row & 255) << 8).astype(jnp.uint16))
    return Texels(jnp.stack(indices), jnp.stack(fractions))


def cover(
    texels: UInt32[Array, " texels"], places: Texels, layout: Layout, radius: Float[Array, ""]
) -> UInt8[Array, "H W"]:
    """Coverage by ink `radius` font pixels fatter than the glyphs, 0 to 255: one gather for each candidate letter."""
    height, width = places.index.shape[1:]
    per_level = SPREAD / 127  # texels of distance per grey level of the bank
    packed = texels.at[places.index].get(mode="promise_in_bounds")
    top_left, top_right, low_left, low_right = (((packed >> s) & 255).astype(jnp.float32) for s in (0, 8, 16, 24))
    fx = (places.fraction & 255).astype(jnp.float32) / 256
    fy = (places.fraction >> 8).astype(jnp.float32) / 256
    top = top_left + (top_right - top_left) * fx
    low = low_left + (low_right - low_left) * fx
    distance = top + (low - top) * fy - 128
    # The distance's slope per image pixel, from the same four texels: it sets the width of the anti-aliased edge.
    slope_x = ((top_right - top_left) * (1 - fy) + (low_right - low_left) * fy) * (layout.view.extent[0] / width)
    slope_y = (low - top) * (layout.view.extent[1] / height)
    slope = slope_x**2 + slope_y**2
    first = distance[0] >= distance[1]
    distance, slope = jnp.where(first, distance[0], distance[1]), jnp.where(first, slope[0], slope[1])
    distance = distance * (per_level * layout.pixels_per_texel) + radius
    edge = 1.1 * jnp.sqrt(slope * per_level**2 + (2.2 * layout.softness) ** 2 + 1e-6)
    x = jnp.clip(0.5 + distance / edge, 0.0, 1.0)
    return jnp.round(x * x * (3 - 2 * x) * 255).astype(jnp.uint8)


def underline_cover(layout: Layout, *, size: Size) -> Float[Array, "H W"]:
    """Coverage by the line under the word, 0 to 1; zeros for words without one."""
    x0, x1, middle, half = layout.underline
    x, y = word_plane(layout.view, size)
    inside = jnp.minimum(half - jnp.abs(y - middle), jnp.minimum(x - x0, x1 - x))
    return jnp.clip(0.5 + inside / (layout.view.extent[1] / size[0] + 2 * layout.softness), 0.0, 1.0)
