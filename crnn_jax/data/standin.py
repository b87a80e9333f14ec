"""A stand-in for Synth90k's archive: rendered words in its layout, to test and time everything that reads it.

As in the original, images are 31 pixels high, as wide as their words, colour JPEGs of 1.6 KB (though these look grey)
and 300 to a folder, and 81, 9 and 10 % of them are for training, validation and test.
"""

import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image
from tqdm import tqdm

from crnn_jax.data.mjsynth import COUNTS, LEXICON, LISTS
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.whole import whole_folder
from crnn_jax.synth.bank import load_bank
from crnn_jax.synth.render import render
from crnn_jax.synth.style import MJSYNTH, Style
from crnn_jax.synth.words import GLYPHS, english_words

HEIGHT = 31  # pixels, as in 94 % of the original's images
CANVASES = ((8, 192), (11, 256), (24, 384))  # maximum letters, pixels: at most one word in a hundred is squeezed
BATCH = 256
QUEUE = 4  # batches rendered but not yet written
PER_FOLDER, PER_LEAF = 7, 300  # folders in a folder, images in one of those
QUALITY = 80


def write_stand_in(
    folder: str | os.PathLike,
    *,
    count: int = 200_000,
    words: Sequence[str] | None = None,
    style: Style = MJSYNTH,
    fonts: int = 0,
    seed: int = 0,
) -> dict[str, int]:
    """Renders `count` words on the device and writes them to `folder`; returns how many each split's list has.

    `words` is the lexicon: words of at most 24 letters and digits in lower case, by default the bundled list. Each
    image shows one of them at random, in lower, upper or title case. `fonts` is how many of the bundled fonts are used,
    0 for all. If interrupted, it leaves nothing behind. Raises DatasetError.
    """
    folder = Path(folder).absolute()
    lexicon = list(english_words() if words is None else words)
    longest = CANVASES[-1][0]
    for word in lexicon:
        if not (word.isascii() and word.isalnum() and len(word) <= longest):
            raise DatasetError(f"{word!r}: expected a word of 1 to {longest} letters and digits")
    if count < 1 or not lexicon:
        raise DatasetError(f"{count} images of {len(lexicon)} words: expected at least one of each")
    if seed < 0:
        raise DatasetError(f"seed = {seed}: expected at least 0")
    rng = np.random.default_rng(seed)
    indices, cases = rng.integers(len(lexicon), size=count), rng.integers(3, size=count)
    labels = [
        (lexicon[i], lexicon[i].upper(), lexicon[i].title())[case] for i, case in zip(indices, cases, strict=True)
    ]
    paths = [_path(i, label, int(indices[i])) for i, label in enumerate(labels)]
    try:
        with whole_folder(folder) as partial_folder:
            for leaf in sorted({path.rpartition("/")[0] for path in paths}):
                (partial_folder / leaf).mkdir(parents=True, exist_ok=True)
            _write_images(partial_folder, paths, _render(labels, style, fonts, seed), count)
            (partial_folder / LEXICON).write_text("\n".join(lexicon) + "\n")
            lines = [f"./{path} {index}" for path, index in zip(paths, indices, strict=True)]
            return _write_lists(partial_folder, lines)
    except OSError as error:
        raise DatasetError(f"{folder}: {error.strerror}") from None


def natural_widths(images: UInt8[np.ndarray, "B H W"]) -> Int[np.ndarray, " B"]:
    """How wide the images were before their last columns were repeated to fill the canvas; at least 1 pixel."""
    repeated = (images == images[:, :, -1:]).all(1)
    return images.shape[2] + 1 - np.argmin(np.pad(repeated, ((0, 0), (1, 0)))[:, ::-1], axis=1)


def _path(number: int, label: str, index: int) -> str:
    leaf, place = divmod(number, PER_LEAF)
    return f"{leaf // PER_FOLDER + 1}/{leaf % PER_FOLDER + 1}/{place + 1}_{label}_{index}.jpg"


def _render(labels: list[str], style: Style, fonts: int, seed: int) -> Iterator[tuple[np.ndarray, jax.Array]]:
    """Yields batches of images [B, H, W] with the numbers of their words; the device is always one batch ahead."""
    bank, key = load_bank(fonts), jax.random.key(seed)
    draw = jax.jit(partial(render, style=style, height=HEIGHT, fit="pad"), static_argnames=("width",))
    lengths, ahead, shorter = np.array([len(label) for label in labels]), None, 0
    for longest, width in CANVASES:
        # Short words get a smaller canvas: the cost of rendering is per pixel.
        chosen = np.flatnonzero((lengths > shorter) & (lengths <= longest))
        shorter = longest
        for first in range(0, len(chosen), BATCH):
            numbers = chosen[first : first + BATCH]
            filled = np.resize(numbers, BATCH)  # the last batch repeats some words: one shape, compiled once
            rows = [[GLYPHS.index(c) for c in labels[i].ljust(longest, GLYPHS[0])] for i in filled]
            batch_key = jax.random.fold_in(jax.random.fold_in(key, width), first)
            batch = draw(batch_key, bank, np.array(rows, np.int32), lengths[filled].astype(np.int32), width=width)
            if ahead:
                yield ahead
            ahead = numbers, batch
    if ahead:
        yield ahead


def _write_images(folder: Path, paths: list[str], batches, count: int) -> None:
    # Threads: most of the time is spent in Pillow's encoder and the file system, which both release the GIL.
    bar = tqdm(total=count, desc="render words", unit="image", disable=None, dynamic_ncols=True)
    with bar, ThreadPoolExecutor() as pool:
        pending = deque()
        for numbers, images in batches:
            pending.append(pool.submit(_write_batch, folder, [paths[i] for i in numbers], np.asarray(images)))
            while len(pending) > QUEUE or pending and pending[0].done():
                bar.update(pending.popleft().result())
        while pending:
            bar.update(pending.popleft().result())


def _write_batch(folder: Path, paths: list[str], images: np.ndarray) -> int:
    for path, image, width in zip(paths, images, natural_widths(images), strict=False):  # the last batch is padded
        buffer = io.BytesIO()
        Image.fromarray(image[:, :width]).convert("RGB").save(buffer, "JPEG", quality=QUALITY)
        (folder / path).write_bytes(buffer.getvalue())
    return len(paths)


def _write_lists(folder: Path, lines: list[str]) -> dict[str, int]:
    """Writes the lists with the original's shares; the test split gets what rounding leaves."""
    sizes, first = {}, 0
    for split, name in LISTS.items():
        share = COUNTS[split] / sum(COUNTS.values())
        last = len(lines) if split == list(LISTS)[-1] else first + round(share * len(lines))
        (folder / name).write_text("".join(f"{line}\n" for line in lines[first:last]))
        sizes[split], first = last - first, last
    return sizes
