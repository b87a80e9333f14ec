"""Surveys a dataset: words, damage, labels, characters, sizes, and a sample to look at."""

import dataclasses
import textwrap
import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np

from crnn_jax.charset import PRESETS, Charset, respell
from crnn_jax.data.damage import Damage, whole_records
from crnn_jax.data.sample import Dataset, Sample
from crnn_jax.data.writers import image_format

QUANTILES = (0, 5, 50, 95, 100)  # per cent
BAR = 40  # characters of the longest bar of a histogram
PLACES = 3  # of each kind of damage, in the text
FREQUENT = 10  # labels
LISTED = 100  # characters, in the text
TIE = "\N{NO-BREAK SPACE}"  # between a name and its count until lines are wrapped

Quantiles = dict[int, int | float]  # per cent: value


@dataclass(frozen=True)
class Survey:
    """What `survey` found in a dataset.

    Heights and widths are in pixels, aspects are width / height.
    """

    words: int  # that can be read
    damage: Damage
    lengths: dict[int, int]  # characters in a label: number of labels
    distinct: int  # labels
    frequent: dict[str, int]  # the labels that occur most often
    characters: dict[str, int]  # how often each occurs, most frequent first
    charsets: dict[str, int]  # preset: labels entirely in it, lower-cased if it has no upper case
    heights: Quantiles
    widths: Quantiles
    aspects: Quantiles
    formats: dict[str, int]  # of the image files
    image_bytes: Quantiles
    total_bytes: int  # of all images
    seconds: float
    samples: tuple[Sample, ...] = dataclasses.field(repr=False)  # spread evenly; at least one if there are any words

    def to_json(self) -> dict:
        """All fields but the samples."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["samples"]
        return fields | {"damage": self.damage.to_json()}

    def __str__(self) -> str:
        """A report of several lines."""
        repeated = self.words - self.distinct
        lines = [
            f"words       {self.words}, {len(self.damage)} damaged{' places' if self.damage else ''}",
            *_damage_lines(self.damage),
            f"labels      {self.distinct} distinct, {repeated} repeated",
        ]
        if repeated:
            lines.append(f"  frequent  {_counts({repr(label): n for label, n in self.frequent.items()})}")
        lines += ["lengths     characters, labels", *_histogram(self.lengths)]
        lines.append(f"characters  {len(self.characters)}: {_counts(self.characters)}")
        for name, count in self.charsets.items():
            lines.append(f"charset {name}  holds {count} labels, {100 * count / max(self.words, 1):.1f} %")
        for name in ("heights", "widths", "aspects", "image_bytes"):
            lines.append(f"{name.replace('_', ' '):11} {_quantile_line(getattr(self, name))}")
        lines.append(f"formats     {_counts(self.formats)}")
        lines.append(f"total       {self.total_bytes / 1e6:.1f} MB of images")
        lines.append(f"time        {self.seconds:.1f} s, {self.words / max(self.seconds, 1e-9):.0f} words a second")
        return "\n".join(_wrap(line) for line in lines)


def survey(dataset: Dataset, *, samples: int = 96) -> Survey:
    """Reads and decodes a whole dataset and counts what is in it.

    Memory grows with the number of distinct labels and image sizes, not with the number of words. Open the dataset with
    strict=False to see what is left of a damaged one. If no words are left, the quantiles are empty.
    """
    began, damage = time.perf_counter(), Damage()
    labels, sizes, lengths, formats = Counter(), Counter(), Counter(), Counter()
    chosen = np.linspace(0, len(dataset) - 1, samples).round().astype(int)
    sampled, next_sample = [], 0
    for index, record, grey in whole_records(dataset, damage):
        labels[record.label] += 1
        sizes[grey.shape] += 1
        encoded = isinstance(record.image, bytes)
        lengths[len(record.image) if encoded else grey.size] += 1
        formats[image_format(record.image) if encoded else "array"] += 1
        if index >= next_sample:  # a chosen place, or the first readable record after one
            sampled.append(Sample(grey, record.label, record.name))
            next_sample = min(chosen[chosen > index], default=len(dataset))
    characters = Counter()
    for label, count in labels.items():
        for character in label:
            characters[character] += count
    return Survey(
        words=labels.total(),
        damage=damage,
        lengths=dict(sorted(_tally((len(label), n) for label, n in labels.items()).items())),
        distinct=len(labels),
        frequent=dict(labels.most_common(FREQUENT)),
        characters=dict(characters.most_common()),
        charsets={name: _covered(labels, Charset.of(name)) for name in PRESETS},
        heights=_quantiles(_tally((height, n) for (height, _), n in sizes.items())),
        widths=_quantiles(_tally((width, n) for (_, width), n in sizes.items())),
        aspects=_quantiles(_tally((round(width / height, 2), n) for (height, width), n in sizes.items())),
        formats=dict(formats.most_common()),
        image_bytes=_quantiles(lengths),
        total_bytes=sum(length * n for length, n in lengths.items()),
        seconds=time.perf_counter() - began,
        samples=tuple(sampled),
    )


def _wrap(line: str) -> str:
    if line.startswith(" " * 12):  # a place of damage, which may be a long path to copy
        return line
    wrapped = textwrap.fill(line, 120, subsequent_indent=" " * 12, break_long_words=False, break_on_hyphens=False)
    return wrapped.replace(TIE, " ")


def _tally(pairs) -> Counter:
    counts = Counter()
    for value, count in pairs:
        counts[value] += count
    return counts


def _covered(labels: Counter, charset: Charset) -> int:
    known, spelled = set(charset.characters), partial(respell, characters=charset.characters)
    return sum(count for label, count in labels.items() if known.issuperset(charset.fold(spelled(label))))


def _quantiles(counts: Counter) -> Quantiles:
    """For each percentage, the smallest value that at least that share of all values do not exceed."""
    if not counts:
        return {}
    values = sorted(counts)
    ends = list(accumulate(counts[value] for value in values))
    return {percent: values[bisect_left(ends, max(1, percent * ends[-1] / 100))] for percent in QUANTILES}


def _quantile_line(quantiles: Quantiles) -> str:
    names = {0: "min", 50: "median", 100: "max"}
    return ", ".join(f"{names.get(percent, f'{percent} %')} {value:g}" for percent, value in quantiles.items())


def _damage_lines(damage: Damage) -> list[str]:
    lines = []
    for reason, count in damage.counts.most_common():
        places = [message for other, message in damage.places if other == reason][:PLACES]
        lines.append(f"  damage    {count} {reason}")
        lines += [f"            {place}" for place in places] + ["            ..."] * (count > len(places))
    return lines


def _histogram(counts: dict[int, int]) -> list[str]:
    most = max(counts.values(), default=1)
    return [f"  {value:9} {count:8} {'#' * -(-BAR * count // most)}" for value, count in counts.items()]


def _counts(counts: dict[str, int]) -> str:
    """Such as `E: 12, A: 9`, ending in `...` if there are more; invisible characters are escaped."""
    shown = [
        f"{name if name.isprintable() and not name.isspace() else repr(name)}:{TIE}{count}"
        for name, count in counts.items()
    ]
    return ", ".join(shown[:LISTED] + ["..."] * (len(shown) > LISTED))
