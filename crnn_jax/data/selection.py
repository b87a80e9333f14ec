"""Finds which records of a dataset can be trained on, and why the others cannot, before the first step."""

import glob
import hashlib
import json
import multiprocessing
import os
import uuid
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from tqdm import tqdm

from crnn_jax.charset import Charset
from crnn_jax.config import Config
from crnn_jax.data.damage import Damage
from crnn_jax.data.dataset import open_dataset
from crnn_jax.data.sample import Dataset, DatasetError
from crnn_jax.data.target import class_ids, reasons, turned, unfit
from crnn_jax.images import ImageError, image_size

CHUNK = 10_000  # records examined together
IN_PARALLEL = 100_000  # records from which starting other processes pays off
PLACES = 20  # of damage that are reported
VERSION = 4  # of the cached data


class Selection(NamedTuple):
    """The records of a dataset that are kept."""

    indices: Int64[np.ndarray, " R"]  # of the records that can be trained on
    left_out: dict[str, int]  # reason: number of others
    damage: tuple[str, ...]  # the first places of damage
    checksum: int  # of the images and labels that are kept, in order

    def report(self, path: str) -> str:
        """One line: how many are kept and why the rest are not."""
        return f"{path}: {len(self.indices)} words{reasons(self.left_out)}"


def select(path: str, config: Config, *, cache: Path | None = None, processes: int = 1) -> tuple[Dataset, Selection]:
    """Opens what is left of the dataset at `path`, and selects what fits the model, the charset and the frames.

    Every record is read, but its image is not decoded: about 40 us each. A cut in a shard counts as one lost
    record, since the number of records after it is unknown.

    Args:
        path: as for `open_dataset`.
        config: of the run.
        cache: a folder where the selection is kept, for the next start of the same run on the same files.
        processes: how many share the work if there is enough of it.

    Raises DatasetError if nothing is left.
    """
    dataset = open_dataset(path, strict=False)
    file = cache / f"{_fingerprint(path, dataset, config)}.npz" if cache else None
    if file and file.is_file():
        with np.load(file) as saved:
            left_out = json.loads(str(saved["left_out"]))
            damage, checksum = tuple(saved["damage"].tolist()), int(saved["checksum"])
            return dataset, Selection(saved["indices"], left_out, damage, checksum)
    chunks = [range(start, min(start + CHUNK, len(dataset))) for start in range(0, len(dataset), CHUNK)]
    indices, left_out, damage, checksum = [], Counter(), list(dataset.damage), 0
    with tqdm(total=len(dataset), desc=f"looking at {path}", unit="word", disable=None, leave=False) as bar:
        for kept, others, places, of_chunk in _looks(
            dataset, config, chunks, processes if len(dataset) >= IN_PARALLEL else 1
        ):
            indices.append(kept)
            left_out.update(others)
            damage += places
            checksum = zlib.crc32(of_chunk.to_bytes(4), checksum)
            bar.update(len(kept) + others.total())
    lost = Damage()
    for message in dataset.damage:
        lost.add(message)
    left_out.update(lost.counts)
    selection = Selection(np.concatenate(indices), dict(left_out), tuple(damage[:PLACES]), checksum)
    if not len(selection.indices):
        first = f" ({selection.damage[0]})" if selection.damage else ""
        raise DatasetError(f"{selection.report(path)}: nothing is left to train on{first}")
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial_file = file.with_suffix(f".{uuid.uuid4().hex}")  # several hosts may write it at once
        with partial_file.open("wb") as stream:
            left_out = json.dumps(selection.left_out)
            damage = np.array(selection.damage, str)
            np.savez(stream, indices=selection.indices, left_out=left_out, damage=damage, checksum=checksum)
        partial_file.replace(file)
    return dataset, selection


def _look(dataset: Dataset, config: Config, chunk: range) -> tuple[np.ndarray, Counter, list[str], int]:
    charset = Charset.of(config.model.charset)
    kept, left_out, damage, checksum = [], Counter(), [], 0
    for index in chunk:
        try:
            record = dataset[index]
            size = _size(record.image, name=dataset.place(record.name))
        except (DatasetError, ImageError) as error:
            reason = "damaged"
            damage.append(str(error))
        else:
            ids, low = class_ids(record.label, charset), size[0] < config.data.min_height
            reason = f"less than {config.data.min_height} pixels high" if low else ""
            reason = reason or unfit(ids, config) or turned(size, ids)
        if reason:
            left_out[reason] += 1
        else:
            kept.append(index)
            checksum = zlib.crc32(record.label.encode(errors="surrogatepass"), zlib.crc32(record.image, checksum))
    return np.array(kept, np.int64), left_out, damage[:PLACES], checksum


def _size(image: bytes | np.ndarray, *, name: str) -> tuple[int, int]:
    return image.shape[:2] if isinstance(image, np.ndarray) else image_size(image, name=name)


def _looks(dataset: Dataset, config: Config, chunks: list[range], processes: int) -> Iterator[tuple]:
    if processes <= 1:
        yield from map(partial(_look, dataset, config), chunks)
        return
    # Spawned, since a fork of a process that runs JAX's threads may hang. What all chunks share is sent once per
    # process: the offsets of nine million records are 100 MB.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_share, initargs=(dataset, config)) as pool:
        yield from pool.map(_look_at_shared, chunks)


_shared: tuple[Dataset, Config] | None = None  # in a worker


def _share(dataset: Dataset, config: Config) -> None:
    global _shared
    _shared = dataset, config


def _look_at_shared(chunk: range) -> tuple[np.ndarray, Counter, list[str], int]:
    return _look(*_shared, chunk)


def _fingerprint(path: str, dataset: Dataset, config: Config) -> str:
    """A hash of everything in the configuration that a selection depends on, and of the files at `path`.

    In a folder those are its direct entries, such as shards or a list, not the images in folders below it.
    """
    place = Path(os.path.expanduser(path))
    files = place.iterdir() if place.is_dir() else [place] if place.exists() else map(Path, glob.glob(str(place)))
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(files)]
    data, model = config.data, config.model
    fields = [data.max_length, data.min_height, model.charset, model.cnn, model.height, model.width]
    text = repr((VERSION, str(place.absolute()), len(dataset), stats, fields))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
