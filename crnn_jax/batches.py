"""Images in batches: of one width each, of few sizes, on all cores."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jaxtyping import UInt8

from crnn_jax.cores import cores

BATCH_SIZES = (1, 8, 32, 256)  # a batch is filled up to the next of these, so that few shapes are ever compiled
CPU_BATCH = 32  # images at most, on a CPU: more are no faster there
AHEAD = 4  # batches under way, off the CPU


def of_each(function: Callable, images: Sequence[UInt8[np.ndarray, "_ _"]]) -> list:
    """What `function`, of a batch of images of one width, makes of each, on the host: a tree of the rows of its arrays.

    On a CPU as many batches are under way as it has cores: one core for each is faster than all for one. Elsewhere the
    next ones are on their way while the first is fetched. A batch is filled up behind its images with the first.
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
        for i, *row in zip(rows, *leaves, strict=False):  # behind them is what filled the batch up
            results[i] = jax.tree.unflatten(structure, row)
    return results


def _fetched(started: Iterable) -> Iterator:
    """What was started, on the host, in its order; the next few are on their way meanwhile."""
    pending = deque()
    for one in started:
        pending.append(one)
        if len(pending) > AHEAD:
            yield _on_host(pending.popleft())
    yield from map(_on_host, pending)


def _on_host(tree):
    """Its arrays as NumPy's. On a CPU `device_get`, which sets out to copy them first, takes a tenth of a ms longer."""
    return jax.tree.map(np.asarray, tree) if jax.default_backend() == "cpu" else jax.device_get(tree)


def batch_shapes(images: Sequence[UInt8[np.ndarray, "_ _"]]) -> set[tuple[int, int]]:
    """The sizes and widths of the batches in which images are read: of each there is a program of its own."""
    return {(_filled(rows), images[rows[0]].shape[1]) for rows in batches(images)}


def batches(images: Sequence[UInt8[np.ndarray, "_ _"]]) -> list[list[int]]:
    """The indices of the images of every batch."""
    by_width = defaultdict(list)
    for index, image in enumerate(images):
        by_width[image.shape[1]].append(index)
    return [batch for rows in by_width.values() for batch in _cut(rows)]


def _cut(rows: list[int]) -> list[list[int]]:
    """Images of one width in batches. On a CPU they are smaller where large ones would leave cores without any, or
    would be filled up a good deal: a word takes 4 to 15 % longer among 8 than among 32."""

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
    """How many images a batch of these has once it is filled up."""
    return next(size for size in BATCH_SIZES if size >= len(rows))
