"""Open a dataset of any of the known kinds by its path."""

import glob
import os
from pathlib import Path

from crnn_jax.data.folder import FolderDataset
from crnn_jax.data.lmdb import LmdbDataset
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.tfrecord import TFRecordDataset

LISTS = ("labels.tsv", "gt.txt")

# Iterating yields Samples in a fixed order, decoded one at a time, each time from the beginning, and raises
# DatasetError or ImageError at one that cannot be read. All know their len().
Dataset = FolderDataset | LmdbDataset | TFRecordDataset


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
