"""The drawings of what a spatial transformer does: everything lies where it should."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small import SMALL, load_script, noise_images, save_small

import crnn_jax
from crnn_jax.config import StnConfig
from crnn_jax.report.rectification import GRID, PAPER, POINTS, draw_example, draw_grid, draw_sheet
from crnn_jax.stn import parameter_grid, start_parameters

SIZE = HEIGHT, WIDTH = (16, 40)
ROOM, SCALE = 6, 4
IDENTITY = start_parameters(kind="affine")


def grey(level=128, size=SIZE):
    return np.full(size, level, np.uint8)


def drawn(parameters, *, kind="affine", image=None, **options):
    options = {"room": ROOM, "scale": SCALE} | options
    return draw_grid(grey() if image is None else image, np.float32(parameters), kind=kind, **options)


def at(page, x, y):
    """The page's colour at the centre of the image's pixel (x, y), given the room around it and the enlargement."""
    return page[round((y + 0.5 + ROOM) * SCALE), round((x + 0.5 + ROOM) * SCALE)].astype(int)


def like(colour, expected):
    return np.abs(colour[:3] - np.array(expected)).max() < 40


def extent(page, colour):
    """The first and last column and row, in pixels of the image, that have the colour."""
    rows, columns = np.nonzero(np.abs(page[..., :3].astype(int) - np.array(colour)).max(axis=-1) < 40)
    return [float((n + 0.5) / SCALE - ROOM - 0.5) for n in (columns.min(), columns.max(), rows.min(), rows.max())]


def test_the_frame_of_the_identity_runs_through_the_outermost_pixels():
    page = drawn(IDENTITY)
    assert page.shape == ((HEIGHT + 2 * ROOM) * SCALE, (WIDTH + 2 * ROOM) * SCALE, 3) and page.dtype == np.uint8
    for x, y in ((7, 0), (7, HEIGHT - 1), (0, 3), (WIDTH - 1, 3), (33, 0)):
        assert like(at(page, x, y), GRID)
    assert extent(page, GRID) == pytest.approx([0, WIDTH - 1, 0, HEIGHT - 1], abs=0.5)
    for x, y in ((0, 0), (WIDTH - 1, 0)):
        assert like(at(page, x, y), POINTS)
    for x, y in ((0, HEIGHT - 1), (WIDTH - 1, HEIGHT - 1)):  # rings
        assert like(at(page, x, y), PAPER) and like(at(page, x + 0.75, y), POINTS)
    assert like(at(page, 3, 2), grey()[0, :1]) and like(at(page, -3, 2), PAPER) and like(at(page, 3, -4), PAPER)


def test_a_shift_moves_the_grid_and_nothing_else():
    page = drawn(IDENTITY + np.array([0, 0, 2 * 5 / (WIDTH - 1), 0, 0, -2 * 4 / (HEIGHT - 1)]))
    assert extent(page, GRID) == pytest.approx([5, WIDTH - 1 + 5, -4, HEIGHT - 1 - 4], abs=0.5)
    assert like(at(page, 5, -4), POINTS)
    assert like(at(page, 2, 13), grey()[0, :1])  # the image is where it was


@pytest.mark.parametrize("scale", [4, 5])
def test_points_of_a_spline_lie_on_its_edges(scale):
    fiducials = start_parameters(kind="tps", fiducials=8).reshape(2, 4, 2)
    fiducials[..., 1] = [[-0.5, -0.8, -0.8, -0.5], [0.8, 0.5, 0.5, 0.8]]  # a bend
    page = drawn(fiducials.reshape(-1), kind="tps", scale=scale)
    half = (np.array([WIDTH, HEIGHT]) - 1) / 2
    for edge in range(2):
        for x, y in (fiducials[edge] + 1) * half + (0 if edge == 0 else np.array([0.75, 0])):
            row, column = (int((n + 0.5 + ROOM) * scale) for n in (y, x))
            assert like(page[row, column].astype(int), POINTS)
    grid = parameter_grid(jnp.asarray(fiducials.reshape(-1)), kind="tps", out_size=SIZE, in_size=SIZE)
    x, y = grid[0, 6]  # of the upper edge, between two points
    row, column = (int((n + 0.5 + ROOM) * scale) for n in (y, x))
    assert like(page[row, column].astype(int), GRID)


def test_the_room_is_what_the_grid_takes_and_is_seen_through_where_it_is_clear():
    sizes = [drawn(IDENTITY * scale, room=None, scale=1).shape[:2] for scale in (0.5, 1, 1.5, 100)]
    rooms = [(height - HEIGHT) // 2 for height, _ in sizes]
    assert rooms[0] == rooms[1] < rooms[2] < rooms[3] <= 16
    assert sizes == [(HEIGHT + 2 * room, WIDTH + 2 * room) for room in rooms]
    page = drawn(IDENTITY, clear=True)
    assert page.shape[-1] == 4 and at(page, -3, 3)[3] == 0
    assert all(at(page, x, y)[3] == 255 for x, y in ((3, 3), (7, 0), (0, 0)))


def test_an_example_has_the_rectified_image_beneath_and_a_caption():
    above = drawn(IDENTITY)
    options = {"kind": "affine", "room": ROOM, "scale": SCALE}
    alone = draw_example(grey(), IDENTITY, **options)
    whole = draw_example(grey(), IDENTITY, rectified=grey(40), caption="wörd", **options)
    for page in (alone, whole):
        np.testing.assert_array_equal(page[: len(above) - 1, :], above[:-1])
    inside = (slice(ROOM * SCALE, (ROOM + WIDTH) * SCALE),)
    assert np.all(whole[len(above) : len(above) + HEIGHT * SCALE, *inside] == 40)
    assert len(whole) == len(alone) + (HEIGHT + 2 + 10) * SCALE  # the image, a gap, and the line of the caption
    assert np.all(alone[len(above) + 2 :] == PAPER) and whole[len(above) + (HEIGHT + 1) * SCALE :].min() < 80


def test_a_sheet_has_rows_of_examples_of_one_size():
    parameters = np.stack([IDENTITY * scale for scale in (1, 1.2, 1, 1)])
    images = np.stack([grey(level) for level in (0, 80, 160, 240)])
    sheet = draw_sheet(images, parameters, list("abcd"), kind="affine", rectified=255 - images, columns=3)
    assert sheet.dtype == np.uint8 and sheet.shape[0] % 2 == sheet.shape[1] % 3 == 0
    height, width = sheet.shape[0] // 2, sheet.shape[1] // 3
    room = (width - 3 * WIDTH) // 2
    centre = (room + 3 * 6, room + 3 * 3)  # of a pixel between the lines
    got = [sheet[i // 3 * height + centre[0], i % 3 * width + centre[1], 0] for i in range(4)]
    np.testing.assert_allclose(got, [0, 80, 160, 240], atol=2)
    assert np.all(sheet[height:, width:] == PAPER)
    Image.fromarray(sheet)


def test_read_draws_what_the_transformer_does(tmp_path, capsys):
    stn = StnConfig(kind="affine", features=(4, 4))
    models = [save_small(tmp_path / name, replace(SMALL, stn=s)) for name, s in (("stn", stn), ("none", StnConfig()))]
    folder, target = tmp_path / "words", tmp_path / "sheet.png"
    folder.mkdir()
    for i, image in enumerate(noise_images(7)):
        Image.fromarray(image).save(folder / f"{i}.png")
    read = load_script("read").main
    assert read([str(folder), "--model", str(models[0]), "--rectified", str(target)]) == 0
    texts = [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()]
    reader = crnn_jax.load(models[0])
    images = [reader.fit(image) for image in noise_images(7)]
    transforms = reader.transform(images)
    options = {"kind": "affine", "columns": 6, "rectified": [transform.image for transform in transforms]}
    with Image.open(target) as page:
        drawn = draw_sheet(images, [transform.parameters for transform in transforms], texts, **options)
        np.testing.assert_array_equal(np.asarray(page), drawn)
    taken = folder / "0.png"
    assert read([str(folder), "--model", str(models[0]), "--rectified", str(taken)]) == 1
    assert capsys.readouterr().err == f"read.py: {taken} is an input: choose another file\n"
    assert read([str(folder), "--model", str(models[1]), "--rectified", str(target)]) == 1
    assert capsys.readouterr().err == f"read.py: --rectified: {models[1]} has no spatial transformer\n"


def test_a_sheet_of_images_of_several_widths():
    images = [grey(60), grey(200, (HEIGHT, 2 * WIDTH))]
    page = draw_sheet(images, [IDENTITY, IDENTITY], ["one", "two"], kind="affine", columns=1, scale=SCALE)
    height, width = len(page) // 2, page.shape[1]
    narrow, wide = (
        draw_example(image, IDENTITY, kind="affine", caption=text, scale=SCALE)
        for image, text in zip(images, ("one", "two"), strict=True)
    )
    assert wide.shape == (height, width, 3) and narrow.shape[1] < width
    np.testing.assert_array_equal(page[:height, : narrow.shape[1]], narrow)
    np.testing.assert_array_equal(page[height:], wide)
