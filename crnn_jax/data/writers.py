"""Writing datasets: TFRecord and ArrayRecord shards, LMDBs, folders of images."""

import io
from contextlib import suppress
from pathlib import Path

from PIL import Image

from crnn_jax.data.example import serialise
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.tfrecord import TFRecordWriter

BATCH = 1 << 24  # bytes of images between two commits of an LMDB
MAP_SIZE = 1 << 28  # bytes that an LMDB may grow to at first; it doubles when they are full
IN_A_FOLDER = 1000  # images


class LabelError(DatasetError):
    """A label that a format cannot hold: only this record is lost."""


class Writer:
    """Writes labelled images into an empty folder: a context manager.

    Args:
        folder: where.
        name: what shards are called.
        shards: how many, for the formats that have shards.
        total: the maximum number of records.
    """

    def __init__(self, folder: Path, *, name: str, shards: int, total: int):
        self.folder, self.name, self.shards, self.total = folder, name, shards, total
        self.open()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.close()
        else:
            with suppress(Exception):  # the first error is the one to report
                self.abandon()

    @classmethod
    def load(cls) -> None:
        """Imports what the writer needs, before it opens: Python can lose an interrupt in the middle of an import.

        Raises DatasetError if a package is missing.
        """

    def open(self) -> None:
        """Begins."""

    def write(self, index: int, image: bytes, label: str) -> None:
        """Writes the record that was number `index` of `total`; `index` grows from call to call.

        Raises LabelError if the format cannot hold the label, OSError if the disk is full.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Writes whatever is still pending."""

    def abandon(self) -> None:
        """Closes open files after an error."""


class TFRecordShards(Writer):
    """`NAME.tfrecord-00000-of-00008` and so on, as TFDS names them: equal runs of the original records."""

    suffix = "tfrecord"

    @classmethod
    def load(cls) -> None:
        """Needs the packages of the extra `data`."""
        serialise(b"", "")

    def open(self) -> None:
        """See `Writer`."""
        self._shard, self._file = -1, None

    def write(self, index: int, image: bytes, label: str) -> None:
        """Writes to the shard that `index` belongs to, so damaged records, never passed in, do not shift the others."""
        self._advance(index * self.shards // self.total)
        self._file.write(serialise(image, label))

    def close(self) -> None:
        """Completes all shards, empty ones if need be, since their number is in their names."""
        self._advance(self.shards)

    def abandon(self) -> None:
        """See `Writer`."""
        if self._file is not None:
            self._file.__exit__(OSError, None, None)

    def _advance(self, shard: int) -> None:
        while self._shard < shard:
            if self._file is not None:
                self._file.__exit__(None, None, None)
                self._file = None
            self._shard += 1
            if self._shard < self.shards:
                path = self.folder / f"{self.name}.{self.suffix}-{self._shard:05d}-of-{self.shards:05d}"
                self._file = self._open_shard(path).__enter__()

    def _open_shard(self, path: Path):
        return TFRecordWriter(path)


class ArrayRecordShards(TFRecordShards):
    """`NAME.array_record-00000-of-00008` and so on, of the same Examples. Needs the package array-record."""

    suffix = "array_record"

    @classmethod
    def load(cls) -> None:
        """Needs the packages of the extra `data`."""
        super().load()
        try:
            import array_record.python.array_record_module  # noqa: F401
        except ImportError as error:
            package = "array-record"
            raise DatasetError(f"ArrayRecords need the package {package}: pip install {package} ({error})") from None

    def _open_shard(self, path: Path):
        return _ArrayRecordWriter(path)


class _ArrayRecordWriter:
    def __init__(self, path: Path):
        from array_record.python.array_record_module import ArrayRecordWriter

        # One record per group, for reading in any order; compression does not make encoded images smaller.
        self._writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")

    def __enter__(self):
        return self

    def write(self, data: bytes) -> None:
        self._call(self._writer.write, data)

    def __exit__(self, *_):
        self._call(self._writer.close)

    def _call(self, method, *arguments) -> None:
        try:
            method(*arguments)
        except RuntimeError as error:
            raise OSError(" ".join(str(error).partition(";")[0].split())) from None  # the rest is where in the file


class LmdbWriter(Writer):
    """An LMDB with `num-samples`, `image-000000001` and `label-000000001`. Needs the package lmdb.

    It is written twice. In order of arrival, image and label in turn, tree pages are left half full and free pages
    remain; written again in key order, the pages are full and contiguous in the file.
    """

    map_size = MAP_SIZE

    @classmethod
    def load(cls) -> None:
        """Needs the package lmdb."""
        try:
            import lmdb  # noqa: F401
        except ImportError as error:
            raise DatasetError(f"an LMDB needs the package lmdb: pip install lmdb ({error})") from None

    def open(self) -> None:
        """See `Writer`."""
        import lmdb

        self._lmdb, self._count = lmdb, 0
        self._batch: list[tuple[bytes, bytes]] = []
        self._bytes = 0  # in the batch
        self._growing = self._create(self.folder / "growing.mdb", self.map_size)

    def write(self, index: int, image: bytes, label: str) -> None:
        """Numbers the keys by what is written, without gaps."""
        self._count += 1
        self._put(f"image-{self._count:09d}".encode(), image)
        self._put(f"label-{self._count:09d}".encode(), label.encode())
        self._commit_batch(self._growing, least=BATCH)

    def close(self) -> None:
        """Leaves `data.mdb`, as small as possible."""
        self._put(b"num-samples", str(self._count).encode())
        self._commit_batch(self._growing)
        size = (self._growing.info()["last_pgno"] + 1) * self._growing.stat()["psize"]
        ordered = self._create(self.folder / "data.mdb", size)
        try:
            with self._growing.begin() as transaction:
                for key, value in transaction.cursor():
                    self._put(key, value)
                    self._commit_batch(ordered, least=BATCH, append=True)
            self._commit_batch(ordered, append=True)
            ordered.sync(True)
        except self._lmdb.Error as error:
            raise _disk_error(error) from None
        finally:
            ordered.close()
            self._growing.close()
        (self.folder / "growing.mdb").unlink()

    def abandon(self) -> None:
        """See `Writer`."""
        self._growing.close()

    def _create(self, path: Path, map_size: int):
        # Only this process sees it before it is complete, so it needs neither locks nor syncs while it is written.
        return self._lmdb.open(
            str(path), subdir=False, map_size=map_size, lock=False, sync=False, metasync=False, readahead=False
        )

    def _put(self, key: bytes, value: bytes) -> None:
        self._batch.append((key, value))
        self._bytes += len(value)

    def _commit_batch(self, environment, *, least: int = 0, append: bool = False) -> None:
        """Stores the batch if it has at least `least` bytes, doubling the map size as often as necessary."""
        if self._bytes < least:
            return
        while True:
            try:
                with environment.begin(write=True) as transaction:
                    for key, value in self._batch:
                        transaction.put(key, value, append=append)
                break
            except self._lmdb.MapFullError:
                environment.set_mapsize(2 * environment.info()["map_size"])
            except self._lmdb.Error as error:
                raise _disk_error(error) from None
        self._batch, self._bytes = [], 0


def _disk_error(error: Exception) -> OSError:
    # LMDB reports a write that is cut short as "Input/output error"; usually the disk is full.
    return OSError(f"{error}: the disk may be full")


class FolderWriter(Writer):
    """`labels.tsv` and the image files that it lists, a thousand per folder: `images/00000/000000001.jpg` and so on."""

    def open(self) -> None:
        """See `Writer`."""
        self._count = 0
        self._list = (self.folder / "labels.tsv").open("w", encoding="utf-8", newline="")

    def write(self, index: int, image: bytes, label: str) -> None:
        """Numbers the files without gaps. Raises LabelError for a label that contains a line or column separator."""
        if "\n" in label or "\t" in label or label.endswith("\r"):
            raise LabelError(f"the label {label!r} has a line break or a tab, which cannot be written")
        self._count += 1
        name = f"images/{(self._count - 1) // IN_A_FOLDER:05d}/{self._count:09d}.{image_format(image)}"
        path = self.folder / name
        if self._count % IN_A_FOLDER == 1:
            path.parent.mkdir(parents=True)
        path.write_bytes(image)
        self._list.write(f"{name}\t{label}\n")

    def close(self) -> None:
        """See `Writer`."""
        self._list.close()

    def abandon(self) -> None:
        """See `Writer`."""
        self._list.close()


WRITERS = {"tfrecord": TFRecordShards, "array_record": ArrayRecordShards, "lmdb": LmdbWriter, "folder": FolderWriter}


def image_format(image: bytes) -> str:
    """The usual suffix of an encoded image, such as `jpg`, from its content."""
    name = Image.open(io.BytesIO(image)).format.lower()
    return {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif"}.get(name, name)
