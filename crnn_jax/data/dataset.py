"""Open a dataset of any of the known kinds by its path, or a part of it."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from crnn_jax.data.folder import FolderDataset
from crnn_jax.data.lmdb import LmdbDataset
from crnn_jax.data.rendered import RenderedWords
from crnn_jax.data.sample import DatasetError, Sample
from crnn_jax.data.tfrecord import TFRecordDataset

LISTS = ("labels.tsv", "gt.txt")

PARTS = ("all", "tenth", "rest")


class Part:
    """Samples `start` .. `stop` - 1 of a dataset, which is a dataset too; what is left out is not decoded."""

    def __init__(self, dataset: "Dataset", start: int, stop: int):
        self.dataset, self.start, self.stop = dataset, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[Sample]:
        return self.samples()

    def samples(self, start: int = 0, *, stop: int | None = None) -> Iterator[Sample]:
        """Samples `start` .. `stop` - 1 of this part."""
        inside = range(self.start, self.stop)[start:stop]
        return self.dataset.samples(inside.start, stop=inside.stop)


# Iterating yields Samples in a fixed order, decoded one at a time, each time from the beginning, and raises
# DatasetError or ImageError at one that cannot be read. All know their len(), and `samples(start, stop=)` gives some.
Dataset = FolderDataset | LmdbDataset | TFRecordDataset | RenderedWords | Part


def open_dataset(path: str | os.PathLike) -> Dataset:
    """The dataset at `path`, its kind told by what is there.

    A folder with `labels.tsv` or `gt.txt` (or that file itself): images and a list of labels. A folder with
    `data.mdb`: an LMDB. A folder of `*.tfrecord*` files, one such file, or a pattern such as `words-*.tfrecord`:
    TFRecord shards. Raises DatasetError.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if path.name in LISTS:
        return FolderDataset(path)
    files = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(str(path)))]
    if not files:
        raise DatasetError(f"{path}: no such file or folder")
    return TFRecordDataset(files)


def _open_folder(folder: Path) -> Dataset:
    for name in LISTS:
        if (folder / name).is_file():
            return FolderDataset(folder / name)
    if (folder / "data.mdb").is_file():
        return LmdbDataset(folder)
    shards = sorted(folder.glob("*.tfrecord*"))
    if shards:
        return TFRecordDataset(shards)
    if not any(folder.iterdir()):
        raise DatasetError(f"{folder}: an empty folder")
    raise DatasetError(f"{folder}: no dataset: it has none of {', '.join(LISTS)}, data.mdb, *.tfrecord*")


def tenth_start(dataset: Dataset) -> int:
    """The index at which the fixed tenth begins: the last tenth of a dataset, which training leaves alone.

    A run of neighbours, not words at random: neighbours in the lists of photographs are often crops of one scene, in
    one light and one typeface, and of a random tenth nearly every scene would be among the rest as well.
    """
    return len(dataset) - len(dataset) // 10


def take_part(dataset: Dataset, part: str) -> Dataset:
    """`all` of a dataset, its fixed `tenth`, or the `rest` in front of that (see `tenth_start`).

    Raises DatasetError for the tenth of fewer than ten words.
    """
    if part not in PARTS:
        raise ValueError(f"part = {part!r}: expected {', '.join(PARTS)}")
    if part == "all":
        return dataset
    first, count = tenth_start(dataset), len(dataset)
    if part == "rest":
        return Part(dataset, 0, first)
    if first == count:
        raise DatasetError(f"a dataset of {count} words has no tenth: it takes ten")
    return Part(dataset, first, count)
