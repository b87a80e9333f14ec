"""A preparation of Synth90k: its plan, which survives an interruption, and its unit of work, one shard.

In the folder of the shards a folder `preparation` has all that is needed to go on: `plan.json`, the lexicon, for every
shard to do the lines of its images and, out of an archive, the images; and for every shard done what became of it.
Whoever works on it, processes here or a cluster's workers, shares nothing else.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crnn_jax.data.example import serialise
from crnn_jax.data.mjsynth import LEXICON, UnfitError, image_path, read_entry, read_lexicon
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.tfrecord import TFRecordFile, TFRecordWriter, allow_open
from crnn_jax.data.whole import write_whole

NAME = "synth90k"  # of the dataset, as TFDS has it
FOLDER = "preparation"
SEED = 90_000  # of the order of the images: a shard of the lists' own order would have one folder's words alone


class Shard(NamedTuple):
    """One shard to be written: small, and the same wherever it is sent."""

    out: str  # the folder of all shards
    name: str
    images: str | None  # the folder of the images; None: they are in the shard's parcel

    @property
    def path(self) -> Path:
        """Where the shard is, once it is whole."""
        return Path(self.out, self.name)

    @property
    def split(self) -> str:
        """train, validation or test."""
        return self.name.removeprefix(f"{NAME}-").partition(".")[0]

    @property
    def entries(self) -> Path:
        """The lines of its images."""
        return Path(self.out, FOLDER, f"{self.name}.lines")

    @property
    def parcel(self) -> Path:
        """Its images as they came out of the archive: records of path, line feed, content."""
        return Path(self.out, FOLDER, f"{self.name}.images")

    @property
    def result(self) -> Path:
        """What became of it."""
        return Path(self.out, FOLDER, f"{self.name}.json")


class Result(NamedTuple):
    """What became of a shard."""

    written: int  # images
    bytes: int  # of the file
    sha256: str
    dropped: list[list[str]]  # path, reason, detail


def read_result(shard: Shard) -> Result | None:
    """What became of a shard, None for one that is still to be written."""
    try:
        result = Result(**json.loads(shard.result.read_text()))
        return result if shard.path.stat().st_size == result.bytes else None
    except (OSError, ValueError, TypeError):
        return None


def lay_plan(out: Path, lists: dict[str, list[bytes]], lexicon: bytes, *, shards: int) -> dict[str, list[bytes]]:
    """The lines of every shard by its name, in an order that depends on their number alone, and the plan in `out`.

    `shards` is the number of the largest split's; the others have as many as makes them about as large. Raises
    DatasetError where `out` has the shards of another plan or none, and OSError.
    """
    content = {split: hashlib.sha256(b"\n".join(lines)).hexdigest() for split, lines in lists.items()}
    plan = {"shards": shards, "seed": SEED, "lists": content, "lexicon": hashlib.sha256(lexicon).hexdigest()}
    file = out / FOLDER / "plan.json"
    if file.exists():
        if _plan_there(file) != plan:
            raise DatasetError(f"{out}: has shards of other lists or another number: remove it or name another folder")
    elif any(out.glob("*.tfrecord*")):
        raise DatasetError(f"{out}: has shards that are not of this preparation: name another folder")
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        (out / FOLDER / LEXICON).write_bytes(lexicon)
        write_whole(file, json.dumps(plan, indent=2).encode())
    rng, longest, parts = np.random.default_rng(SEED), max(map(len, lists.values())), {}
    for split, lines in lists.items():
        count = min(len(lines), -(-shards * len(lines) // longest))
        for i, part in enumerate(np.array_split(rng.permutation(len(lines)), count) if count else []):
            parts[f"{NAME}-{split}.tfrecord-{i:05}-of-{count:05}"] = [lines[j] for j in part]
    return parts


def _plan_there(file: Path) -> object:
    try:
        return json.loads(file.read_text())
    except ValueError:
        return None  # no plan, so another one


def sort_images(images: Iterable[tuple[bytes, bytes]], shards: list[Shard]) -> None:
    """Writes the parcels of shards from one pass over an archive's images. Raises OSError.

    Parcels have their names once all images are in, and a mark tells that all have; without it they are written anew.
    """
    mark = Path(shards[0].out, FOLDER, "sorted")
    if mark.exists() and all(shard.parcel.exists() for shard in shards):
        return
    mark.unlink(missing_ok=True)
    # Python's hash of a path instead of the path: 100 MB instead of a gigabyte and more. A stranger that has the hash
    # of a path is stored for nothing.
    paths = [[hash(image_path(line)) for line in shard.entries.read_bytes().split(b"\n")] for shard in shards]
    hashes = np.array([value for shard in paths for value in shard], np.int64)
    owners = np.repeat(np.arange(len(shards)), [len(shard) for shard in paths])
    order = np.argsort(hashes, kind="stable")
    hashes, owners = hashes[order], owners[order]
    allow_open(len(shards))
    with ExitStack() as stack:
        writers = [stack.enter_context(TFRecordWriter(shard.parcel)) for shard in shards]
        for path, content in images:
            first = np.searchsorted(hashes, hash(path))
            last = first
            while last < len(hashes) and hashes[last] == hash(path):
                last += 1
            for owner, _ in groupby(owners[first:last]):  # two, where a path is in two lists
                writers[owner].write(path + b"\n" + content)
    mark.touch()


def write_shard(shard: Shard) -> None:
    """Writes one shard and, behind it, its result; images that cannot be taken are in the result, and in no shard.

    The same shard may be asked for again, and by two workers at a time. Raises DatasetError.
    """
    if read_result(shard):
        return
    # Under a name of its own, since a cluster may start a second worker on what the first is slow at.
    partial = Path(shard.out, FOLDER, f"{uuid.uuid4().hex}.partial")
    dropped, written = [], 0
    try:
        lexicon = read_lexicon(Path(shard.out, FOLDER, LEXICON).read_bytes())
        read = _from_folder(Path(shard.images)) if shard.images else _from_parcel(shard.parcel)
        lines = shard.entries.read_bytes().split(b"\n")
        with TFRecordWriter(partial) as writer:
            for line in lines:
                try:
                    writer.write(serialise(*read_entry(line, lexicon, read)))
                    written += 1
                except UnfitError as error:
                    dropped.append([image_path(line).decode(errors="replace"), error.reason, error.detail])
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        result = Result(written, partial.stat().st_size, digest, dropped)
        partial.replace(shard.path)
        write_whole(shard.result, json.dumps(result._asdict()).encode())
        shard.entries.unlink(missing_ok=True)
        shard.parcel.unlink(missing_ok=True)
    except OSError as error:
        raise DatasetError(f"{shard.path}: {error.strerror}") from None


def sweep(out: Path, *, finished: bool = False) -> None:
    """Removes the files that were never finished, and once all shards are there what was only needed to write them.

    Nobody may be writing.
    """
    patterns = ("*.partial", ".incomplete-*", *(("*.lines", "*.images", "sorted") if finished else ()))
    for pattern in patterns:
        for path in (out / FOLDER).glob(pattern):
            path.unlink(missing_ok=True)


def _from_folder(folder: Path) -> Callable[[bytes], bytes]:
    return lambda path: (folder / path.decode()).read_bytes()


def _from_parcel(parcel: Path) -> Callable[[bytes], bytes]:
    file = TFRecordFile(parcel)
    numbers = {file[i].partition(b"\n")[0]: i for i in range(len(file))}
    return lambda path: file[numbers[path]].partition(b"\n")[2]
