"""Prints the README's tables: models on labelled words, measured on ONE CPU thread, and below them what others publish.

    python experiments/results.py --data PATH [PATH ...] [--model NAME|DIR ...] [--part all|tenth|rest]
        [--cased] [--punctuation] [--lexicon english|FILE [--bonus NATS]] [--thorough] [--json FILE]

Prints one row per model, by default every bundled one, as soon as it is measured; a PATH is anything that evaluate.py
reads. A dataset with an image that cannot be read is left out, with a line on stderr; the exit code is then 1. The
script restarts itself on a single CPU, since jax takes all that it finds when it is imported; if the system cannot do
that, the column's heading says how many there were. A GPU is not used.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

import jax
from command import add_protocol, add_reading, check_reading, lexicon_of, run, tells
from outputs import check_outputs

import crnn_jax
from crnn_jax.cores import cores
from crnn_jax.data.sample import Dataset, DatasetError
from crnn_jax.evaluation import all_words, dataset_words, not_expressed, open_datasets, read_words, to_json
from crnn_jax.images import ImageError
from crnn_jax.lexicon import LexiconError
from crnn_jax.metrics import wilson_interval
from crnn_jax.model import count_parameters
from crnn_jax.reader import Reader
from crnn_jax.training.checkpoint import CheckpointError, bundled_models, find_model
from crnn_jax.training.start import images_seen

RESTARTED = "CRNN_JAX_ON_ONE_CPU"  # in the environment of the restarted script


class Peer(NamedTuple):
    """What is known of another system: word accuracy in per cent on TEST splits, None if not published."""

    name: str
    iiit5k: float
    svt: float
    ic15: float | None
    parameters: str
    images_per_second: int | None  # on one CPU thread
    source: str


MEASURED = "measured as installed, on the first 1000 words of IIIT5K and IC15"
BAEK = "Baek et al. 2019, trained on Synth90k and SynthText, 57.6 M images seen"
MMOCR = "MMOCR's model zoo, trained on Synth90k"
PEERS = [
    Peer("CRNN", 78.2, 80.8, None, "8.3 M", None, "Shi et al. 2015, table 2, trained on Synth90k"),
    Peer("CRNN of MMOCR", 80.5, 81.5, 54.1, "", None, MMOCR),
    Peer("TPS-CRNN of MMOCR", 80.8, 81.3, 59.6, "", None, MMOCR),
    Peer("CRNN of DTRB", 82.9, 81.6, 64.2, "", None, BAEK),
    Peer("TPS-ResNet-BiLSTM-CTC of DTRB", 87.0, 86.9, 70.3, "", None, BAEK),
    Peer("Tesseract 5.3", 75.5, 69.7, 46.2, "", 108, MEASURED),
    Peer("PP-OCRv6 tiny", 89.9, 83.0, 65.4, "1.1 M", 135, MEASURED),
    Peer("PP-OCRv6 small", 96.2, 92.3, 79.6, "5.3 M", 28, MEASURED),
]


@tells(CheckpointError, DatasetError, ImageError, LexiconError, OSError)
def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", metavar="NAME|DIR", help="models to measure (default: every bundled one)")
    parser.add_argument("--data", nargs="+", required=True, metavar="PATH")
    add_protocol(parser)
    add_reading(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all measurements to FILE")
    args = parser.parse_args(argv)
    check_reading(parser, args)
    check_outputs(args.json, inputs=[*args.data, *filter(None, [args.lexicon])])
    lexicon = lexicon_of(args)
    options = {"cased": args.cased, "punctuation": args.punctuation}
    readers = {name: crnn_jax.load(name) for name in args.model or bundled_models()}  # all, before minutes of measuring
    datasets = {name: open_datasets(args.data, reader.config, part=args.part) for name, reader in readers.items()}
    results, left_out = {}, set()
    for name, reader in readers.items():
        for clause in not_expressed(reader, **options):
            print(f"results.py: {name} {clause}", file=sys.stderr)
        its_own = {title: dataset for title, dataset in datasets[name].items() if title not in left_out}
        results[name], failed = measure(name, reader, its_own, thorough=args.thorough, lexicon=lexicon, **options)
        for title, reason in failed.items():
            print(f"results.py: {title} is left out: {reason}", file=sys.stderr)
        left_out |= failed.keys()
        if not results[name]["datasets"]:
            return 1
        head = [] if len(results) > 1 else [format_head(results[name])]
        print(*head, format_row(name, results[name]), sep="\n", flush=True)
        if args.json:
            peers = [peer._asdict() for peer in PEERS]
            told = {
                name: getattr(args, name) for name in ("part", "cased", "punctuation", "lexicon", "bonus", "thorough")
            }
            whole = {"cpus": cores(), "compared": told, "models": results, "peers": peers}
            args.json.write_text(to_json(whole) + "\n")
    print(f"\n{format_note(results)}\n\n{format_peers()}")
    return 1 if left_out else 0


def measure(
    model: str, reader: Reader, datasets: dict[str, Dataset], *, thorough: bool, **options
) -> tuple[dict, dict[str, str]]:
    """Measures a model: parameters, images seen in training (None if unknown), rows of the datasets and of all words.

    `thorough` is that of `dataset_words`, `options` are those of `read_words`. Returns the measurements, and why
    unreadable datasets are left out, by name.
    """
    evaluations, failed, compiled = {}, {}, set()
    for name, dataset in datasets.items():
        words = dataset_words(reader, dataset, name, thorough=thorough)
        try:
            evaluations[name] = read_words(reader, words, compiled=compiled, **options)
        except (DatasetError, ImageError) as error:  # the others are still measured
            failed[name] = str(error)
    measured = {
        "parameters": count_parameters(reader.variables),
        "images_seen": images_seen(find_model(model)) or None,
        "datasets": {name: evaluation.row() for name, evaluation in evaluations.items()},
        "all_words": all_words(list(evaluations.values())).row() if evaluations else {},
    }
    return measured, failed


def format_head(result: dict) -> str:
    """The header of the table in Markdown, from the datasets of its first model."""
    speed = "images/s, one CPU thread" if cores() == 1 else f"images/s, {cores()} CPUs"
    datasets = [f"{name} ({row['count']})" for name, row in result["datasets"].items()]
    return _markdown([["model", "parameters", "images seen", *datasets, "ECE", speed], ["---"] * (len(datasets) + 5)])


def format_row(name: str, result: dict) -> str:
    """The row of a model: word accuracy and 1-NED for every dataset."""
    cells = [
        f"`{name}`",
        f"{result['parameters'] / 1e6:.2f} M",
        f"{result['images_seen'] / 1e6:.1f} M" if result["images_seen"] else "",
        *(f"{row['word_accuracy']:.1f} / {row['one_minus_ned']:.1f}" for row in result["datasets"].values()),
        f"{result['all_words']['expected_calibration_error']:.1f}",
        f"{result['all_words']['images_per_second']:.0f}",
    ]
    return _markdown([cells])


def format_note(results: dict[str, dict]) -> str:
    """What the numbers are, and how uncertain they are because of the number of words alone."""
    intervals = [
        wilson_interval(round(row["word_accuracy"] * row["count"] / 100), row["count"])
        for row in next(iter(results.values()))["datasets"].values()
    ]
    told = ", ".join(f"{100 * low:.1f} to {100 * high:.1f}" for low, high in intervals)
    return (
        "Word accuracy / 1-NED in per cent, expected calibration error (ECE) over all words in per cent. "
        f"95 % intervals of the first row's accuracies, given the number of words alone: {told}."
    )


def format_peers() -> str:
    """A Markdown table of what others publish, on words other than those above."""
    rows = [
        [
            peer.name,
            peer.parameters,
            f"{peer.iiit5k:.1f}",
            f"{peer.svt:.1f}",
            f"{peer.ic15:.1f}" if peer.ic15 else "",
            str(peer.images_per_second or ""),
            peer.source,
        ]
        for peer in PEERS
    ]
    head = ["others", "parameters", "IIIT5K test", "SVT test", "IC15 test", "images/s, one CPU thread", "source"]
    note = "Word accuracy in per cent on OTHER splits than above (the test splits), and after training on more data."
    return f"{note}\n\n{_markdown([head, ['---'] * len(head), *rows])}"


def restart_on_one_cpu() -> None:
    """Restarts this script on one CPU, if it has more and the system can do it."""
    if cores() > 1 and hasattr(os, "sched_setaffinity") and RESTARTED not in os.environ:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # survives exec, and holds for every thread
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {RESTARTED: "1"})


def _markdown(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    restart_on_one_cpu()
    jax.config.update("jax_platforms", "cpu")
    run(main)
