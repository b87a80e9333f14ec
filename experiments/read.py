"""Reads photographs of words, and prints a line `path<TAB>text<TAB>confidence` for each.

    python experiments/read.py IMAGE|DIR ... [--model NAME|DIR] [--lexicon english|FILE [--bonus NATS]] [--among FILE]
        [--thorough] [--rectified FILE.png]

All images of a folder are read, in the order of their names. An image that cannot be decoded is named on stderr; the
others are still read, and the exit status is 1. An image that is much taller than wide is also read turned both ways,
for words that run up or down. With --lexicon its words (of a file, or English ones) count as likelier: more words are
read right, but now and then something else is taken for a word. With --among only the words of a file (one per
line) are read: each image as one of them, even if it shows none; the confidence is the word's share among them. With
--thorough each image is read with three margins, which is more accurate. With --rectified the first 48 are drawn on a
page: where the model's spatial transformer looks in the image, neither turned nor with other margins, what it makes of
it, and what is read.
"""

# ruff: noqa: E402
import gc

if __name__ == "__main__":
    # Imports and tracing create many objects that stay: by default the collector would rescan some after every 700.
    gc.set_threshold(100_000)

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from command import add_reading, check_reading, lexicon_of, run, tells
from PIL import Image

import crnn_jax
from crnn_jax.images import ImageError
from crnn_jax.lexicon import LexiconError
from crnn_jax.reader import DEFAULT_MODEL, Reader
from crnn_jax.report.rectification import draw_sheet
from crnn_jax.training.checkpoint import CheckpointError

SUFFIXES = set(".png .jpg .jpeg .jfif .jp2 .bmp .gif .tif .tiff .webp .avif .ppm .pgm".split())
CHUNK = 64  # images that are decoded and read at a time
SHOWN = 48  # images on the page of --rectified, at most


@tells(ImageError, CheckpointError, LexiconError, OSError)
def main(argv: list[str] | None = None, *, keep: bool = False) -> int:
    """The command; returns its exit code. With `keep`, compiled programs are kept for later (`keep_compiled`)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="IMAGE|DIR")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help="bundled model, model folder or workdir"
    )
    add_reading(parser, among="read only the words of this file, one per line")
    parser.add_argument("--rectified", type=Path, metavar="FILE.png", help="draw what the spatial transformer does")
    args = parser.parse_args(argv)
    check_reading(parser, args)
    images = list_images(args.paths)
    lexicon = lexicon_of(args)
    reader = crnn_jax.load(args.model, cache=keep_compiled() if keep else None)
    among = reader.word_list(args.among) if args.among is not None else None
    for warning in among.warnings() if among else ():
        print(f"read.py: {args.among}: {warning}", file=sys.stderr)
    if args.rectified:
        if not reader.has_stn:
            raise CheckpointError(f"--rectified: {args.model} has no spatial transformer")
        if args.rectified.suffix.lower() != ".png":
            raise ImageError(f"--rectified: {args.rectified}: expected a PNG file name, such as sheet.png")
        from outputs import check_outputs  # not at the top: few starts need it

        check_outputs(args.rectified, inputs=[*images, *filter(None, (args.lexicon, args.among))])
    failed, shown = 0, []
    for first in range(0, len(images), CHUNK):
        words = []
        for path in images[first : first + CHUNK]:
            try:
                words.append((path, reader.views(path, thorough=args.thorough)))
            except ImageError as error:
                failed += 1
                print(f"read.py: {error}", file=sys.stderr)
        all_views = [views for _, views in words]
        readings = reader.choose_views(all_views, among) if among else reader.read_views(all_views, lexicon=lexicon)
        for (path, _), reading in zip(words, readings, strict=True):
            print(f"{path}\t{reading.text}\t{reading.confidence:.4f}", flush=True)
        shown += [(views[0][0], reading.text) for (_, views), reading in zip(words, readings, strict=True)]
        shown = shown[:SHOWN] if args.rectified else []
    if shown:
        Image.fromarray(sheet(reader, *zip(*shown, strict=True))).save(args.rectified, "PNG")
    return 1 if failed else 0


def list_images(paths: list[Path]) -> list[Path]:
    """The images at `paths`, those of a folder sorted by name. Raises ImageError for a folder without images."""
    images = []
    for path in paths:
        if not path.is_dir():
            images.append(path)  # a missing file is reported when it is read
            continue
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        if not found:
            raise ImageError(f"{path}: the folder has no images ({', '.join(sorted(SUFFIXES))})")
        images += found
    return images


def sheet(reader: Reader, images: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
    """A page of what the model's spatial transformer does with images that fit the model, and what was read."""
    transforms = reader.transform(images)
    made = [transform.image for transform in transforms]
    parameters = [transform.parameters for transform in transforms]
    rectified, kind = None if made[0] is None else made, reader.config.model.stn.kind
    return draw_sheet(images, parameters, texts, kind=kind, rectified=rectified, columns=min(6, len(images)))


def keep_compiled() -> Path | None:
    """The folder in which the Reader keeps its programs on a CPU, in the user's cache ($XDG_CACHE_HOME, else ~/.cache).

    On other devices None: there JAX's own cache is used, in that folder or in JAX_COMPILATION_CACHE_DIR. Nothing is
    kept if it cannot be written.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "crnn_jax"
    if jax.default_backend() == "cpu":
        jax.config.update("jax_enable_compilation_cache", False)  # programs from JAX's cache cannot be stored again
        return folder
    if not jax.config.jax_compilation_cache_dir:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            return None
        if os.access(folder, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # otherwise no small model's are kept
    return None


if __name__ == "__main__":
    # Names of files may have bytes that are not text: print them as they are. Texts may go beyond a terminal's ASCII.
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    run(partial(main, keep=True))
