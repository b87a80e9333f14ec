"""Reads TFRecord files, any record by its number, and writes them; without TensorFlow."""

import os
import struct
from pathlib import Path

import numpy as np

from crnn_jax.data.sample import DatasetError

HEADER = 12  # bytes: the length of the data, and the length's checksum
FOOTER = 4  # the data's checksum
OTHERS = 512  # files that may be open besides those of a dataset


def allow_open(files: int) -> None:
    """Raises the limit on open files (usually 1,024) to leave room for `files` more, as far as the system allows."""
    try:
        import resource
    except ImportError:  # Windows, which has a different limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files + OTHERS if hard == resource.RLIM_INFINITY else min(files + OTHERS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class TFRecordFile:
    """The records of one file by number, from 0, each verified against its checksum when read.

    A record is its length (8 bytes), the length's checksum (4), the data, and the data's checksum (4), little-endian
    (tensorflow/core/lib/io/record_writer.h). The records are located when the file is opened, from their lengths
    alone, which takes 12 bytes of memory per record. Beyond a damaged length no record can be found: `damage` reports
    it, and is None if the file is whole. Needs the package google-crc32c (extra `data`). Raises DatasetError.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file: int | None = None
        self._offsets, self._lengths, self.damage = self._index()

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> bytes:
        length = int(self._lengths[index])
        content = self._read(length + FOOTER, int(self._offsets[index]))
        data, checksum = content[:length], content[length:]
        if len(checksum) < FOOTER:
            raise DatasetError(f"{self.path}, record {index}: cut short")
        if checksum != _checksum(data, self.path):
            raise DatasetError(f"{self.path}, record {index}: damaged: its checksum does not match")
        return data

    def _index(self) -> tuple[np.ndarray, np.ndarray, str | None]:
        """Offset and length in bytes of every record's data, and what stopped the search before the end."""
        try:
            size = os.stat(self.path).st_size
        except OSError as error:
            raise DatasetError(f"{self.path}: {error.strerror}") from None
        offsets, lengths, position, damage = [], [], 0, None
        while position < size and damage is None:
            header = self._read(HEADER, position)
            length = struct.unpack("<Q", header[:8])[0] if len(header) == HEADER else 0
            where = f"{self.path}, record {len(offsets)}"
            if len(header) == HEADER and header[8:] != _checksum(header[:8], self.path):
                damage = f"{where}: damaged, compressed or not a TFRecord: the checksum of its length does not match"
            elif position + HEADER + length + FOOTER > size:
                damage = f"{where}: cut short"
            else:
                offsets.append(position + HEADER)
                lengths.append(length)
                position += HEADER + length + FOOTER
        return np.array(offsets, np.int64), np.array(lengths, np.int32), damage

    def _read(self, count: int, position: int) -> bytes:
        # Read by position: threads can share the file, and what was read does not count as this process's memory.
        try:
            if self._file is None:
                self._file = os.open(self.path, os.O_RDONLY)
            return os.pread(self._file, count, position)
        except OSError as error:
            raise DatasetError(f"{self.path}: {error.strerror}") from None

    def __getstate__(self):
        return self.__dict__ | {"_file": None}

    def __del__(self):
        if getattr(self, "_file", None) is not None:
            os.close(self._file)


class TFRecordWriter:
    """Writes records to a file that gets its name only once complete: a context manager.

    Until then it is called `.incomplete-NAME`; after an error it is removed.
    """

    def __init__(self, path: Path):
        self.path = path
        self._partial = path.with_name(f".incomplete-{path.name}")

    def __enter__(self) -> "TFRecordWriter":
        self._file = open(self._partial, "wb")  # noqa: SIM115 closed by __exit__
        return self

    def write(self, data: bytes) -> None:
        """Appends one record."""
        length = struct.pack("<Q", len(data))
        self._file.write(length + _checksum(length, self.path) + data + _checksum(data, self.path))

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._partial.replace(self.path)
        finally:
            try:
                self._file.close()  # on a full disk this fails again
            finally:
                self._partial.unlink(missing_ok=True)


def _checksum(data: bytes, path: Path) -> bytes:
    """CRC-32C, masked as in TFRecords: rotated, and a constant added."""
    try:
        import google_crc32c  # C: 0.4 us per word image; a table in Python takes a millisecond
    except ImportError as error:
        raise DatasetError(
            f"{path}: TFRecords need the package google-crc32c: pip install google-crc32c ({error})"
        ) from None
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
