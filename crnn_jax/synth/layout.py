"""Where the letters of one word go, and how they are viewed. Nothing here is per pixel.

Three planes: the image (pixels), the word plane (font pixels, x right, y down, the origin on the baseline under the
middle letter), and a glyph's cell in the bank (texels). Rendering maps backwards, image -> word plane -> cell, so the
layout is kept as those two maps: a homography for the word and an affine map for each letter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from crnn_jax.synth.bank import FIRST_GLYPH, SPREAD, Bank
from crnn_jax.synth.draws import Draws
from crnn_jax.synth.style import Style

FAR = 1e6  # font pixels: beyond everything
CAPITALS = (ord("A") - FIRST_GLYPH, ord("Z") - FIRST_GLYPH)

# Keeps its argument from being recomputed at every use: a fused layout takes ten times as long to compile.
_keep = jax.lax.optimization_barrier


class View(NamedTuple):
    """The crop and the homography from image to word plane: `q = M p / (1 + tilt . p)`, p in the crop's plane."""

    centre: Float[Array, "2"]  # of the crop, x and y
    extent: Float[Array, "2"]  # of the crop, width and height
    matrix: Float[Array, "2 2"]
    tilt: Float[Array, "2"]


class Layout(NamedTuple):
    """One word, ready to be sampled."""

    view: View
    cell_maps: Float[Array, "6 L"]  # word plane -> cell: [x; y] = [m0 m1; m3 m4] q + [m2; m5]
    cell_starts: Int[Array, " L"]  # index of the glyph's first texel in the flat bank
    centres: Float[Array, " L"]  # x of the letters' middles in the word plane; FAR for unused slots
    pixels_per_texel: Float[Array, ""]  # font pixels
    softness: Float[Array, ""]  # standard deviation of the soft edge, font pixels
    lower_radius: Float[Array, ""]  # how much fatter than the glyphs the lower layer is, font pixels
    lower_shift: Float[Array, "2"]  # of the lower layer, if it is a shadow
    upper_radius: Float[Array, ""]  # the same for the upper layer, in words that have one
    filled: Float[Array, ""]  # share of the image's width that the crop fills, from the left
    underline: Float[Array, "4"]  # x0, x1, y, half thickness; x0 = FAR without one
    neighbour_shift: Float[Array, "2"]  # font pixels, from this word to its neighbour; FAR without one


def _view_matrix(draws: Draws, style: Style) -> tuple[Float[Array, "2 2"], Float[Array, "2"]]:
    """A rotation, then a small random affine map and a perspective."""
    wide = jnp.where(draws.chance(style.wide_share), style.wide_factor, 1.0)
    angle = jnp.deg2rad(style.rotation_std * wide * draws.normal())
    if style.turn > 0:  # not drawn unless asked for, so that the words of other styles stay the same
        angle = angle + jnp.deg2rad(draws.uniform(-style.turn, style.turn))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    scale = 1 + style.scale_std * wide * draws.normal(size=2)
    shear = style.shear_std * wide * draws.normal(size=2)
    rotation = jnp.array([[cos, -sin], [sin, cos]])
    affine = jnp.array([[scale[0], shear[0]], [shear[1], scale[1]]])
    tilt = style.tilt_std * wide * draws.normal(size=2)
    return rotation @ affine, tilt


def _word_to_image(view_matrix, tilt, xy):
    """The inverse of the view's homography for points `... 2`, kept clear of its horizon."""
    (a, b), (c, d) = view_matrix
    x, y = xy[..., 0], xy[..., 1]
    det = a * d - b * c
    px, py = (d * x - b * y) / det, (a * y - c * x) / det
    depth = jnp.maximum(1 - tilt[0] * px - tilt[1] * py, 0.35)
    return px / depth, py / depth


def _pen_positions(draws: Draws, style: Style, used, size, left, ink, advance):
    """x of every letter's origin: ink widths and gaps, or the font's own advances; the first letter at 0."""
    first, second = draws.gamma(2), draws.gamma(5)
    gap = jnp.floor(style.gap * first / (first + second))  # Beta(2, 5) from two gammas
    jitter = jnp.where(draws.chance(style.kerning_share), style.kerning_std * draws.normal(size=used.shape[0]), 0.0)
    apart = jnp.where(draws.chance(style.apart_share), draws.uniform(*style.apart), 0.0) * size[0]
    step = jnp.where(used, ink * size + gap * (1 + jitter) + apart, 0.0)
    start = jnp.cumsum(step) - step - left * size  # each ink begins where the previous ink and gap end
    own_step = jnp.where(used, advance * size * (1 + 0.5 * jitter) + apart, 0.0)
    own_start = jnp.cumsum(own_step) - own_step
    return jnp.where(draws.chance(style.advance_share), own_start, start)


def _curve(draws: Draws, style: Style, used, length, size):
    """Offset down the page and turn (radians) of every letter of a curved baseline; zeros for most words."""
    curved = draws.chance(style.curve_share) & (length > 1)
    bend = jnp.where(curved, style.curve_std * draws.normal(), 0.0)
    k = jnp.arange(used.shape[0]) - length // 2
    steps = jnp.abs(k).astype(jnp.float32)
    # Counted from the middle, letter k is bend * k^2 lower than the one before it: a sum of squares.
    drop = bend * steps * (steps + 1) * (2 * steps + 1) / 6
    mean_drop = jnp.sum(jnp.where(used, bend * steps**2, 0.0)) / jnp.maximum(length - 1, 1)
    drop = jnp.where(k == 0, -mean_drop, drop)
    return drop, jnp.arctan(4 * bend * k / size)


def _letter_sizes(draws: Draws, style: Style, glyphs, size):
    """Size of every letter; in some words the capitals after the first letter are small capitals."""
    in_capitals = (glyphs[1] >= CAPITALS[0]) & (glyphs[1] <= CAPITALS[1])
    factor = jnp.where(in_capitals & draws.chance(style.small_caps_share), draws.uniform(*style.small_caps), 1.0)
    return size * jnp.where(jnp.arange(glyphs.shape[0]) > 0, factor, 1.0)


def _neighbour_shift(draws: Draws, style: Style, size, width):
    """Shift to another word of about this `width`, on the line above or below or beside this one; FAR for none."""
    side = jnp.where(draws.chance(0.5), -1.0, 1.0)
    line = jnp.stack([draws.uniform(-1.5, 1.5), side * draws.uniform(*style.line_height)]) * size
    beside = jnp.stack([side * (width + draws.uniform(0.2, 0.6) * size), jnp.zeros(())])
    shift = jnp.where(draws.chance(0.7), line, beside)
    return jnp.where(draws.chance(style.neighbour_share), shift, FAR)


def _ink_box(corners, used: Bool[Array, " L"]):
    """(low, high) of `corners` (two arrays `L 4`, x and y) over the used letters: two vectors of two."""
    low = jnp.stack([jnp.min(jnp.where(used[:, None], axis, FAR)) for axis in corners])
    high = jnp.stack([jnp.max(jnp.where(used[:, None], axis, -FAR)) for axis in corners])
    return low, high


def _crop(low, high, margin, aspect: float | None, matrix, tilt) -> tuple[View, Float[Array, ""]]:
    """The view of the ink's box plus margin, widened rightwards to `aspect`; and the share of it that the box fills."""
    centre, extent = (low + high) / 2, jnp.maximum(high - low + margin, 8.0)
    if aspect is None:
        return View(centre, extent, matrix, tilt), jnp.ones(())
    width = jnp.maximum(extent[0], aspect * extent[1])
    centre = jnp.stack([centre[0] + (width - extent[0]) / 2, centre[1]])
    return View(centre, jnp.stack([width, extent[1]]), matrix, tilt), extent[0] / width


def lay_out(
    draws: Draws,
    bank: Bank,
    glyphs: Int[Array, " L"],
    length: Int[Array, ""],
    bordered: Bool[Array, ""],
    *,
    style: Style,
    aspect: float | None = None,
) -> Layout:
    """Set one word, the first `length` of `glyphs` (ids of the bank), in a random font and choose a view of it.

    `bordered` words get a second layer of ink: an outline, an inset or a shadow. `aspect` is the image's width over
    its height if letters are to keep their proportions: a shorter word then has more ground to its right. None
    stretches every word to the image.
    """
    fonts, per_font, cell, _ = bank.texels.shape
    used = jnp.arange(glyphs.shape[0]) < length
    index = draws.choice(fonts) * per_font + jnp.where(used, glyphs, 0)
    per_em, left, top, bottom, ink, advance = _keep(bank.metrics.reshape(-1, 6)[index].T)

    size = jnp.clip(style.size_mean + style.size_std * draws.normal(), 34.0, 92.0)
    weight = jnp.where(draws.chance(style.bold_share), draws.uniform(*style.bold_width), 0.0) * size / 2
    slope = jnp.where(draws.chance(style.oblique_share), style.oblique_slope, 0.0)
    sizes = _letter_sizes(draws, style, glyphs, size)
    start = _keep(_pen_positions(draws, style, used, sizes, left, ink, advance))
    drop, turn = _curve(draws, style, used, length, size)
    middle = length // 2
    origin_x = start - (start[middle] + (left[middle] + ink[middle] / 2) * sizes[middle])
    mid_height = (top[middle] + bottom[middle]) / 2 * sizes[middle]
    origin_y = drop + mid_height
    origin_x, origin_y, cos, sin = _keep((origin_x, origin_y, jnp.cos(turn), jnp.sin(turn)))

    # Outline, inset or shadow: two layers of the same glyphs with different radii.
    border = jnp.maximum(1.0, jnp.floor(style.border_width[0] + style.border_width[1] * draws.normal()))
    outset = draws.chance(0.5)
    direction = jnp.array([[0.0, 0.0], [1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])[draws.choice(5)]
    shift = jnp.where(outset, direction * draws.uniform(size=2) * border / 1.5, 0.0)
    radius = jnp.where(bordered, (border - 1) / 2, 0.0)
    shift = jnp.where(bordered, shift, 0.0)
    lower_radius = weight + jnp.where(outset, radius, 0.0)
    upper_radius = weight - jnp.where(outset, 0.0, radius)
    grow = lower_radius + jnp.max(jnp.abs(shift))

    underlined = draws.chance(style.underline_share)
    line_y, line_half = 0.16 * size, 0.0175 * size

    # The corners of every letter's ink, in the letter's own axes, then in the word plane, then in the image plane.
    x0, x1 = left * sizes - grow, (left + ink) * sizes + grow
    y0, y1 = -top * sizes - grow, -bottom * sizes + grow
    y1 = jnp.where(underlined, jnp.maximum(y1, line_y + 2 * line_half), y1)
    x, y = jnp.stack([x0, x1, x0, x1], -1), jnp.stack([y0, y0, y1, y1], -1)
    x = x - slope * y
    word_x = origin_x[:, None] + cos[:, None] * x - sin[:, None] * y
    word_y = origin_y[:, None] + sin[:, None] * x + cos[:, None] * y
    matrix, tilt = _keep(_view_matrix(draws, style))
    low, high = _ink_box(_word_to_image(matrix, tilt, jnp.stack([word_x, word_y], -1)), used)
    margin = jnp.maximum(style.margin_mean + style.margin_std * draws.normal(size=2), style.margin_min)
    view, filled = _crop(low, high, margin, aspect, matrix, tilt)

    # Word plane -> cell: turn back, undo the slant, scale to texels; the ink's top left is at (SPREAD, SPREAD).
    texels = per_em / sizes
    xx, xy = texels * (cos - slope * sin), texels * (sin + slope * cos)
    yx, yy = -texels * sin, texels * cos
    x_start = SPREAD - left * per_em - (xx * origin_x + xy * origin_y)
    y_start = SPREAD + top * per_em - (yx * origin_x + yy * origin_y)
    soft = style.soft_edges * jnp.sqrt(draws.normal() ** 2 + 0.5 * draws.normal() ** 2 + 0.35)
    soft = soft + style.soft_edges * jnp.where(draws.chance(0.1), draws.uniform(0.0, 1.5), 0.0)
    word_left = jnp.min(jnp.where(used, origin_x + left * sizes, FAR))
    word_right = jnp.max(jnp.where(used, origin_x + (left + ink) * sizes, -FAR))
    return Layout(
        view=view,
        cell_maps=jnp.stack([xx, xy, x_start, yx, yy, y_start]),
        cell_starts=index * (cell * cell),
        centres=jnp.where(used, origin_x + (left + ink / 2) * sizes, FAR),
        pixels_per_texel=size / jnp.max(jnp.where(used, per_em, 0.0)),
        softness=soft,
        lower_radius=lower_radius,
        lower_shift=shift,
        upper_radius=upper_radius,
        filled=filled,
        underline=jnp.stack([jnp.where(underlined, word_left, FAR), word_right, mid_height + line_y, line_half]),
        neighbour_shift=_neighbour_shift(draws, style, size, word_right - word_left),
    )
