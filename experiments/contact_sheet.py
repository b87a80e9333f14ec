"""Draws a page of rendered words, next to words of a dataset if one is given.

    python experiments/contact_sheet.py [--config NAME] [--set data.style=photo ...] [--beside PATH] [--out sheet.png]

PATH is anything that evaluate.py reads. Look at the page: the two halves should be hard to tell apart.
"""

import argparse
import random
from functools import partial
from pathlib import Path

import jax
import numpy as np
from command import add_overrides, run, tells
from outputs import check_outputs
from PIL import Image
from train import load_config

from crnn_jax.config import ConfigError, override
from crnn_jax.data.sample import Dataset, DatasetError
from crnn_jax.evaluation import open_datasets
from crnn_jax.images import ImageError, fit_image
from crnn_jax.synth.batch import check_charset, load_source, synth_batch

GAP = 2  # pixels between images


@tells(ConfigError, DatasetError, ImageError, OSError, OverflowError, ValueError)
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="tiny", metavar="NAME|PATH", help="name in experiments/configs/, or a path")
    add_overrides(parser)
    parser.add_argument("--beside", metavar="PATH", help="dataset to show in the right half")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--columns", type=int, default=8, help="columns of each half")
    parser.add_argument("--scale", type=int, default=1, help="pixels drawn per pixel of an image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("sheet.png"), metavar="FILE")
    args = parser.parse_args()
    if min(args.rows, args.columns, args.scale) < 1:
        raise ValueError("--rows, --columns and --scale must be at least 1")
    if args.out.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"{args.out}: expected an image file name, such as sheet.png")
    check_outputs(args.out, inputs=filter(None, [args.beside]))
    config = override(load_config(args.config), args.set)
    check_charset(config)
    count = args.rows * args.columns
    batch_size = -(-count // 4) * 4
    draw = jax.jit(partial(synth_batch, batch_size=batch_size, config=config))
    images = np.asarray(draw(jax.random.key(args.seed), load_source(config)).image)[:count]
    halves = [page(images, args.columns)]
    if args.beside:
        (dataset,) = open_datasets([args.beside], config).values()
        halves.append(page(sample_images(dataset, count, images.shape[1:], args.seed), args.columns))
    sheet = Image.fromarray(np.concatenate(halves, axis=1))
    sheet.resize((sheet.width * args.scale, sheet.height * args.scale), Image.Resampling.NEAREST).save(args.out)
    where = f" on the left, words of {args.beside} on the right" if args.beside else ""
    print(f"{count} rendered words{where}: {args.out}")
    return 0


def sample_images(dataset: Dataset, count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """`count` images of a dataset, chosen at random, stretched to `size`; white if it has fewer."""
    chosen = sorted(random.Random(seed).sample(range(len(dataset)), min(count, len(dataset))))
    height, width = size
    samples = (sample for i in chosen for sample in dataset.samples(i, stop=i + 1))
    images = [fit_image(sample.image, height=height, width=width) for sample in samples]
    return np.stack(images + [np.full(size, 255, np.uint8)] * (count - len(images)))


def page(images: np.ndarray, columns: int) -> np.ndarray:
    """Images `n H W` in rows of `columns`, as one array."""
    n, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, GAP), (0, GAP)), constant_values=255)
    grid = padded.reshape(n // columns, columns, height + GAP, width + GAP)
    return grid.transpose(0, 2, 1, 3).reshape(n // columns * (height + GAP), -1)


if __name__ == "__main__":
    run(main)
