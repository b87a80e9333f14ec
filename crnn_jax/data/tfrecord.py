"""TFRecord shards of tf.train.Example records, read without TensorFlow."""

import functools
import itertools
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from crnn_jax.data.sample import DatasetError, Sample
from crnn_jax.images import load_image

IMAGE = "image/encoded"
LABELS = ("text/string", "image/transcript")  # the second is ASTER's and its relatives'


class TFRecordDataset:
    """Examples with an encoded image in `image/encoded` and its label in `text/string` or `image/transcript`.

    Which of the two, the first record tells. Needs the packages tensorflow-datasets, for the Example message alone, and
    google-crc32c (extra `data`). Raises DatasetError; messages count records from 0.
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = list(paths)
        where, features = next(self._examples(), (None, None))
        if features is None:
            raise DatasetError(f"{self.paths[0]}: no records")
        self._label = next((key for key in LABELS if key in features), None)
        if self._label is None or IMAGE not in features:
            raise DatasetError(f"{where}: needs {IMAGE} and {' or '.join(LABELS)}, has {', '.join(sorted(features))}")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        return self.samples()

    def samples(self, start: int = 0, *, stop: int | None = None) -> Iterator[Sample]:
        """Samples `start` .. `stop` - 1; of those in front only the lengths are read, of those behind nothing."""
        count = None if stop is None else max(0, stop - start)
        for where, features in itertools.islice(self._examples(start), count):
            image = load_image(_one_value(features, IMAGE, where), name=where)
            try:
                label = _one_value(features, self._label, where).decode()
            except UnicodeDecodeError:
                raise DatasetError(f"{where}: {self._label} is not UTF-8") from None
            yield Sample(image, label, where)

    @functools.cached_property
    def _count(self) -> int:
        return sum(count_records(path) for path in self.paths)

    def _examples(self, start: int = 0) -> Iterator[tuple[str, Mapping]]:
        """Every record from number `start` on, over all shards: its place, for messages, and its features."""
        try:
            # The message as a ready module: importing it takes in no TensorFlow.
            from google.protobuf.message import DecodeError
            from tensorflow_datasets.proto import tf_example_pb2
        except ImportError as error:
            raise _needs("tensorflow-datasets", self.paths[0], error) from None
        for path in self.paths:
            if start and start >= (count := count_records(path)):
                start -= count
                continue
            for index, record in enumerate(read_records(path, start=start), start):
                where = f"{path}, record {index}"
                try:
                    features = tf_example_pb2.Example.FromString(record).features.feature
                except DecodeError:
                    raise DatasetError(f"{where}: not a tf.train.Example") from None
                yield where, features
            start = 0


def read_records(path: Path, *, start: int = 0) -> Iterator[bytes]:
    """The records of a TFRecord file from number `start` on, checksums verified. Raises DatasetError.

    A record is its length (8 bytes), the length's checksum (4), the data, and the data's checksum (4), little-endian
    (tensorflow/core/lib/io/record_writer.h).
    """
    for index, (where, file, length) in enumerate(_frames(path)):
        if index < start:
            file.seek(length + 4, 1)
            continue
        data, checksum = file.read(length), file.read(4)
        if len(data) + len(checksum) < length + 4:
            raise DatasetError(f"{where}: cut short")
        if checksum != _checksum(data, path):
            raise DatasetError(f"{where}: damaged: its checksum does not match")
        yield data


def count_records(path: Path) -> int:
    """How many records a TFRecord file has, from their lengths alone. Raises DatasetError."""
    size = path.stat().st_size if path.is_file() else 0
    count = 0
    for where, file, length in _frames(path):
        if file.seek(length + 4, 1) > size:
            raise DatasetError(f"{where}: cut short")
        count += 1
    return count


def _frames(path: Path) -> Iterator[tuple[str, BinaryIO, int]]:
    """Every record's place, for messages, the file standing at its data, and the length of the data.

    The caller moves the file on, behind the data's checksum.
    """
    try:
        with open(path, "rb") as file:
            index = 0
            while header := file.read(12):
                where = f"{path}, record {index}"
                if len(header) < 12:
                    raise DatasetError(f"{where}: cut short")
                if header[8:] != _checksum(header[:8], path):
                    raise DatasetError(
                        f"{where}: damaged, compressed or no TFRecord: its length's checksum does not match"
                    )
                yield where, file, struct.unpack("<Q", header[:8])[0]
                index += 1
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None


def _checksum(data: bytes, path: Path) -> bytes:
    """CRC-32C, masked as TFRecords have it: rotated, and a constant added."""
    try:
        import google_crc32c  # C: 0.4 us a word image; a table in Python takes a millisecond
    except ImportError as error:
        raise _needs("google-crc32c", path, error) from None
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _one_value(features: Mapping, key: str, where: str) -> bytes:
    values = features[key].bytes_list.value if key in features else []
    if len(values) != 1:
        raise DatasetError(f"{where}: {key} has {len(values)} byte strings instead of one")
    return values[0]


def _needs(package: str, path: Path, error: ImportError) -> DatasetError:
    return DatasetError(f"{path}: TFRecords need the package {package}: pip install {package} ({error})")
