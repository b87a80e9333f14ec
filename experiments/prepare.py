"""Prepares datasets of labelled words, from Synth90k's archive or another format, and shows what is in one.

    python experiments/prepare.py synth90k --source FOLDER|TAR.GZ --out DIR [--shards N] [--workers N] [--beam FLAG ...]
    python experiments/prepare.py convert --data PATH [PATH ...] --out DIR --format tfrecord|array_record|lmdb|folder
        [--shards N] [--name NAME]
    python experiments/prepare.py inspect --data PATH [--sheet FILE.png] [--json FILE]
    python experiments/prepare.py stand-in --out DIR [--count N] [--seed N]

A PATH is a folder with labels.tsv, labels.csv or gt.txt, an LMDB, or TFRecord or ArrayRecord shards.

synth90k writes the three splits as TFRecord shards with TFDS's metadata, from the archive as it is distributed or from
the folder that it unpacks to. Unusable words are left out and listed in DIR/report.json. The same command resumes after
an interruption. --beam runs it on Apache Beam, with the flags of its runner: --beam=--runner=DirectRunner.

convert writes all words of the PATHs, in their order, into the folder DIR, which appears only once it is complete.
Encoded images are copied byte for byte. Damaged words are left out, counted, and listed in DIR.report.json. --shards
and --name determine the names of files, as in `NAME.tfrecord-00000-of-00008`. About 4,000 words per second on one core.

stand-in renders words and writes them in the layout of Synth90k's archive, to try all of this without the download.

inspect prints counts, lengths, characters, sizes and damage; --sheet draws a page of words from all over the dataset.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from command import run, tells
from jaxtyping import UInt8
from outputs import check_outputs
from PIL import Image

from crnn_jax.data.conversion import convert
from crnn_jax.data.dataset import open_dataset
from crnn_jax.data.sample import DatasetError, Sample
from crnn_jax.data.standin import write_stand_in
from crnn_jax.data.survey import survey
from crnn_jax.data.synth90k import prepare
from crnn_jax.data.whole import write_whole
from crnn_jax.data.writers import WRITERS
from crnn_jax.images import fit_image
from crnn_jax.training.logs import sheet

CELL = (32, 160)  # pixels of an image on the sheet, height and width
CAPTION = 26  # characters that fit below it


@tells(DatasetError, OSError)
def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = parse(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("prepare.py: interrupted; nothing is left half-written, and synth90k can be resumed", file=sys.stderr)
        return 130  # the shells' convention


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments of the command; `run` is the function of its subcommand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("convert", help="convert datasets of any format into one dataset of any format")
    command.add_argument("--data", nargs="+", required=True, metavar="PATH")
    add_output(command)
    command.set_defaults(run=run_convert)
    command = commands.add_parser("synth90k", help="make a TFDS dataset of Synth90k, or of data in its layout")
    command.add_argument(
        "--source", type=Path, required=True, metavar="PATH", help="the archive, or the folder that it unpacks to"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--shards", type=int, default=64, metavar="N", help="number of files of the training split")
    command.add_argument("--workers", type=int, metavar="N", help="number of processes (default: one per core)")
    command.add_argument(
        "--beam", action="append", metavar="FLAG", help="a flag of Apache Beam's runner; can be repeated"
    )
    command.set_defaults(run=run_synth90k)
    command = commands.add_parser("stand-in", help="write rendered words in the layout of Synth90k's archive")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    command.add_argument("--count", type=int, default=200_000, metavar="N", help="number of words")
    command.add_argument("--seed", type=int, default=0, metavar="N")
    command.set_defaults(run=run_stand_in)
    command = commands.add_parser("inspect", help="show what is in a dataset")
    command.add_argument("--data", required=True, metavar="PATH")
    command.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw a page of its words")
    command.add_argument("--json", type=Path, metavar="FILE", help="write all counts to FILE")
    command.set_defaults(run=run_inspect)
    return parser.parse_args(argv)


def add_output(command: argparse.ArgumentParser) -> None:
    """Adds the options for writing a dataset."""
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    command.add_argument("--format", choices=WRITERS, required=True)
    command.add_argument(
        "--shards", type=int, metavar="N", help="number of files, for tfrecord and array_record (default: 1)"
    )
    command.add_argument("--name", help="name of these files (default: words)")


def run_convert(args: argparse.Namespace) -> int:
    """prepare.py convert."""
    if args.format in ("lmdb", "folder") and (args.shards, args.name) != (None, None):
        raise DatasetError(f"--shards and --name work only with tfrecord and array_record, not with {args.format}")
    datasets = [open_dataset(path, strict=False) for path in args.data]
    shards, name = 1 if args.shards is None else args.shards, "words" if args.name is None else args.name
    if not name:
        raise DatasetError("--name is empty: expected a name for the files")
    result = convert(datasets, args.out, format=args.format, shards=shards, name=name)
    report = args.out.resolve().with_name(f"{args.out.resolve().name}.report.json")
    write_json(report, {"data": args.data} | result.to_json())
    if not result.written:
        raise DatasetError(f"{', '.join(args.data)}: no word could be converted: {result.damage}; see {report}")
    print(f"{result}{f'; see {report}' if result.damage else ''}")
    return 0


def run_synth90k(args: argparse.Namespace) -> int:
    """prepare.py synth90k."""
    report = prepare(args.source, args.out, shards=args.shards, workers=args.workers, beam_options=args.beam)
    print("\n".join(report.lines()))
    print(f"next: python experiments/prepare.py inspect --data '{args.out}/synth90k-train.*'")
    return 0


def run_stand_in(args: argparse.Namespace) -> int:
    """prepare.py stand-in."""
    sizes = write_stand_in(args.out, count=args.count, seed=args.seed)
    print(f"{args.out}: " + ", ".join(f"{count} words for {split}" for split, count in sizes.items()))
    return 0


def run_inspect(args: argparse.Namespace) -> int:
    """prepare.py inspect."""
    check_outputs(args.json, args.sheet, inputs=[args.data])
    found = survey(open_dataset(args.data, strict=False))
    if found.words:
        print(f"data        {args.data}\n{found}")
    if args.json:
        write_json(args.json, {"data": args.data} | found.to_json())
    if not found.words:
        raise DatasetError(f"{args.data}: no word can be read: {found.damage}: {found.damage.places[0][1]}")
    if args.sheet:
        captions = [
            sample.label.encode("ascii", "backslashreplace").decode()[:CAPTION].replace("\n", " ")
            for sample in found.samples
        ]
        images = np.stack([on_white(sample) for sample in found.samples])
        Image.fromarray(sheet(images, captions, columns=6)).save(args.sheet, "PNG")
    return 0


def write_json(path: Path, table: dict) -> None:
    """Writes the whole file, or none on a full disk."""
    write_whole(path, (json.dumps(table, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def on_white(sample: Sample) -> UInt8[np.ndarray, "H W"]:
    """The image at the height of a cell, with its aspect kept if that fits, and white to the right."""
    height, width = CELL
    natural = round(sample.image.shape[1] * height / sample.image.shape[0])
    scaled = fit_image(sample.image, height=height, width=min(max(natural, 1), width))
    return np.pad(scaled, ((0, 0), (0, width - scaled.shape[1])), constant_values=255)


if __name__ == "__main__":
    run(main)
