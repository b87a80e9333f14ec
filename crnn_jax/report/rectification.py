"""Draws what a spatial transformer does to an image, with NumPy and Pillow: where it samples, and the result.

Over the input lie the frame and some lines of the sampling grid, in blue, and its edge points, in orange: the fiducial
points of a tps, or the corners of an affine transform; dots along the upper edge, rings along the lower one.
"""

from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from crnn_jax.stn import edge_points, parameter_grid

GRID, POINTS, PAPER, INK, HAIRLINE = (0, 150, 230), (255, 98, 20), (252, 251, 249), (34, 38, 43), (190, 188, 182)
CELL = 8  # image pixels between two lines of the grid, roughly
ROOM = (3, 16)  # image pixels left free around the image, at least and at most
FINE = 4  # drawn so many times larger, then reduced, for smooth lines


def draw_grid(
    image: UInt8[np.ndarray, "H W"],
    parameters: Float[np.ndarray, " P"],
    *,
    kind: str,
    room: int | None = None,
    scale: int = 3,
    clear: bool = False,
) -> UInt8[np.ndarray, "rows columns channels"]:
    """The enlarged image, overlaid with the grid and the points that the parameters of its transform describe.

    Args:
        image: what the transformer resamples or, if that is features, the image that they were computed from.
        parameters: of its transform; see `crnn_jax.stn`.
        kind: affine | tps.
        room: image pixels left free on every side, to show what lies outside the image; None: as many as needed,
            within ROOM.
        scale: pixels drawn for each pixel of the image.
        clear: make the room around the image transparent, for a page that is light or dark.

    Returns:
        RGB, or RGBA if `clear`, of `scale` (H + 2 room) by `scale` (W + 2 room) pixels.
    """
    grid, points = _placed(parameters, kind=kind, size=image.shape)
    room = _room(grid, points, image.shape) if room is None else room
    height, width = ((n + 2 * room) * scale for n in image.shape)
    page = Image.new("RGBA", (width, height), (*PAPER, 0 if clear else 255))
    _place_image(page, image, (room * scale, room * scale), scale)

    # Pixel centres are at the integers: the first pixel of the image covers room * scale .. (room + 1) * scale.
    unit = scale * FINE
    grid, points = ((xy + 0.5 + room) * unit for xy in (grid, points))
    inner = _lines(grid)[1:-1] + _lines(grid.swapaxes(0, 1))[1:-1]
    frame = np.concatenate([grid[0], grid[1:, -1], grid[-1, -2::-1], grid[-2::-1, 0]])
    lower = points[len(points) // 2 :]
    # Each point gets a white disc, which sets it apart from the frame below it.
    for colour, lines, line_width, dots, radius in (
        (GRID, inner, 0.25, [], 0),
        (GRID, [frame], 0.6, [], 0),
        (PAPER, [], 0, points, 1.35),
        (POINTS, [], 0, points, 1.0),
        (PAPER, [], 0, lower, 0.5),
    ):
        mask = Image.new("L", (width * FINE, height * FINE))
        draw = ImageDraw.Draw(mask)
        for line in lines:
            draw.line([tuple(xy) for xy in line], fill=255, width=round(line_width * unit), joint="curve")
        for x, y in dots:
            draw.ellipse((x - radius * unit, y - radius * unit, x + radius * unit, y + radius * unit), fill=255)
        page.paste((*colour, 255), mask=mask.reduce(FINE))
    return np.asarray(page if clear else page.convert("RGB"))


def draw_example(
    image: UInt8[np.ndarray, "H W"],
    parameters: Float[np.ndarray, " P"],
    *,
    kind: str,
    rectified: UInt8[np.ndarray, "h w"] | None = None,
    caption: str = "",
    room: int | None = None,
    scale: int = 3,
) -> UInt8[np.ndarray, "rows columns 3"]:
    """`draw_grid`, with the rectified image, if any, below it at the same scale, and an ASCII caption."""
    above = draw_grid(image, parameters, kind=kind, room=room, scale=scale)
    margin = (above.shape[1] - scale * image.shape[1]) // 2
    below = 0 if rectified is None else scale * (len(rectified) + 2)
    page = Image.new("RGB", (above.shape[1], len(above) + below + (12 if caption else 2) * scale), PAPER)
    page.paste(Image.fromarray(above))
    if rectified is not None:
        _place_image(page, rectified, (margin, len(above)), scale)
    text = caption.encode("ascii", "replace").decode()
    font = ImageFont.load_default(4.5 * scale)
    ImageDraw.Draw(page).text((margin, len(above) + below), text, fill=INK, font=font)
    return np.asarray(page)


def draw_sheet(
    images: Sequence[UInt8[np.ndarray, "_ _"]] | UInt8[np.ndarray, "B _ _"],
    parameters: Sequence[Float[np.ndarray, " P"]] | Float[np.ndarray, "B P"],
    captions: Sequence[str],
    *,
    kind: str,
    rectified: Sequence[UInt8[np.ndarray, "_ _"]] | UInt8[np.ndarray, "B _ _"] | None = None,
    columns: int = 3,
    scale: int = 3,
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Examples in rows of `columns`, all with the room that the farthest-reaching one needs."""
    sizes = [image.shape for image in images]
    room = max(_room(*_placed(p, kind=kind, size=size), size) for p, size in zip(parameters, sizes, strict=True))
    drawn = [
        draw_example(
            image,
            parameters[i],
            kind=kind,
            rectified=None if rectified is None else rectified[i],
            caption=captions[i],
            room=room,
            scale=scale,
        )
        for i, image in enumerate(images)
    ]
    height, width, _ = np.max([example.shape for example in drawn], axis=0)
    page = np.empty((-(-len(drawn) // columns) * height, columns * width, 3), np.uint8)
    page[:] = PAPER
    for i, example in enumerate(drawn):
        top, left = i // columns * height, i % columns * width
        page[top : top + example.shape[0], left : left + example.shape[1]] = example
    return page


def enlarged(grey: UInt8[np.ndarray, "h w"], *, scale: int = 3) -> Image.Image:
    """The image enlarged `scale` times."""
    height, width = grey.shape
    return Image.fromarray(grey).resize((width * scale, height * scale), Image.Resampling.BICUBIC)


def _place_image(page: Image.Image, grey: np.ndarray, corner: tuple[int, int], scale: int) -> None:
    """Enlarges an image onto the page, in a hairline frame that sets bright images apart from the paper."""
    image = enlarged(grey, scale=scale)
    frame = (corner[0] - 1, corner[1] - 1, corner[0] + image.width, corner[1] + image.height)
    ImageDraw.Draw(page).rectangle(frame, outline=HAIRLINE)
    page.paste(image, corner)


def _lines(grid: Float[np.ndarray, "n m 2"]) -> list[Float[np.ndarray, "m 2"]]:
    """Rows of the grid about CELL apart, including the first and the last."""
    count = max(round(len(grid) / CELL), 1) + 1
    return [grid[i] for i in np.rint(np.linspace(0, len(grid) - 1, count)).astype(int)]


def _room(grid, points, size) -> int:
    """Pixels needed around an image of `size` to show what lies outside it, and a point's radius; within ROOM."""
    xy = np.concatenate([grid.reshape(-1, 2), points])
    beyond = np.max([-xy.min(axis=0), xy.max(axis=0) - np.array(size[::-1]) + 1])
    least, most = ROOM
    return int(np.clip(np.ceil(beyond) + 2, least, most))


def _placed(parameters, *, kind, size) -> tuple[np.ndarray, np.ndarray]:
    """The grid (`H W 2`) and the edge points (`F 2`) in pixels of an image of `size`."""
    grid, points = jax.device_get(_grid_and_points(parameters, kind=kind, size=tuple(size)))
    return grid, (points + 1) * (np.array(size[::-1]) - 1) / 2


@partial(jax.jit, static_argnames=("kind", "size"))
def _grid_and_points(parameters, *, kind, size):
    grid = parameter_grid(parameters, kind=kind, out_size=size, in_size=size)
    return grid, edge_points(parameters, kind=kind, corners=4)
