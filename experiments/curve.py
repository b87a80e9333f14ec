"""Accuracy against images seen: measures every checkpoint that a run has kept on labelled words.

    python experiments/curve.py WORKDIR --data PATH [PATH ...] [--part all|tenth|rest] [--cased] [--punctuation]
        [--json FILE]

A run keeps its last `run.keep` checkpoints and its best. A PATH is anything that evaluate.py reads; of a dataset that
the run was fine-tuned on, `--part tenth` is the part that it has not seen. Prints a Markdown table of word accuracy in
per cent, one row per checkpoint.
"""

import argparse
import json
from pathlib import Path

from command import add_protocol, run, tells
from outputs import check_outputs

import crnn_jax
from crnn_jax.data.sample import DatasetError
from crnn_jax.evaluation import dataset_words, open_datasets, read_words
from crnn_jax.images import ImageError
from crnn_jax.training.checkpoint import CheckpointError


@tells(CheckpointError, DatasetError, ImageError, OSError)
def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path, metavar="WORKDIR")
    parser.add_argument("--data", nargs="+", required=True, metavar="PATH")
    add_protocol(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
    args = parser.parse_args(argv)
    rows, datasets = [], None
    check_outputs(args.json, inputs=args.data)
    for step in kept_steps(args.workdir):
        reader = crnn_jax.load(args.workdir / "checkpoints" / str(step))
        datasets = datasets or open_datasets(args.data, reader.config, part=args.part)
        row, compiled = {"images of the run": step * reader.config.run.batch_size}, set()
        for name, dataset in datasets.items():
            words = dataset_words(reader, dataset, name)
            options = {"cased": args.cased, "punctuation": args.punctuation, "compiled": compiled}
            row[name] = read_words(reader, words, **options).row()["word_accuracy"]
        if not rows:
            print("| " + " | ".join(row) + " |\n" + "|---" * len(row) + "|")
        rows.append(row)
        seen, *accuracies = row.values()
        print(f"| {seen:,} | " + " | ".join(f"{accuracy:.1f}" for accuracy in accuracies) + " |", flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def kept_steps(workdir: Path) -> list[int]:
    """The steps of a run's checkpoints, in order. Raises CheckpointError if there is none."""
    steps = sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())
    if not steps:
        raise CheckpointError(f"{workdir} holds no checkpoint")
    return steps


if __name__ == "__main__":
    run(main)
