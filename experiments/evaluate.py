"""Measures a model on labelled words: a row a dataset.

    python experiments/evaluate.py --model NAME|DIR --data PATH [PATH ...] [--json FILE] [--cased] [--punctuation]

A PATH is a folder with labels.tsv or gt.txt, an LMDB, TFRecord shards, or `rendered`: held-out words, rendered in the
style that the model was trained on. Compared are lower-case letters and digits; --cased and --punctuation widen that.
"""

import argparse
import json
import logging
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

import crnn_jax
from crnn_jax.data.dataset import Dataset, open_dataset
from crnn_jax.data.sample import DatasetError
from crnn_jax.images import ImageError
from crnn_jax.metrics import Score, score_words
from crnn_jax.reader import Reader
from crnn_jax.synth.batch import load_source, synth_batch
from crnn_jax.training.checkpoint import CheckpointError

CHUNK = 512  # images in memory
RENDERED = "rendered"
RENDERED_WORDS = 2048
RENDERED_SEED = 20_000  # not that of any training or of its evaluation


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", metavar="NAME|DIR", help="bundled model, model folder or workdir")
    parser.add_argument("--data", nargs="+", required=True, metavar="PATH")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--cased", action="store_true", help="compare the case as well")
    parser.add_argument("--punctuation", action="store_true", help="compare punctuation marks as well")
    args = parser.parse_args(argv)
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells how it opens a workdir
    try:
        datasets = [None if path == RENDERED else open_dataset(path) for path in args.data]  # all, before the hours
        reader = crnn_jax.load(args.model)
        table = {}
        for path, dataset in zip(args.data, datasets, strict=True):
            name = name_of(path, table)
            chunks = rendered_words(reader) if dataset is None else dataset_words(reader, dataset, name)
            table[name] = evaluate(reader, chunks, cased=args.cased, punctuation=args.punctuation)
        print(format_table(table))
        if args.json:
            args.json.write_text(json.dumps(table, indent=2) + "\n")
    except (CheckpointError, DatasetError, ImageError, OSError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 1
    return 0


def evaluate(reader: Reader, chunks, *, cased: bool, punctuation: bool) -> dict[str, float]:
    """One row: scores of `chunks` of (fitted images, labels), and how many images a second were fitted and read.

    The first chunk is read twice, since its first reading is mostly compilation.
    """
    score, seconds, warm = Score(), 0.0, False
    for images, labels, fitting in chunks:
        if not warm:
            reader.read_fitted(images)
            warm = True
        begin = time.perf_counter()
        readings = reader.read_fitted(images)
        seconds += fitting + time.perf_counter() - begin
        score += score_words(
            [r.text for r in readings],
            labels,
            [r.confidence for r in readings],
            cased=cased,
            punctuation=punctuation,
        )
    return {
        "count": score.count,
        "word_accuracy": score.word_accuracy,
        "one_minus_ned": score.one_minus_ned,
        "confidence": score.confidence,
        "images_per_second": score.count / seconds,
    }


def dataset_words(reader: Reader, dataset: Dataset, name: str):
    """Chunks of a dataset: fitted images, labels, and the seconds that decoding and fitting took."""
    images, labels, begin = [], [], time.perf_counter()
    for sample in tqdm(dataset, desc=name, total=len(dataset), disable=None, leave=False):
        images.append(reader.fit(sample.image))
        labels.append(sample.label)
        if len(images) == CHUNK:
            yield images, labels, time.perf_counter() - begin
            images, labels, begin = [], [], time.perf_counter()
    if images:
        yield images, labels, time.perf_counter() - begin


def rendered_words(reader: Reader):
    """Chunks of held-out words in the style of the model's training, as `dataset_words` gives them."""
    config = reader.config
    source = load_source(config)
    render = jax.jit(partial(synth_batch, batch_size=64, config=config, held_out=True))
    key = jax.random.key(RENDERED_SEED)
    for first in range(0, RENDERED_WORDS, 64):
        batch = jax.device_get(render(key, source, first_index=first))
        labels = [reader.charset.decode(label) for label in batch.label]
        yield list(np.asarray(batch.image)), labels, 0.0


def name_of(path: str, taken) -> str:
    """A dataset's row name: the last part of its path, the whole path where that is taken."""
    name = Path(path).name or str(path)
    return path if name in taken else name


def format_table(table: dict[str, dict[str, float]]) -> str:
    """The rows as text, with a row of all words together where there are several."""
    rows = dict(table)
    if len(table) > 1:
        total = sum(row["count"] for row in table.values())
        rows["all words"] = {
            name: sum(row[name] * row["count"] for row in table.values()) / total
            for name in ("word_accuracy", "one_minus_ned", "confidence")
        } | {
            "count": total,
            "images_per_second": total / sum(row["count"] / row["images_per_second"] for row in table.values()),
        }
    width = max(len(name) for name in rows)
    lines = [f"{'dataset':<{width}}  {'words':>6}  {'accuracy':>8}  {'1-NED':>6}  {'confidence':>10}  {'images/s':>8}"]
    lines += [
        f"{name:<{width}}  {row['count']:>6}  {row['word_accuracy']:>8.2f}  {row['one_minus_ned']:>6.2f}"
        f"  {row['confidence']:>10.3f}  {row['images_per_second']:>8.0f}"
        for name, row in rows.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
