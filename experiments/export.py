"""Writes a model as one file of StableHLO, including weights and decoding, that runs with JAX alone.

    python experiments/export.py --model NAME|DIR --out FILE [--batch N] [--width PIXELS] [--platforms cpu cuda tpu]

Needs `pip install -e '.[export]'`. To run the file, `jax`, `flatbuffers` and a library that opens images are enough:

    import jax, jax.export
    import numpy as np
    from PIL import Image
    read = jax.jit(jax.export.deserialize(open(FILE, "rb").read()).call)
    image = Image.open(PATH).convert("L").resize((100, 32), Image.Resampling.BICUBIC)  # the size that export.py prints
    characters, confidences = read(np.asarray(image)[None])
    text = "".join(map(chr, characters[0])).rstrip("\\0")

Hebrew or Arabic comes out from left to right, as in the image; `crnn_jax.direction.reorder` puts it in typing order.
The program takes N images at a time. It computes as this machine does: write it on a GPU to run it on a GPU. What a
Reader does first is left to you: turning a photograph by its EXIF orientation, putting transparent images on white, and
reading tall images turned as well.
"""

import argparse
import sys
from pathlib import Path

from command import run, tells

import crnn_jax
from crnn_jax.data.whole import check_writable, write_whole
from crnn_jax.export import PLATFORMS, export_program
from crnn_jax.reader import DEFAULT_MODEL
from crnn_jax.training.checkpoint import CheckpointError


@tells(CheckpointError, OSError, ValueError)
def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help="bundled model, model folder or workdir"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images at a time (default: 1)")
    parser.add_argument("--width", type=int, metavar="PIXELS", help="width of the images, for models that pad")
    parser.add_argument(
        "--platforms", nargs="+", default=[], metavar="NAME", help=f"{', '.join(PLATFORMS)} (default: this machine's)"
    )
    args = parser.parse_args(argv)
    check_writable(args.out)
    reader = crnn_jax.load(args.model)
    try:
        program = export_program(reader, batch=args.batch, width=args.width, platforms=args.platforms)
    except ImportError as error:
        print(f"export.py: {error}: pip install -e '.[export]'", file=sys.stderr)
        return 1
    write_whole(args.out, program)
    config = reader.config.model
    fitted = "stretched" if config.fit == "resize" else "scaled to the height, the last column repeated"
    size = f"uint8[{args.batch}, {config.height}, {args.width or config.width}]"
    print(f"{args.out}: {len(program) / 1e6:.1f} MB; images {size}, grey, {fitted}")
    return 0


if __name__ == "__main__":
    run(main)
