"""The parts of a dataset, records as stored and samples decoded, and the interface of all datasets."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from crnn_jax.images import load_image


class DatasetError(ValueError):
    """Raised for files that are not a valid dataset: one line that names the file and the line, key or record."""


class Record(NamedTuple):
    """One labelled image as it is stored."""

    image: bytes | UInt8[np.ndarray, "H W"]  # an encoded file, or an array for rendered words
    label: str  # as it stands in the files
    name: str  # of the image within its dataset


class Sample(NamedTuple):
    """One labelled image, decoded."""

    image: UInt8[np.ndarray, "H W"]  # grey, at its own size
    label: str
    name: str


class Dataset:
    """Labelled images in a fixed order, accessible by index.

    Each kind of dataset defines `__len__` and `__getitem__`, which returns a Record and raises DatasetError for one
    that is damaged. It may be read from several threads and sent to other processes.
    """

    damage: tuple[str, ...] = ()  # what was lost when it was opened with strict=False, one line each

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Record:
        raise NotImplementedError

    def place(self, name: str) -> str:
        """Where the image of this name is, for messages."""
        return name

    def __iter__(self) -> Iterator[Sample]:
        return self.samples()

    def samples(self, start: int = 0, *, stop: int | None = None) -> Iterator[Sample]:
        """Samples `start` .. `stop` - 1, decoded one at a time; no other is read.

        Raises DatasetError or ImageError for one that cannot be read.
        """
        for index in range(len(self))[start:stop]:
            image, label, name = self[index]
            yield Sample(load_image(image, name=self.place(name)), label, name)
