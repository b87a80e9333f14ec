"""LMDBs in the format of the CRNN and deep-text-recognition-benchmark repositories."""

import os
import threading
import weakref
from pathlib import Path

from crnn_jax.data.sample import Dataset, DatasetError, Record

# LMDB refuses to open a folder twice in one process, so datasets on one folder share an open environment.
_opened: "weakref.WeakValueDictionary[tuple[Path, int], _Environment]" = weakref.WeakValueDictionary()
_opening = threading.Lock()  # else two threads that look there at once would both open it


class LmdbDataset(Dataset):
    """An LMDB folder with the keys `num-samples`, `image-000000001` (an encoded image) and `label-000000001` (UTF-8).

    Needs the package lmdb (extra `data`). Raises DatasetError.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._environment: _Environment | None = None
        count = self._get("num-samples")
        if not count.isdigit():
            raise DatasetError(f"{folder}: num-samples is {count[:20]!r}, not a number")
        self._count = int(count)
        if self._count == 0:
            raise DatasetError(f"{folder}: the LMDB is empty")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Record:
        number = range(1, self._count + 1)[index]  # keys count from 1
        name = f"image-{number:09d}"
        try:
            label = self._get(f"label-{number:09d}").decode()
        except UnicodeDecodeError:
            raise DatasetError(f"{self.folder}, label-{number:09d}: not UTF-8") from None
        return Record(self._get(name), label, name)

    def place(self, name: str) -> str:
        """The folder and the key."""
        return f"{self.folder}, {name}"

    def _get(self, key: str) -> bytes:
        if self._environment is None:
            self._environment = _open(self.folder)
        try:
            value = self._environment.get(key.encode())
        except self._environment.error as error:  # a damaged page: LMDB has no checksums, but checks some things
            raise DatasetError(f"{self.folder}: the key {key} cannot be read: {error}") from None
        if value is None:
            raise DatasetError(f"{self.folder}: the key {key} is missing")
        return value

    def __getstate__(self):
        return self.__dict__ | {"_environment": None}


class _Environment:
    """An open LMDB folder; closed when its last dataset is gone."""

    def __init__(self, folder: Path):
        import lmdb

        self.error = lmdb.Error
        self._lmdb = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)
        # LMDB maps the file into memory, and reading past the end of a truncated one kills the process.
        needed = (self._lmdb.info()["last_pgno"] + 1) * self._lmdb.stat()["psize"]
        if os.path.getsize(folder / "data.mdb") < needed:
            self._lmdb.close()
            raise DatasetError(f"{folder}/data.mdb: cut short, it should have {needed} bytes")

    def get(self, key: bytes) -> bytes | None:
        with self._lmdb.begin() as transaction:
            return transaction.get(key)

    def __del__(self):
        if hasattr(self, "_lmdb"):
            self._lmdb.close()


def _open(folder: Path) -> _Environment:
    try:
        import lmdb
    except ImportError as error:
        raise DatasetError(f"{folder}: an LMDB needs the package lmdb: pip install lmdb ({error})") from None
    key = folder.resolve(), os.getpid()
    with _opening:
        environment = _opened.get(key)
        if environment is None:
            try:
                environment = _opened[key] = _Environment(folder)
            except lmdb.Error as error:
                raise DatasetError(f"{folder}: the LMDB cannot be read: {error}") from None
    return environment
