"""A preparation of Synth90k: its plan, which survives an interruption, and its unit of work, one shard.

The subfolder `preparation` of the shards' folder has everything needed to continue: `plan.json`; the lexicon; for every
unfinished shard the list lines of its images and, if they come from an archive, the images; and for every finished
shard its result. The workers, local processes or those of a cluster, share nothing else.
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
SEED = 90_000  # for the order of the images: in the lists' own order, a shard would hold only one folder's words


class Shard(NamedTuple):
    """One shard to write: a small description that means the same wherever it is sent."""

    out: str  # the folder of all shards
    name: str
    images: str | None  # the folder of the images; None if they are in the shard's parcel

    @property
    def path(self) -> Path:
        """Where the shard is once complete."""
        return Path(self.out, self.name)

    @property
    def split(self) -> str:
        """train, validation or test."""
        return self.name.removeprefix(f"{NAME}-").partition(".")[0]

    @property
    def entries(self) -> Path:
        """The file with the list lines of its images."""
        return Path(self.out, FOLDER, f"{self.name}.lines")

    @property
    def parcel(self) -> Path:
        """The file with its images as they were in the archive: records of path, line feed, content."""
        return Path(self.out, FOLDER, f"{self.name}.images")

    @property
    def result(self) -> Path:
        """The file with its result."""
        return Path(self.out, FOLDER, f"{self.name}.json")


class Result(NamedTuple):
    """The outcome of writing a shard."""

    written: int  # images
    bytes: int  # of the file
    sha256: str
    dropped: list[list[str]]  # path, reason, detail


def read_result(shard: Shard) -> Result | None:
    """The result of a shard, or None if it is still to be written."""
    try:
        result = Result(**json.loads(shard.result.read_text()))
        return result if shard.path.stat().st_size == result.bytes else None
    except (OSError, ValueError, TypeError):
        return None


def lay_plan(out: Path, lists: dict[str, list[bytes]], lexicon: bytes, *, shards: int) -> dict[str, list[bytes]]:
    """Returns every shard's lines by its name, in an order that depends only on their number; saves the plan in `out`.

    `shards` is the number for the largest split; the others get as many as makes their shards about the same size.
    Raises DatasetError if `out` has shards of another plan or of none, and OSError.
    """
    content = {split: hashlib.sha256(b"\n".join(lines)).hexdigest() for split, lines in lists.items()}
    plan = {"shards": shards, "seed": SEED, "lists": content, "lexicon": hashlib.sha256(lexicon).hexdigest()}
    file = out / FOLDER / "plan.json"
    if file.exists():
        if _plan_there(file) != plan:
            raise DatasetError(
                f"{out}: has shards of other lists or another shard count: remove it or choose another folder"
            )
    elif any(out.glob("*.tfrecord*")):
        raise DatasetError(f"{out}: has shards that this preparation did not write: choose another folder")
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
        return None  # not a valid plan, so a different one


def sort_images(images: Iterable[tuple[bytes, bytes]], shards: list[Shard]) -> None:
    """Writes the parcels of all shards in one pass over an archive's images. Raises OSError.

    Parcels get their names once all images are in, and a marker file then says so; without it they are written again.
    """
    mark = Path(shards[0].out, FOLDER, "sorted")
    if mark.exists() and all(shard.parcel.exists() for shard in shards):
        return
    mark.unlink(missing_ok=True)
    # Python's hash of each path instead of the path: 100 MB instead of over a gigabyte. An unlisted file whose hash is
    # that of a listed path is stored needlessly.
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
            for owner, _ in groupby(owners[first:last]):  # two if a path is in two lists
                writers[owner].write(path + b"\n" + content)
    mark.touch()


def write_shard(shard: Shard) -> None:
    """Writes one shard and then its result; images that cannot be used are named in the result and left out.

    The same shard may be requested again, even by two workers at once. Raises DatasetError.
    """
    if read_result(shard):
        return
    # A unique name, since a cluster may start a second worker on a shard that the first is slow to write.
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
    """Removes unfinished files and, if all shards are `finished`, what was only needed to write them.

    No process may be writing at the time.
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
