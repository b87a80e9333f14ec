"""Fits the temperature of a model's confidence on labelled words, and writes it into the model's folder.

    python experiments/calibrate.py --model NAME|DIR --data PATH [PATH ...] [--part all|tenth|rest]
        [--cased] [--punctuation] [--dry_run]

A PATH is anything that evaluate.py reads, `rendered` too; what counts as right are its switches as well. Prints the
expected calibration error of these words at temperature 1 and at the new one; evaluate.py tells it of other words.
calibration.json goes into the model folder or workdir, where read.py, evaluate.py and bundle.py find it.
"""

import argparse
import logging
import sys

from crnn_jax.calibration import expected_calibration_error, fit_temperature, greedy_confidences, save_calibration
from crnn_jax.data.dataset import PARTS
from crnn_jax.data.sample import DatasetError
from crnn_jax.evaluation import dataset_words, open_datasets, read_words
from crnn_jax.images import ImageError
from crnn_jax.reader import DEFAULT_MODEL, load
from crnn_jax.training.checkpoint import CheckpointError, find_model


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help="bundled model, folder, workdir")
    parser.add_argument("--data", nargs="+", required=True, metavar="PATH")
    parser.add_argument("--part", choices=PARTS, default="all", help="the fixed tenth of each dataset, or the rest")
    parser.add_argument("--cased", action="store_true", help="a word in another case is wrong")
    parser.add_argument("--punctuation", action="store_true", help="a word with other punctuation marks is wrong")
    parser.add_argument("--dry_run", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells how it opens a workdir
    try:
        reader, folder = load(args.model), find_model(args.model)
        datasets = open_datasets(args.data, reader.config, part=args.part)
        logits, correct = [], []
        for name, dataset in datasets.items():
            chunks = list(dataset_words(reader, dataset, name))
            for chunk in chunks:
                logits += reader.logits(chunk.images)
            evaluation = read_words(reader, chunks, cased=args.cased, punctuation=args.punctuation)
            correct += [word.correct for word in evaluation.words]
        temperature = fit_temperature(logits, correct)
        errors = [
            expected_calibration_error(greedy_confidences(logits, temperature=t), correct) for t in (1.0, temperature)
        ]
        print(f"{len(correct)} words, {100 * sum(correct) / len(correct):.1f} % right: temperature {temperature:.4f}")
        print(f"expected calibration error {errors[0]:.2f} at temperature 1, {errors[1]:.2f} at {temperature:.4f}")
        if not args.dry_run:
            calibration = {
                "temperature": round(temperature, 4),
                "fitted_on": "; ".join(datasets),
                "words": len(correct),
                "cased": args.cased,
                "punctuation": args.punctuation,
                "expected_calibration_error": {"before": round(errors[0], 2), "after": round(errors[1], 2)},
            }
            save_calibration(folder, calibration)
            print(f"written: {folder / 'calibration.json'}")
    except (CheckpointError, DatasetError, ImageError, OSError, ValueError) as error:
        print(f"calibrate.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
