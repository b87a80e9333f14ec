"""Converts datasets of any kind to one of any kind: encoded images are copied as they are, damaged ones left out."""

import dataclasses
import io
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from crnn_jax.data.damage import Damage, whole_records
from crnn_jax.data.sample import Dataset, DatasetError
from crnn_jax.data.whole import whole_folder
from crnn_jax.data.writers import WRITERS, LabelError


@dataclass(frozen=True)
class Conversion:
    """The outcome of a conversion."""

    out: str
    format: str
    written: int
    seconds: float
    damage: Damage

    def __str__(self) -> str:
        """One line."""
        rate = self.written / max(self.seconds, 1e-9)
        skipped = f"; skipped {len(self.damage)}: {self.damage}" if self.damage else ""
        return f"{self.out}: {self.written} words, {rate:.0f} a second{skipped}"

    def to_json(self) -> dict:
        """All fields, with the damage as a total, by reason and by place."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"damage": {"skipped": len(self.damage)} | self.damage.to_json()}


def convert(
    datasets: Sequence[Dataset], out: str | os.PathLike, *, format: str, shards: int = 1, name: str = "words"
) -> Conversion:
    """Writes the labelled images of `datasets`, one after the other, as a new dataset in the folder `out`.

    Every image is decoded as a check, but copied byte for byte; rendered ones become PNG. Damaged records are left out.
    If none remain, nothing is written. One record is in memory at a time, or one batch for an LMDB.

    Args:
        datasets: opened with strict=False, to keep what is left of damaged ones.
        out: a folder that does not exist yet or is empty; it gets its name only once complete.
        format: a key of `WRITERS`.
        shards: how many, for tfrecord and array_record: consecutive runs of equal length, except for damage.
        name: what the shards are called.

    Raises DatasetError where the output cannot be written, or for an unknown format.
    """
    out = Path(out)
    if format not in WRITERS:
        raise DatasetError(f"format = {format!r}: expected one of {', '.join(WRITERS)}")
    total, began, damage, written, first = sum(map(len, datasets)), time.perf_counter(), Damage(), 0, 0
    if not 1 <= shards <= total:
        raise DatasetError(f"shards = {shards}: expected 1 to {total}, the number of words")
    if not name or Path(name).name != name:
        raise DatasetError(f"name = {name!r}: expected a plain file name for the shards")
    WRITERS[format].load()
    try:
        with (
            whole_folder(out) as folder,
            WRITERS[format](folder, name=name, shards=shards, total=total) as writer,
        ):
            for dataset in datasets:
                for index, record, _ in whole_records(dataset, damage):
                    try:
                        writer.write(first + index, encoded(record.image), record.label)
                        written += 1
                    except LabelError as error:
                        damage.add(f"{dataset.place(record.name)}: {error}")
                first += len(dataset)
            if not written:
                raise _NothingLeft
    except _NothingLeft:
        pass
    except OSError as error:
        raise DatasetError(f"{out}: cannot be written: {error.strerror or error}") from None
    return Conversion(str(out), format, written, time.perf_counter() - began, damage)


class _NothingLeft(Exception):
    """Raised inside `whole_folder` so that it discards the folder."""


def encoded(image: bytes | UInt8[np.ndarray, "H W"]) -> bytes:
    """The image as a file: as it is, or as PNG where it is an array."""
    if isinstance(image, bytes):
        return image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
