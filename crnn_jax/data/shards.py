"""Shards of tf.train.Examples, in TFRecord or ArrayRecord files, as one dataset."""

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from crnn_jax.data.example import label_name, parse_features, to_record
from crnn_jax.data.sample import Dataset, DatasetError, Record
from crnn_jax.data.tfrecord import TFRecordFile, allow_open

SOUGHT = 1000  # records in which to look for a label, so that files of another kind are not read to the end


class ShardDataset(Dataset):
    """The labelled images of several files, in their order.

    Examples have an encoded image in `image/encoded` and its label in `text/string` or `image/transcript`; the first
    record decides which. Messages count records from 0. With `strict`, a shard that is cut short or whose records
    cannot be located is an error; without it, the records before the damage are kept, and `damage` reports the rest.
    Needs the packages of the extra `data`. Raises DatasetError.
    """

    def __init__(self, paths: Sequence[Path], *, strict: bool = True):
        allow_open(len(paths))
        files, damage = [], []
        for path in paths:
            try:
                files.append(_open(path))
            except DatasetError as error:
                damage.append(str(error))
            else:
                damage += [files[-1].damage] if files[-1].damage else []
            if damage and strict:
                raise DatasetError(damage[0])
        self.damage = tuple(damage)
        self._files, self._strict = files, strict
        self._stops = list(itertools.accumulate(len(file) for file in files))
        if not self._stops or not self._stops[-1]:
            raise DatasetError(damage[0] if damage else f"{paths[0]}: no records")
        self._label = self._find_label()

    def __len__(self) -> int:
        return self._stops[-1]

    def __getitem__(self, index: int) -> Record:
        return to_record(*self._message(index, self._label))

    def _message(self, index: int, *rest):
        index = range(len(self))[index]
        shard = bisect_right(self._stops, index)
        number = index - (self._stops[shard - 1] if shard else 0)
        file = self._files[shard]
        return file[number], *rest, f"{file.path}, record {number}"

    def _find_label(self) -> str:
        # Uses the first record that can be read, so that a damaged one does not lose the others.
        errors = []
        for index in range(min(len(self), SOUGHT)):
            try:
                message, where = self._message(index)
                return label_name(parse_features(message, where), where)
            except DatasetError as error:
                errors.append(error)
                if self._strict:
                    break
        raise errors[0]


class ArrayRecordFile:
    """The records of one ArrayRecord file by number. Needs the package array-record. Raises DatasetError."""

    damage = None

    def __init__(self, path: Path):
        self.path = path
        self._reader = None
        try:
            self._count = self._open().num_records()
        except DatasetError:  # also a ValueError
            raise
        except (ValueError, RuntimeError, IndexError) as error:
            reason = " ".join(str(error).split())
            raise DatasetError(f"{path}: the ArrayRecord file cannot be read: {reason}") from None
        if not self._reader.ok():  # its end, which describes the contents, is damaged
            raise DatasetError(f"{path}: the ArrayRecord file cannot be read: cut short, or not an ArrayRecord file")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> bytes:
        try:
            [data] = self._open().read([index])
        except DatasetError:
            raise
        except (ValueError, RuntimeError, IndexError) as error:
            raise DatasetError(f"{self.path}, record {index}: damaged: {' '.join(str(error).split())}") from None
        return data

    def _open(self):
        if self._reader is None:
            try:
                from array_record.python.array_record_module import ArrayRecordReader
            except ImportError as error:
                raise DatasetError(
                    f"{self.path}: ArrayRecords need the package array-record: pip install array-record ({error})"
                ) from None
            if not self.path.is_file() or not self.path.stat().st_size:  # the reader would abort the process
                raise DatasetError(f"{self.path}: {'the file is empty' if self.path.is_file() else 'no such file'}")
            self._reader = ArrayRecordReader(str(self.path))
        return self._reader

    def __getstate__(self):
        return self.__dict__ | {"_reader": None}


def _open(path: Path) -> TFRecordFile | ArrayRecordFile:
    return ArrayRecordFile(path) if ".array_record" in path.name else TFRecordFile(path)
