"""What a dataset is made of: samples, and the error that names what is wrong with the files."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8


class DatasetError(ValueError):
    """Files that are no dataset: its message is one line that names the file and the line, key or record."""


class Sample(NamedTuple):
    """One labelled image."""

    image: UInt8[np.ndarray, "H W"]  # grey, at its own size
    label: str  # as it stands in the files
    name: str  # of the image within its dataset
