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
    """A label that a format cannot hold: this record is lost, the others are not."""


class Writer:
    """Writes labelled images into an empty folder: a context manager.

    Args:
        folder: where.
        name: what shards are called.
        shards: how many, for the formats that have shards.
        total: the number of records that there will be at most.
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
            with suppress(Exception):  # the first error is the one to tell
                self.abandon()

    @classmethod
    def load(cls) -> None:
        """Imports what it needs, before it opens: an interrupt in the middle of an import can get lost in Python.

        Raises DatasetError where a package is missing.
        """

    def open(self) -> None:
        """Begins."""

    def write(self, index: int, image: bytes, label: str) -> None:
        """Writes the record that was number `index` of `total`, which grows from call to call.

        Raises LabelError where the format cannot hold the label, OSError where the disk is full.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Writes what is left to write."""

    def abandon(self) -> None:
        """Lets go of open files, after an error."""


class TFRecordShards(Writer):
    """`NAME.tfrecord-00000-of-00008` and so on, as TFDS names them: each an equal run of the records there were."""

    suffix = "tfrecord"

    @classmethod
    def load(cls) -> None:
        """Needs the packages of the extra `data`."""
        serialise(b"", "")

    def open(self) -> None:
        """See `Writer`."""
        self._shard, self._file = -1, None

    def write(self, index: int, image: bytes, label: str) -> None:
        """Into the shard of its index: damaged records, which never come, leave the others where they were."""
        self._advance(index * self.shards // self.total)
        self._file.write(serialise(image, label))

    def close(self) -> None:
        """All shards are there, if need be without a record: their number is in their names."""
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

        # One record a group, for reading in any order; encoded images do not get smaller by compression.
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
            raise OSError(" ".join(str(error).partition(";")[0].split())) from None  # what follows is where in the file


class LmdbWriter(Writer):
    """An LMDB with `num-samples`, `image-000000001` and `label-000000001`. Needs the package lmdb.

    It is written twice. In the order in which records come, images and labels in turn, the pages of the tree are left
    half full, and free ones are left behind; in the order of the keys pages are full, and neighbours in the file.
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
        """The keys count what is written, without gaps."""
        self._count += 1
        self._put(f"image-{self._count:09d}".encode(), image)
        self._put(f"label-{self._count:09d}".encode(), label.encode())
        self._commit_batch(self._growing, least=BATCH)

    def close(self) -> None:
        """Leaves `data.mdb`, as small as it can be."""
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
        # Nobody but this process sees it before it is whole, so that neither locks nor syncs on the way are needed.
        return self._lmdb.open(
            str(path), subdir=False, map_size=map_size, lock=False, sync=False, metasync=False, readahead=False
        )

    def _put(self, key: bytes, value: bytes) -> None:
        self._batch.append((key, value))
        self._bytes += len(value)

    def _commit_batch(self, environment, *, least: int = 0, append: bool = False) -> None:
        """Stores the batch if it has `least` bytes, in a map that doubles as often as it must."""
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
    # LMDB calls a write that is cut short an "Input/output error", and most often the disk is full.
    return OSError(f"{error}: the disk may be full")


class FolderWriter(Writer):
    """`labels.tsv` and the image files that it lists, a thousand a folder: `images/00000/000000001.jpg` and so on."""

    def open(self) -> None:
        """See `Writer`."""
        self._count = 0
        self._list = (self.folder / "labels.tsv").open("w", encoding="utf-8", newline="")

    def write(self, index: int, image: bytes, label: str) -> None:
        """The files are numbered without gaps. Raises LabelError for a label with what parts lines or columns."""
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
    """The usual suffix of an encoded image, such as `jpg`, by its content."""
    name = Image.open(io.BytesIO(image)).format.lower()
    return {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif"}.get(name, name)
