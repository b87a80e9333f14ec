import inspect
import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from crnn_jax.images import ImageError, add_margin, bucket_width, fit_image, image_size, load_image

GRADIENT = np.linspace(0, 255, 6 * 40).reshape(6, 40).astype(np.uint8)


def png(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_an_open_file_is_read_and_a_home_is_found(tmp_path, monkeypatch):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(grey).save(tmp_path / "~word.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    with (tmp_path / "~word.png").open("rb") as file:
        np.testing.assert_array_equal(load_image(file), grey)
    with (tmp_path / "~word.png").open(encoding="latin-1") as file, pytest.raises(ImageError, match="in text mode"):
        inspect.unwrap(load_image)(file)
    np.testing.assert_array_equal(load_image("~/~word.png"), grey)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(load_image("~word.png"), grey)  # no user of that name


def test_grey_comes_through_unchanged_however_it_is_given(tmp_path):
    image = Image.fromarray(GRADIENT)
    path = tmp_path / "wörd.png"
    path.write_bytes(png(image))
    for source in (path, str(path), path.read_bytes(), image, Image.open(path), GRADIENT, jnp.asarray(GRADIENT)):
        grey = load_image(source)
        assert grey.dtype == np.uint8
        np.testing.assert_array_equal(grey, GRADIENT)


def test_colour_becomes_luma():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    expected = [[76, 150, 29, 255]]  # ITU-R 601-2
    np.testing.assert_allclose(load_image(colours), expected, atol=1)
    np.testing.assert_allclose(load_image(png(Image.fromarray(colours))), expected, atol=1)
    palette = Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_allclose(load_image(png(palette)), expected, atol=1)


def test_alpha_is_laid_over_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = [0, 128, 255]  # black, from clear to solid
    expected = [[255, 127, 0]]
    np.testing.assert_array_equal(load_image(rgba), expected)
    for mode in ("RGBA", "LA"):
        np.testing.assert_array_equal(load_image(png(Image.fromarray(rgba).convert(mode))), expected, err_msg=mode)
    # A palette holds black and grey; the black entry is clear.
    palette = Image.new("P", (3, 1))
    palette.putpalette([0, 0, 0, 90, 90, 90])
    palette.putdata([0, 1, 0])
    np.testing.assert_array_equal(load_image(png(palette, transparency=0)), [[255, 90, 255]])
    np.testing.assert_array_equal(load_image(png(palette, transparency=b"\x00\x80")), [[255, 172, 255]])
    # RGB and grey PNGs name one clear colour.
    np.testing.assert_array_equal(load_image(png(Image.fromarray(GRADIENT), transparency=0))[0, 0], 255)


def test_one_bit():
    np.testing.assert_array_equal(
        load_image(png(Image.fromarray(GRADIENT).convert("1", dither=0))), (GRADIENT > 127) * 255
    )


@pytest.mark.parametrize("byte_order", ["<u2", ">u2"])
def test_sixteen_bits_are_scaled_by_their_range(byte_order):
    deep = Image.fromarray(np.array([[0, 257, 1000, 65535]]).astype(byte_order))
    assert deep.mode.startswith("I;16")
    np.testing.assert_array_equal(load_image(deep), [[0, 1, 4, 255]])
    np.testing.assert_array_equal(load_image(png(Image.fromarray(np.array([[0, 65535]], np.uint16)))), [[0, 255]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 100, 255]], np.int32), [[0, 100, 255]]),
        (np.array([[0, 257, 65535]], np.int32), [[0, 1, 255]]),
        (np.array([[-100, 0, 100]], np.int32), [[0, 128, 255]]),
        (np.array([[70000, 70000]], np.int32), [[0, 0]]),
        (np.array([[0, 0.5, 1]], np.float32), [[0, 128, 255]]),
        (np.array([[0, 100, 200]], np.float32), [[0, 100, 200]]),
        (np.array([[np.nan, -1, 1]], np.float32), [[128, 0, 255]]),
    ],
)
def test_wide_integers_and_floats_are_scaled_by_the_range_they_fill(values, expected):
    image = Image.fromarray(values)
    assert image.mode in ("I", "F")
    np.testing.assert_array_equal(load_image(image), expected)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV"])
def test_other_colour_spaces(mode):
    image = Image.fromarray(GRADIENT).convert("RGB").convert(mode)
    np.testing.assert_allclose(load_image(image), GRADIENT, atol=2)


def test_cmyk_jpeg():
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 200, np.uint8)).convert("CMYK").save(buffer, "JPEG", quality=95)
    np.testing.assert_allclose(load_image(buffer.getvalue()), 200, atol=3)


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees, clockwise
    np.testing.assert_array_equal(load_image(png(Image.fromarray(GRADIENT), exif=exif)), np.rot90(GRADIENT, -1))


def test_of_an_animation_the_first_frame_is_read():
    frames = [Image.new("L", (4, 3), value) for value in (10, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(load_image(buffer.getvalue()), np.full((3, 4), 10))


@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_array_shapes(channels):
    array = np.full((5, 7, *channels), 255, np.uint8)
    np.testing.assert_array_equal(load_image(array), np.full((5, 7), 255))
    # A view with strides of its own, as slicing makes them.
    np.testing.assert_array_equal(load_image(array[::2, ::-1]), np.full((3, 7), 255))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2), np.float32), "array: expected uint8 values, got float32"),
        (np.zeros((2, 2), bool), "array: expected uint8 values, got bool"),
        (np.zeros((2, 2, 2), np.uint8), "got [2, 2, 2]"),
        (np.zeros((1, 2, 2, 3), np.uint8), "got [1, 2, 2, 3]"),
        (np.zeros(4, np.uint8), "got [4]"),
        (np.zeros((0, 4), np.uint8), "array: empty, of shape [0, 4]"),
        (np.zeros((4, 0, 3), np.uint8), "array: empty, of shape [4, 0, 3]"),
    ],
)
def test_arrays_that_are_no_images(array, message):
    with pytest.raises(ImageError) as error:
        load_image(array)
    assert message in str(error.value)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (32, 100)).astype(np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.png", None, "No such file or directory"),
        ("text.png", b"this is no picture\n", "not an image of a known format"),
        ("empty.png", b"", "empty"),
        ("cut.jpg", jpeg()[:-500], "does not decode: image file is truncated"),
        ("cut.png", png(Image.fromarray(GRADIENT))[:-30], "does not decode: "),
        ("head.jpg", jpeg()[:20], "not an image of a known format"),
    ],
)
def test_files_that_are_no_images_are_named_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError) as error:
        load_image(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(ImageError) as error:
        load_image(tmp_path)
    assert str(error.value) == f"{tmp_path}: Is a directory"


@pytest.mark.parametrize("limit", [300, 100])  # Pillow warns above its limit, and refuses above twice that
def test_a_decompression_bomb_is_refused(monkeypatch, limit):
    content = png(Image.new("L", (20, 20)))
    assert load_image(content).shape == (20, 20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ImageError, match=f"^bomb.png: larger than {limit} pixels$"):
        load_image(content, name="bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as notebooks silence Pillow's warning
    assert load_image(content).shape == (20, 20)


def test_a_pillow_image_that_cannot_be_read():
    with pytest.raises(ImageError, match="^image: does not decode: it has no pixels$"):
        load_image(Image.new("L", (0, 5)))
    with pytest.raises(ImageError, match="^lazy: does not decode: image file is truncated"):
        load_image(Image.open(io.BytesIO(jpeg()[:-500])), name="lazy")


@pytest.mark.parametrize("fit", ["resize", "pad"])
@pytest.mark.parametrize("shape", [(1, 1), (20, 4000), (4000, 20), (32, 100), (33, 1)])
def test_any_shape_fits(fit, shape):
    fitted = fit_image(np.full(shape, 77, np.uint8), height=32, width=100, fit=fit, max_width=400)
    assert fitted.dtype == np.uint8
    assert fitted.shape == (32, 400 if fit == "pad" and shape == (20, 4000) else 100)
    assert (fitted == 77).all()


def test_an_image_of_the_right_size_is_left_alone():
    grey = np.random.default_rng(0).integers(0, 256, (32, 100)).astype(np.uint8)
    np.testing.assert_array_equal(fit_image(grey, height=32, width=100), grey)
    np.testing.assert_array_equal(fit_image(grey, height=32, width=100, fit="pad"), grey)


def test_reducing_averages_instead_of_picking_pixels():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 400))  # as fine as can be
    fitted = fit_image(stripes, height=32, width=100)
    np.testing.assert_allclose(fitted[:, 2:-2], 127.5, atol=3)


def test_padding_keeps_the_aspect_and_repeats_the_last_column():
    grey = np.repeat(np.arange(64, dtype=np.uint8)[:, None], 120, axis=1)
    grey[:, :60] = 255
    fitted = fit_image(grey, height=32, width=100, fit="pad", max_width=400)
    assert fitted.shape == (32, 100)
    assert (fitted[:, :28] == 255).all()  # 120 columns became 60
    np.testing.assert_array_equal(fitted[:, 60:], np.repeat(fitted[:, 59:60], 40, axis=1))
    np.testing.assert_allclose(fitted[1:-1, 59], grey[::2, -1][1:-1] + 0.5, atol=1)


@pytest.mark.parametrize(("width", "bucket"), [(1, 100), (100, 100), (101, 200), (200, 200), (310, 350), (350, 350)])
def test_bucket_width(width, bucket):
    assert bucket_width(width, narrowest=100, widest=350) == bucket


def test_an_unknown_fit_is_named():
    with pytest.raises(ValueError, match="fit = 'crop': expected resize or pad"):
        fit_image(GRADIENT, height=32, width=100, fit="crop")


def test_a_margin_repeats_the_edge_or_is_cut_off():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(add_margin(image, 0), image)
    assert add_margin(image, 2).shape == (7, 8) and add_margin(image, 2)[:3, -3:].tolist() == [[3] * 3] * 3
    assert add_margin(image, -1).tolist() == [[5, 6]]
    assert add_margin(image, -5).tolist() == [[5, 6]]  # of three rows one is left, of four columns two


def test_a_size_is_read_from_the_header(monkeypatch):
    assert image_size(jpeg()[:-500], name="word.jpg") == load_image(jpeg()).shape
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x112] = orientation
        for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
            turned = io.BytesIO()
            Image.open(io.BytesIO(jpeg())).save(turned, kind, exif=exif)
            assert image_size(turned.getvalue(), name="word") == load_image(turned.getvalue()).shape
    with pytest.raises(ImageError, match=r"^word.jpg: not an image of a known format$"):
        image_size(b"nothing", name="word.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(ImageError, match=r"^word.jpg: larger than 2000 pixels$"):
        image_size(jpeg(), name="word.jpg")
