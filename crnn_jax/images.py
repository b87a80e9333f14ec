"""How every image is loaded: decoded, made grey, fitted to the model's size. NumPy and Pillow, on the host.

Images stay uint8 until they are on the device; the model itself normalises them.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

ImageSource = str | os.PathLike | bytes | BinaryIO | Image.Image | np.ndarray | jax.Array
TALL = 1.5  # height / width above which the word may run up or down


class ImageError(ValueError):
    """An image that cannot be read; the message is one line that names it."""


def load_image(source: ImageSource, *, name: str | None = None) -> UInt8[np.ndarray, "H W"]:
    """Loads `source` in grey: a path, an encoded file (open or as bytes), a Pillow image, or a uint8 array.

    Any mode that Pillow can convert to grey is read: transparency is laid over white, EXIF orientation is applied, more
    than 8 bits are scaled to 8 (see `_to_8_bits`), the first of several frames is taken. Arrays are [H,W], [H,W,1], RGB
    [H,W,3] or RGBA [H,W,4]. `name` stands for the image in messages; by default it is the path. Raises ImageError.
    """
    if isinstance(source, Image.Image):
        name = name or getattr(source, "filename", "") or "image"
        return _decode(source, name)
    if isinstance(source, np.ndarray | jax.Array):
        name = name or "array"
        return _decode(_from_array(np.asarray(source), name), name)
    if hasattr(source, "read"):  # an open file
        name = name or str(getattr(source, "name", "")) or None
        source = source.read()
        if not isinstance(source, bytes):
            raise ImageError(f"{name or 'image'}: the file is open in text mode: expected binary mode")
    if not isinstance(source, bytes):
        try:
            name = name or os.fspath(source)
            source = Path(os.path.expanduser(source)).read_bytes()
        except TypeError:
            expected = "a path, an encoded file, a Pillow image or an array"
            raise ImageError(f"{source!r:.60}: expected {expected}, not {type(source).__name__}") from None
        except OSError as error:  # missing, a folder, not permitted
            raise ImageError(f"{name}: {error.strerror}") from None
        except ValueError as error:  # a null character
            raise ImageError(f"{name!r}: {error}") from None
    return _decode(io.BytesIO(source), name or "image")


def check_list(images) -> None:
    """Raises TypeError for one image in place of a list."""
    is_one = isinstance(images, str | bytes | os.PathLike | Image.Image) or hasattr(images, "read")
    if isinstance(images, np.ndarray | jax.Array) and images.dtype == np.uint8:
        # An array [B,H,W] is a list; [H,W] and [H,W,1|3|4] are not.
        is_one = images.ndim < 3 or images.ndim == 3 and images.shape[-1] in (1, 3, 4)
    if is_one:
        raise TypeError("expected a list of images, even for one: [image]")


def image_size(encoded: bytes, *, name: str) -> tuple[int, int]:
    """The height and width in pixels of an encoded image as `load_image` loads it, by its header. Raises ImageError."""
    with _opened(io.BytesIO(encoded), name) as image:
        # Pillow would decode all of a PNG that has none of these, to look behind its pixels; a TIFF's size is turned
        # already.
        named = image.info.keys() & {"exif", "Raw profile type exif", "XML:com.adobe.xmp"}
        may_turn = image.format != "TIFF" and (image.format != "PNG" or bool(named))
        is_turned = may_turn and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return image.size if is_turned else image.size[::-1]


def fit_image(
    grey: UInt8[np.ndarray, "H W"], *, height: int, width: int, fit: str = "resize", max_width: int = 400
) -> UInt8[np.ndarray, "h w"]:
    """`grey` at the size that a model takes: `height` x `width`, or for fit="pad" `height` x one of the buckets.

    resize: stretched, as in Shi et al. 2015 (section 3.2). pad: scaled to `height` with its aspect ratio kept, squeezed
    only if it would be wider than `max_width`, then its last column is repeated up to `bucket_width`.

    Bicubic with antialiasing (Pillow widens the kernel by the reduction factor): the field's usual recognisers
    (deep-text-recognition-benchmark, PARSeq) resize this way, and strokes of small crops stay sharper than with
    bilinear.
    """
    if fit == "resize":
        return _resize(grey, height, width)
    if fit != "pad":
        raise ValueError(f"fit = {fit!r}: expected resize or pad")
    natural = max(1, round(grey.shape[1] * height / grey.shape[0]))
    scaled = _resize(grey, height, min(natural, max_width))
    padding = bucket_width(scaled.shape[1], narrowest=width, widest=max_width) - scaled.shape[1]
    # Repeating the edge adds no edge of its own, as a constant would.
    return np.pad(scaled, ((0, 0), (0, padding)), mode="edge")


def add_margin(grey: UInt8[np.ndarray, "H W"], pixels: int) -> UInt8[np.ndarray, "h w"]:
    """An image extended by `pixels` on all sides by repeating its edge; if negative, cropped, to at least one pixel."""
    if pixels == 0:
        return grey
    if pixels > 0:
        return np.pad(grey, pixels, mode="edge")
    rows, columns = (min(-pixels, (size - 1) // 2) for size in grey.shape)
    return grey[rows : grey.shape[0] - rows, columns : grey.shape[1] - columns]


def is_tall(size: tuple[int, int]) -> bool:
    """Whether an image of this height and width is so much higher than wide that its word may run up or down."""
    return size[0] > TALL * size[1]


def bucket_width(width: int, *, narrowest: int, widest: int) -> int:
    """The width that an image of `width` is padded to: a multiple of `narrowest`, or `widest` where that is less.

    Few buckets, since the model is compiled for each of them: four for 100 and 400.
    """
    return min(-(-width // narrowest) * narrowest, widest)


def _decode(source: Image.Image | io.BytesIO, name: str) -> UInt8[np.ndarray, "H W"]:
    if isinstance(source, Image.Image):
        with _image_errors(name):
            return _grey(source)
    with _opened(source, name) as image:
        # Only the luma of a colour JPEG, which is its grey: this saves a third of the decoder's work.
        image.draft("L", image.size)
        return _grey(image)


@contextmanager
def _opened(source: io.BytesIO, name: str) -> Iterator[Image.Image]:
    """An encoded image, its header read; whatever Pillow raises from here on becomes an ImageError."""
    with _image_errors(name, is_empty=not source.getbuffer().nbytes), Image.open(source) as image:
        # Pillow warns above its limit and refuses above twice that; images of words are far below. (Turning the warning
        # into an error would not work with several threads: warning filters belong to the process.)
        if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError
        yield image


@contextmanager
def _image_errors(name: str, *, is_empty: bool = False) -> Iterator[None]:
    try:
        yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ImageError(f"{name}: larger than {Image.MAX_IMAGE_PIXELS} pixels") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: {'empty' if is_empty else 'not an image of a known format'}") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise ImageError(f"{name}: does not decode: {' '.join(str(error).split())}") from error


def _grey(image: Image.Image) -> UInt8[np.ndarray, "H W"]:
    if 0 in image.size:
        raise ValueError("it has no pixels")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return _to_8_bits(np.asarray(image), tops=[65535])
    if image.mode == "I":
        return _to_8_bits(np.asarray(image), tops=[255, 65535])
    if image.mode == "F":
        return _to_8_bits(np.asarray(image), tops=[1, 255, 65535])
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")  # not every mode converts to L directly
    return np.array(image if image.mode == "L" else image.convert("L"))


def _to_8_bits(values: np.ndarray, tops: list[int]) -> UInt8[np.ndarray, "H W"]:
    """Values scaled to 0 .. 255 from 0 .. the first of `tops` that none exceeds, or else from their own range.

    The range of 16 bit images is known; that of 32 bit integers and floats has to be guessed from the values.
    """
    values = values.astype(np.float64)
    values = np.nan_to_num(values, posinf=np.max(values, where=np.isfinite(values), initial=0), neginf=0)
    low, high = values.min(), values.max()
    if low >= 0 and high <= tops[-1]:
        low, high = 0, next(top for top in tops if high <= top)
    return np.rint((values - low) * 255 / ((high - low) or 1)).astype(np.uint8)


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f"{name}: expected uint8 values, got {array.dtype}")
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)):
        raise ImageError(f"{name}: expected shape [H,W], [H,W,1], [H,W,3] or [H,W,4], got {list(array.shape)}")
    if array.size == 0:
        raise ImageError(f"{name}: empty, of shape {list(array.shape)}")
    return Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)


def _resize(grey: UInt8[np.ndarray, "H W"], height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    return np.array(Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC))
