"""Writes a model as one file that JAX alone runs, weights and decoding inside: StableHLO.

    python experiments/export.py --model NAME|DIR --out FILE [--batch N] [--width PIXELS] [--platforms cpu cuda tpu]

Needs `pip install -e '.[export]'`. Where it is used, `jax`, `flatbuffers` and whatever opens images are enough:

    import jax, jax.export
    import numpy as np
    from PIL import Image
    read = jax.jit(jax.export.deserialize(open(FILE, "rb").read()).call)
    image = Image.open(PATH).convert("L").resize((100, 32), Image.Resampling.BICUBIC)  # the size that is printed
    characters, confidences = read(np.asarray(image)[None])
    text = "".join(map(chr, characters[0])).rstrip("\\0")

A word of Hebrew or Arabic comes as it stands in the image: `crnn_jax.direction.reorder` makes it what is typed.
N images go in at a time. It computes as this machine would: write it on a GPU for a GPU. What a Reader does before that
is left to you: to turn a photograph as its EXIF says, lay what is transparent on white, read a tall image turned, too.
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
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help="bundled model, folder, workdir")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images at a time (1)")
    parser.add_argument("--width", type=int, metavar="PIXELS", help="of the images, for models that pad")
    parser.add_argument("--platforms", nargs="+", default=[], metavar="NAME", help=", ".join(PLATFORMS))
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
