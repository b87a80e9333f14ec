"""Opens a dataset of any known kind by its path, or a part of one."""

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path

from crnn_jax.data.folder import FolderDataset
from crnn_jax.data.lmdb import LmdbDataset
from crnn_jax.data.sample import Dataset, DatasetError, Record
from crnn_jax.data.shards import ShardDataset

LISTS = ("labels.tsv", "gt.txt", "labels.csv")
TEXTS = (".tsv", ".txt", ".csv")  # suffixes of lists with other names
SHARDS = ("*.tfrecord*", "*.array_record*")

PARTS = ("all", "tenth", "rest")


class Part(Dataset):
    """Samples `start` .. `stop` - 1 of a dataset, which is a dataset too."""

    def __init__(self, dataset: Dataset, start: int, stop: int):
        self.dataset, self.start, self.stop = dataset, start, stop
        self.damage = dataset.damage  # which part it was in is unknown

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Record:
        return self.dataset[range(self.start, self.stop)[index]]

    def place(self, name: str) -> str:
        """The same as in the whole dataset."""
        return self.dataset.place(name)


def open_dataset(path: str | os.PathLike, *, strict: bool = True) -> Dataset:
    """Opens the dataset at `path`, whose kind is recognised from the files there.

    A folder with `labels.tsv`, `gt.txt` or `labels.csv`, or a list itself, whose name ends in one of `TEXTS`: images
    and labels. A folder with `data.mdb`: an LMDB. A folder of `*.tfrecord*` or `*.array_record*` files, one such file,
    or a pattern such as `words-*.tfrecord`: shards. With `strict`, damage found on opening is an error; without it, the
    dataset is whatever can be read, and its `damage` lists the rest. Raises DatasetError.
    """
    path = _expanded(path)
    files = files_of(path)
    if path.name == "data.mdb" and path.is_file():
        return LmdbDataset(path.parent)
    if path.is_dir():
        if not files:
            raise DatasetError(f"{path}: {_lacking(path)}")
        if files[0].name == "data.mdb":
            return LmdbDataset(path)
        if files[0].name not in LISTS:
            _refuse_splits(path, files)
            return ShardDataset(files, strict=strict)
        path = files[0]
    if path.name in LISTS or path.suffix in TEXTS:
        return FolderDataset(path, strict=strict)
    if not files:
        raise DatasetError(f"{path}: no such file or folder")
    return ShardDataset(files, strict=strict)


def files_of(path: str | os.PathLike) -> list[Path]:
    """The files that make up the dataset at `path`: its list, its LMDB file or its shards. Empty if there are none.

    Two paths have the same words if they share a file once links are followed.
    """
    path = _expanded(path)
    if not path.is_dir():
        return [path] if path.exists() else [Path(name) for name in sorted(glob.glob(str(path)))]
    for name in (*LISTS, "data.mdb"):
        if (path / name).is_file():
            return [path / name]
    return sorted(shard for pattern in SHARDS for shard in path.glob(pattern) if not shard.name.startswith("."))


def share_words(path: str | os.PathLike, others: Iterable[str | os.PathLike]) -> bool:
    """Whether the dataset at `path` has a file in common with one of the others."""
    mine, theirs = ({os.path.realpath(file) for one in paths for file in files_of(one)} for paths in ([path], others))
    return not mine.isdisjoint(theirs)


def _expanded(path: str | os.PathLike) -> Path:
    return Path(os.path.expanduser(path))  # the shell expands no ~ inside a list on the command line


def _lacking(folder: Path) -> str:
    if not any(folder.iterdir()):
        return "the folder is empty"
    return f"not a dataset: it contains none of {', '.join((*LISTS, 'data.mdb', *SHARDS))}"


def _refuse_splits(folder: Path, shards: list[Path]) -> None:
    """Refuses a folder in which TFDS keeps several splits, which should not be read as one."""
    names = {re.sub(r"\.(tfrecord|array_record).*", "", path.name) for path in shards}
    if len(names) > 1 and (folder / "dataset_info.json").is_file():
        patterns = ", ".join(f"{folder}/{name}.*" for name in sorted(names))
        raise DatasetError(f"{folder}: contains several splits; choose one: {patterns}")


def tenth_start(dataset: Dataset) -> int:
    """The index at which the fixed tenth begins: the last tenth of a dataset, which training does not use.

    It is a contiguous run, not random words: neighbours in lists of photographs are often crops of one scene, in the
    same light and typeface, and a random tenth would share nearly all its scenes with the rest.
    """
    return len(dataset) - len(dataset) // 10


def take_part(dataset: Dataset, part: str) -> Dataset:
    """`all` of a dataset, its fixed `tenth`, or the `rest` before it (see `tenth_start`).

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
        raise DatasetError(f"a dataset of {count} words has no tenth: it needs 10 or more")
    return Part(dataset, first, count)
