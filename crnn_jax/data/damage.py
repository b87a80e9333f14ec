"""The intact records of a dataset, and an account of the damaged ones."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from crnn_jax.data.sample import Dataset, DatasetError, Record
from crnn_jax.images import ImageError, load_image

LISTED = 10_000  # places that are remembered one by one; more are only counted

REASONS = (  # patterns in the readers' messages, and the reason that each stands for
    (r": damaged: ", "checksum does not match"),
    (r": damaged, compressed or not a TFRecord: ", "rest of a shard lost"),
    (r": cut short$", "cut short"),
    (r": (the file is empty|the ArrayRecord file cannot be read: .*)$", "shard cannot be read"),
    (r": no (tab|separator) between image and label: ", "line without a label"),
    (r": more than one tab: ", "line with more than one tab"),
    (r"\bnot UTF-8$", "label is not UTF-8"),
    (r": empty$", "empty image"),
    (r": not an image of a known format$", "not an image of a known format"),
    (r": does not decode: .*$", "image does not decode"),
    (r": larger than \d+ pixels$", "image is too large"),
    (r": No such file or directory$", "missing image"),
    (r": the key \S+ is missing$", "missing key"),
    (r": (not a tf\.train\.Example|\S+ has \d+ byte strings instead of one)$", "not a labelled image"),
    (r": the label .* cannot be written$", "label cannot be written"),
)


class Whole(NamedTuple):
    """A record that can be read."""

    index: int  # in its dataset
    record: Record
    grey: UInt8[np.ndarray, "H W"]  # its image, decoded


class Damage:
    """What could not be read: counted by reason, and the first places by name."""

    def __init__(self):
        self.counts: Counter[str] = Counter()
        self.places: list[tuple[str, str]] = []  # reason, and the message that names the place

    def add(self, message: str) -> None:
        """Counts one damaged place; its reason follows from the reader's message."""
        reason = next((name for pattern, name in REASONS if re.search(pattern, message)), "cannot be read")
        self.counts[reason] += 1
        if len(self.places) < LISTED:
            self.places.append((reason, message))

    def __len__(self) -> int:
        return self.counts.total()

    def __str__(self) -> str:
        """Such as `3 empty image, 1 cut short`."""
        return ", ".join(f"{count} {reason}" for reason, count in self.counts.most_common())

    def to_json(self) -> dict:
        """`counts` by reason, and `places`: the first ones, with their messages."""
        places = [{"reason": reason, "message": message} for reason, message in self.places]
        return {"counts": dict(self.counts.most_common()), "places": places}


def whole_records(dataset: Dataset, damage: Damage | None, *, name: str | None = None) -> Iterator[Whole]:
    """The records that can be read and decoded, in their order; the others go into `damage`.

    Open the dataset with strict=False, else one damaged shard ends it. If `damage` is None, the first record that
    cannot be read raises DatasetError or ImageError. One record is in memory at a time. A terminal shows a progress
    bar, which disappears at the end if it has a `name`.
    """
    for message in dataset.damage if damage is not None else ():
        damage.add(message)
    bar = {"desc": name, "leave": name is None, "unit": " words", "disable": None, "dynamic_ncols": True}
    for index in tqdm(range(len(dataset)), **bar):
        try:
            record = dataset[index]
            grey = load_image(record.image, name=dataset.place(record.name))
        except (DatasetError, ImageError) as error:
            if damage is None:
                raise
            damage.add(str(error))
            continue
        yield Whole(index, record, grey)
