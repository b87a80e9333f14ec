"""Runs images in batches of one width each and of few sizes, on all cores."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jaxtyping import UInt8

from crnn_jax.cores import cores

BATCH_SIZES = (1, 8, 32, 256)  # a batch is filled up to the next of these, so that few shapes are ever compiled
CPU_BATCH = 32  # the most images in a batch on a CPU: more are no faster there
AHEAD = 4  # batches under way on other devices


def of_each(function: Callable, images: Sequence[UInt8[np.ndarray, "_ _"]]) -> list:
    """Applies `function` to batches of images of one width; returns the tree of each image's rows, on the host.

    On a CPU one batch per core is under way: one core for each batch is faster than all cores for one. Elsewhere the
    next batches are computed while the first is fetched. A batch is filled up with copies of its first image.
    """

    def start(rows):
        filling = [images[rows[0]]] * (_filled(rows) - len(rows))
        return function(np.stack([images[i] for i in rows] + filling))

    parts = batches(images)
    if len(parts) < 2 or jax.default_backend() != "cpu":
        made = _fetched(map(start, parts))
    else:
        with ThreadPoolExecutor(cores()) as pool:
            made = list(pool.map(lambda rows: _on_host(start(rows)), parts))
    results = [None] * len(images)
    for rows, tree in zip(parts, made, strict=True):
        leaves, structure = jax.tree.flatten(tree)
        for i, *row in zip(rows, *leaves, strict=False):  # the rows after them only fill the batch up
            results[i] = jax.tree.unflatten(structure, row)
    return results


def _fetched(started: Iterable) -> Iterator:
    """The started results in order, on the host; the next few are computed meanwhile."""
    pending = deque()
    for one in started:
        pending.append(one)
        if len(pending) > AHEAD:
            yield _on_host(pending.popleft())
    yield from map(_on_host, pending)


def _on_host(tree):
    """The tree with NumPy arrays. On a CPU `device_get`, which first starts copying them, takes 0.1 ms longer."""
    return jax.tree.map(np.asarray, tree) if jax.default_backend() == "cpu" else jax.device_get(tree)


def batch_shapes(images: Sequence[UInt8[np.ndarray, "_ _"]]) -> set[tuple[int, int]]:
    """The (size, width) of the batches in which images are read; each has its own compiled program."""
    return {(_filled(rows), images[rows[0]].shape[1]) for rows in batches(images)}


def batches(images: Sequence[UInt8[np.ndarray, "_ _"]]) -> list[list[int]]:
    """The indices of the images in each batch."""
    by_width = defaultdict(list)
    for index, image in enumerate(images):
        by_width[image.shape[1]].append(index)
    return [batch for rows in by_width.values() for batch in _cut(rows)]


def _cut(rows: list[int]) -> list[list[int]]:
    """Cuts images of one width into batches.

    On a CPU they are smaller where large ones would leave cores idle or need much filling: a word takes 4 to 15 %
    longer in a batch of 8 than in one of 32.
    """

    def cut(rows, size):
        return [rows[i : i + size] for i in range(0, len(rows), size)]

    if jax.default_backend() != "cpu":
        return cut(rows, BATCH_SIZES[-1])
    few = BATCH_SIZES[1]
    if -(-len(rows) // CPU_BATCH) < cores():
        return cut(rows, few)
    *whole, last = cut(rows, CPU_BATCH)
    return whole + (cut(last, few) if len(last) <= CPU_BATCH - few else [last])


def _filled(rows: Sequence[int]) -> int:
    """The size of a batch of these images once it is filled up."""
    return next(size for size in BATCH_SIZES if size >= len(rows))
