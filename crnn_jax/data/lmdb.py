"""LMDBs in the form of the CRNN and deep-text-recognition-benchmark repositories."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from crnn_jax.data.sample import DatasetError, Sample
from crnn_jax.images import load_image


class LmdbDataset:
    """An LMDB folder with the keys `num-samples`, `image-000000001` (an encoded image) and `label-000000001` (UTF-8).

    Needs the package lmdb (extra `data`). Raises DatasetError.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        with self._open() as get:
            count = get("num-samples")
        if not count.isdigit():
            raise DatasetError(f"{folder}: num-samples is {count[:20]!r}, not a number")
        self._count = int(count)
        if self._count == 0:
            raise DatasetError(f"{folder}: the LMDB is empty")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        return self.samples()

    def samples(self, start: int = 0, *, stop: int | None = None) -> Iterator[Sample]:
        """Samples `start` .. `stop` - 1; the keys of no other are looked up."""
        with self._open() as get:
            for index in range(1, self._count + 1)[start:stop]:  # keys count from 1
                name = f"image-{index:09d}"
                try:
                    label = get(f"label-{index:09d}").decode()
                except UnicodeDecodeError:
                    raise DatasetError(f"{self.folder}, label-{index:09d}: not UTF-8") from None
                yield Sample(load_image(get(name), name=f"{self.folder}, {name}"), label, name)

    @contextlib.contextmanager
    def _open(self):
        """Gives `get(key) -> bytes`. Open only as long as it is read: LMDB refuses to open a folder twice."""
        try:
            import lmdb
        except ImportError as error:
            raise DatasetError(f"{self.folder}: an LMDB needs the package lmdb: pip install lmdb ({error})") from None

        def get(key: str) -> bytes:
            value = transaction.get(key.encode())
            if value is None:
                raise DatasetError(f"{self.folder}: the key {key} is missing")
            return value

        try:
            with lmdb.open(str(self.folder), readonly=True, lock=False, readahead=False) as environment:
                # LMDB maps the file into memory, and reading behind the end of one cut short kills the process.
                needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
                if os.path.getsize(self.folder / "data.mdb") < needed:
                    raise DatasetError(f"{self.folder}/data.mdb: cut short, it should have {needed} bytes")
                with environment.begin() as transaction:
                    yield get
        except lmdb.Error as error:
            raise DatasetError(f"{self.folder}: the LMDB cannot be read: {error}") from None
