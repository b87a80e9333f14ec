"""Fits the temperature of a model's confidence to labelled words, and writes it into the model's folder.

    python experiments/calibrate.py --model NAME|DIR --data PATH [PATH ...] [--part all|tenth|rest]
        [--cased] [--punctuation] [--lexicon english|FILE] [--dry_run]

A PATH is anything that evaluate.py reads, including `rendered`; --cased and --punctuation define what counts as right,
as they do there. Prints the expected calibration error on these words at temperature 1 and at the new one; evaluate.py
reports it on other words. With --lexicon a second temperature is fitted, for words that are read with a lexicon.
calibration.json goes into the model folder or workdir, where read.py, evaluate.py and bundle.py find it.
"""

import argparse
import sys
from functools import partial

import numpy as np
from command import add_protocol, run, tells

from crnn_jax.calibration import (
    TEMPERATURES,
    calibration_place,
    expected_calibration_error,
    fit_lexicon_temperature,
    fit_temperature,
    greedy_confidences,
    load_calibration,
    save_calibration,
    share_confidences,
)
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.whole import check_writable
from crnn_jax.evaluation import dataset_words, not_expressed, open_datasets
from crnn_jax.images import ImageError
from crnn_jax.lexicon import load_lexicon
from crnn_jax.metrics import normalise
from crnn_jax.reader import load
from crnn_jax.training.checkpoint import CheckpointError, weights_folder

WORSE = 0.5  # points of calibration error, which is binned, that chance alone may add


@tells(CheckpointError, DatasetError, ImageError, OSError, ValueError)
def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # No default: it would change the package's own model.
    parser.add_argument("--model", required=True, metavar="NAME|DIR", help="bundled model, model folder or workdir")
    parser.add_argument("--data", nargs="+", required=True, metavar="PATH")
    add_protocol(parser)
    parser.add_argument("--lexicon", metavar="english|FILE", help="also fit the confidence of reading with a lexicon")
    parser.add_argument("--dry_run", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    folder = weights_folder(args.model)
    reader = load(folder)
    path, _ = calibration_place(folder)
    if not args.dry_run:
        check_writable(path)
    lexicon = load_lexicon(args.lexicon) if args.lexicon is not None else None
    for clause in not_expressed(reader, cased=args.cased, punctuation=args.punctuation):
        print(f"calibrate.py: {args.model} {clause}", file=sys.stderr)
    datasets = open_datasets(args.data, reader.config, part=args.part)
    chunks = [chunk for name, dataset in datasets.items() for chunk in dataset_words(reader, dataset, name)]
    # The unturned view of every word: the temperature is fitted to its logits.
    images = [given.views[0][0] for chunk in chunks for given in chunk.words]
    labels = [given.label for chunk in chunks for given in chunk.words]
    charset = reader.charset.characters
    compared = partial(normalise, cased=args.cased, punctuation=args.punctuation, charset=charset)

    logits, texts = reader.logits(images), [reading.text for reading in reader.read_fitted(images)]
    correct = [compared(text) == compared(label) for text, label in zip(texts, labels, strict=True)]
    temperature = fit_temperature(logits, correct)
    confidences = [greedy_confidences(logits, temperature=t) for t in (1.0, temperature)]
    calibration = {
        "temperature": round(temperature, 4),
        "fitted_on": "; ".join(datasets),
        "words": len(correct),
        "cased": args.cased,
        "punctuation": args.punctuation,
        "expected_calibration_error": print_fit("", correct, confidences, temperature),
    }
    # A temperature fitted with a lexicon before stays until it is fitted again.
    before = load_calibration(folder) or {}
    calibration |= {name: value for name, value in before.items() if name.startswith("lexicon")}
    if lexicon is not None:
        found = reader.search(images)
        scores = np.array([lexicon.scores(*candidates) for candidates in found])
        texts = [candidates[0][row.argmax()] for candidates, row in zip(found, scores, strict=True)]
        correct = [compared(text) == compared(label) for text, label in zip(texts, labels, strict=True)]
        temperature = fit_lexicon_temperature(scores, correct)
        confidences = [share_confidences(scores, temperature=t) for t in (1.0, temperature)]
        calibration |= {
            "lexicon_temperature": round(temperature, 4),
            "lexicon": args.lexicon,
            "lexicon_expected_calibration_error": print_fit(" with the lexicon", correct, confidences, temperature),
        }
    if not args.dry_run:
        save_calibration(folder, calibration)
        temperatures = [f"{before[name]:g}" for name in TEMPERATURES if name in before]
        print(f"written: {path}" + (f", replacing temperature {', '.join(temperatures)}" if temperatures else ""))
    return 0


def print_fit(how: str, correct: list[bool], confidences: list[np.ndarray], temperature: float) -> dict[str, float]:
    """Prints the fit; returns the calibration errors of the confidences before and after it."""
    before, after = (expected_calibration_error(values, correct) for values in confidences)
    print(f"{len(correct)} words, {100 * np.mean(correct):.1f} % right{how}: temperature {temperature:.4f}")
    print(f"expected calibration error {before:.2f} at temperature 1, {after:.2f} at {temperature:.4f}")
    if after > before + WORSE:
        told = f"worse than at 1: the temperature was fitted by likelihood to {len(correct)} words"
        print(f"calibrate.py: {told}, which may be too few", file=sys.stderr)
    return {"before": round(before, 2), "after": round(after, 2)}


if __name__ == "__main__":
    run(main)
