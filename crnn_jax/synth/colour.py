"""Grey levels: how the layers of a word are filled and blended. All values are 0 to 1."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from crnn_jax.synth.draws import Draws
from crnn_jax.synth.style import Style

FAR = 1e4  # pixels: beyond every image


class Fill(NamedTuple):
    """One layer's colour and the texture blended into it."""

    level: Float[Array, ""]
    texture: Int[Array, ""]  # index of the texture's first pixel in the flat bank of textures
    amount: Float[Array, ""]  # of the texture
    mode: Int[Array, ""]
    texture_below: Bool[Array, ""]


class Edge(NamedTuple):
    """The edge of a panel, or a line of a frame, in the image's pixels."""

    normal: Float[Array, "2"]  # x and y, of length 1; points beyond the edge
    distance: Float[Array, ""]  # of the edge from the image's middle, along the normal; FAR without one
    thickness: Float[Array, ""]  # of a line; FAR if everything beyond the edge is another panel
    level: Float[Array, ""]


class Look(NamedTuple):
    """The colours of one word."""

    ground: Fill
    ink: Fill
    border: Fill
    ink_mode: Int[Array, ""]
    border_mode: Int[Array, ""]
    rescue: Float[Array, ""]  # extra contrast for ink that would be invisible
    edges: tuple[Edge, Edge]


def _draw_fill(draws: Draws, level, textures_shape, size, plain, style: Style) -> Fill:
    count, tall, wide = textures_shape
    row, column = draws.choice(max(tall - size[0], 0) + 1), draws.choice(max(wide - size[1], 0) + 1)
    texture = (draws.choice(count) * tall + row) * wide + column
    amount = jnp.where(plain, 0.0, jnp.minimum(jnp.abs(style.blend_std * draws.normal()), 1.0))
    # With an amount of 0 the colour stays as it is in every mode, if the texture is the upper of the two.
    return Fill(level, texture, amount, jnp.where(plain, 0, draws.choice(5)), plain | draws.chance(0.5))


def _draw_edge(draws: Draws, size, style: Style) -> Edge:
    """Along one of the four sides, slightly rotated, up to 0.3 of the image's height inside it."""
    height, width = size
    along = draws.chance(0.6)  # the upper or lower side, rather than the left or right one
    angle = jnp.deg2rad(8.0) * draws.normal() + jnp.where(along, jnp.pi / 2, 0.0)
    angle = angle + jnp.where(draws.chance(0.5), jnp.pi, 0.0)
    distance = jnp.where(along, height, width) / 2 - height * draws.uniform(-0.02, 0.3)
    thickness = jnp.where(draws.chance(0.5), draws.uniform(0.8, 3.0), FAR)
    distance = jnp.where(draws.chance(style.edge_share), distance, FAR)
    return Edge(jnp.stack([jnp.cos(angle), jnp.sin(angle)]), distance, thickness, draws.uniform())


def lay_edge(edge: Edge, ground: Float[Array, "H W"]) -> Float[Array, "H W"]:
    """The ground with the panel or line over it."""
    height, width = ground.shape
    x = (jnp.arange(width) - (width - 1) / 2)[None, :]
    y = (jnp.arange(height) - (height - 1) / 2)[:, None]
    beyond = edge.normal[0] * x + edge.normal[1] * y - edge.distance
    cover = jnp.clip(0.5 + jnp.minimum(beyond, edge.thickness - beyond), 0.0, 1.0)
    return ground + cover * (edge.level - ground)


def draw_look(draws: Draws, textures: UInt8[Array, "N h w"], *, size: tuple[int, int], style: Style) -> Look:
    """Draws the colours: ground and ink as a well-separated, bimodal pair, the border independently."""
    plain = draws.chance(style.plain_share)
    ground = draws.uniform() ** 0.75
    apart = 0.05 + 0.26 * jnp.abs(draws.normal()) + jnp.where(plain, style.min_contrast, 0.0)
    ink = ground + jnp.where(draws.chance(0.5), -apart, apart)
    ink = jnp.where(ink < 0, ground + apart, jnp.where(ink > 1, ground - apart, ink))
    levels = (ground, jnp.clip(ink, 0.0, 1.0), draws.uniform())
    fills = [_draw_fill(draws, level, textures.shape, size, plain, style) for level in levels]
    modes = [jnp.where(plain, 0, draws.choice(5)) for _ in range(2)]
    rescue = 0.03 + draws.uniform(0.0, 0.1)
    return Look(*fills, *modes, rescue, (_draw_edge(draws, size, style), _draw_edge(draws, size, style)))


def blend(mode: Int[Array, ""], source, alpha, ground) -> Float[Array, "H W"]:
    """`source` with coverage `alpha` over an opaque ground: normal, add, inverted multiply, screen or maximum.

    These are the five modes that Synth90k's generator uses.
    """
    over, under = source * alpha, ground * (1 - alpha)
    choices = (
        over + under,
        jnp.minimum(over + ground, 1.0),
        (1 - over) * under,
        1 - (1 - over) * (1 - under),
        jnp.maximum(over, under),
    )
    result = choices[0]
    for k in range(1, 5):
        result = jnp.where(mode == k, choices[k], result)
    return result


def _mirrored(n: int, length: int) -> Int[Array, " n"]:
    """Indices of n consecutive pixels in a texture of `length`, mirrored at its ends so that there is no seam."""
    place = jnp.arange(n)
    return jnp.abs((place + length - 1) % (2 * length - 2) - (length - 1)) if n > length else place


def paint(fill: Fill, textures: UInt8[Array, "N h w"], size: tuple[int, int]) -> Float[Array, "H W"]:
    """A layer's grey levels: its colour blended with a crop of a texture."""
    _, tall, wide = textures.shape
    row, column = _mirrored(size[0], tall), _mirrored(size[1], wide)
    texture = textures.reshape(-1).at[fill.texture + row[:, None] * wide + column[None, :]]
    texture = texture.get(mode="promise_in_bounds").astype(jnp.float32) / 255
    source = jnp.where(fill.texture_below, texture, fill.level)
    amount = jnp.where(fill.texture_below, fill.amount, 1 - fill.amount)
    return jnp.clip(blend(fill.mode, source, amount, jnp.where(fill.texture_below, fill.level, texture)), 0.0, 1.0)


def contrast(image: Float[Array, "H W"], alpha: Float[Array, "H W"]) -> Float[Array, ""]:
    """The mean level under the ink minus the mean around it."""
    inside = jnp.sum(alpha)
    total, under = jnp.sum(image), jnp.sum(image * alpha)
    return under / (inside + 1e-3) - (total - under) / (image.size - inside + 1e-3)


def compose(
    look: Look,
    textures: UInt8[Array, "N h w"],
    lower: Float[Array, "H W"],
    upper: Float[Array, "H W"] | None,
    *,
    style: Style,
) -> Float[Array, "H W"]:
    """The word's image before the camera: ground, the lower layer of ink and, for bordered words, the upper one.

    Synth90k's generator discards samples until the contrast is large enough; here ink that would be invisible is
    laid on again in normal mode and, if that is not enough, pushed to a visible level.
    """
    size = lower.shape
    ground = paint(look.ground, textures, size)
    if style.edge_share > 0:
        for edge in look.edges:
            ground = lay_edge(edge, ground)
    ink = paint(look.ink, textures, size)
    if upper is None:
        image = blend(look.ink_mode, ink, lower, ground)
        visible = jnp.abs(contrast(image, lower))
    else:
        # The upper layer carries the word's ink, the lower one its border.
        border = paint(look.border, textures, size)
        image = blend(look.ink_mode, ink, upper, blend(look.border_mode, border, lower, ground))
        rim = jnp.clip(lower - upper, 0.0, 1.0)
        visible = jnp.maximum(jnp.abs(contrast(image, lower)), jnp.abs(contrast(image, rim)))
    needed = jnp.maximum(style.min_contrast, 0.6 * jnp.std(ground))
    lost = visible < needed
    again = blend(jnp.int32(0), ink, lower, ground)
    have = contrast(again, lower)
    wanted = jnp.where(jnp.mean(ground) > 0.5, -1.0, 1.0) * (needed + look.rescue)
    push = jnp.where(jnp.abs(have) < needed, wanted - have, 0.0)
    return jnp.clip(jnp.where(lost, again + push * lower, image), 0.0, 1.0)
