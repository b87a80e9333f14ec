"""Synth90k as a TFDS dataset: sharded TFRecords and their metadata, from the original's folder or archive.

Written without TensorFlow. `open_dataset(f"{out}/synth90k-train.*")` reads a split, and so does TFDS:
`tfds.builder_from_directory(out)`.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from crnn_jax.cores import cores
from crnn_jax.data.mjsynth import COUNTS, archive_images, read_layout, read_lexicon, read_lines
from crnn_jax.data.preparation import (
    FOLDER,
    Result,
    Shard,
    lay_plan,
    read_result,
    sort_images,
    sweep,
)
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.whole import only_one, write_whole
from crnn_jax.data.workers import write_here, write_in_processes, write_on_beam

VERSION = "1.0.0"
HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/text/"
CITATION = """\
@inproceedings{jaderberg2014synthetic,
  author = {Max Jaderberg and Karen Simonyan and Andrea Vedaldi and Andrew Zisserman},
  title = {Synthetic Data and Artificial Neural Networks for Natural Scene Text Recognition},
  booktitle = {Workshop on Deep Learning, NIPS},
  year = {2014},
}
@article{jaderberg2016reading,
  author = {Max Jaderberg and Karen Simonyan and Andrea Vedaldi and Andrew Zisserman},
  title = {Reading Text in the Wild with Convolutional Neural Networks},
  journal = {International Journal of Computer Vision},
  volume = {116},
  number = {1},
  pages = {1--20},
  year = {2016},
}"""

_bar = partial(tqdm, disable=None, dynamic_ncols=True)


class Report(NamedTuple):
    """What became of the images in the lists. `OUT/report.json` has the same."""

    out: Path
    listed: dict[str, int]  # by split
    written: dict[str, int]  # by split
    dropped: list[dict[str, str]]  # split, path, reason, detail: in the order of the shards

    def reasons(self, split: str) -> dict[str, int]:
        """How many images of a split were dropped for each reason."""
        return dict(sorted(Counter(drop["reason"] for drop in self.dropped if drop["split"] == split).items()))

    def lines(self) -> list[str]:
        """One line per split, for people to read."""
        lines = []
        for split, listed in self.listed.items():
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons(split).items())
            dropped = f"; dropped: {reasons}" if reasons else ""
            note = "" if listed == COUNTS[split] else f"; the original has {COUNTS[split]:,}"
            lines.append(f"{split}: {self.written[split]:,} of {listed:,} images{dropped}{note}")
        return lines


def prepare(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    shards: int = 64,
    workers: int | None = None,
    beam_options: Sequence[str] | None = None,
) -> Report:
    """Writes the splits of `source`, a folder or an archive in the original's layout, as TFRecord shards in `out`.

    `shards` is the number for the largest split (training); the others get as many as makes theirs about as large. The
    images are shuffled, decoded as a check, and stored as they are; those that cannot be used are left out and
    reported. Also written: TFDS's metadata, `report.json`, and `SHA256SUMS` (`sha256sum -c`).

    Called again after an interruption, it continues with the unfinished shards and gives the same result. An archive is
    a stream and has to be sorted first, which takes as much disk space again as its images and cannot be resumed.

    By default `workers` processes, one per core, write a shard each; 1 writes in this process. With `beam_options`,
    such as ["--runner=FlinkRunner", ...], Apache Beam (extra `beam`) does it on a cluster, whose workers need `source`
    and `out` under the same paths, and crnn_jax installed. Raises DatasetError, in one line.
    """
    source, out = Path(source).absolute(), Path(out).absolute()
    if shards < 1 or workers is not None and workers < 1:
        raise DatasetError(f"shards = {shards}, workers = {workers}: expected at least 1")
    _require_packages(out, beam=beam_options is not None)
    _require_writable(out)
    with _bar("read the lists", total=_size(source), unit="B", unit_scale=True) as bar:
        layout = read_layout(source, progress=bar.update)
    lists = {split: read_lines(content) for split, content in layout.lists.items()}
    read_lexicon(layout.lexicon)  # any error in it shows now, not after hours
    if not any(lists.values()):
        raise DatasetError(f"{source}: its lists are empty")
    try:
        with only_one(out / FOLDER):
            return _prepare(source, out, lists, layout, shards, workers or cores(), beam_options)
    except OSError as error:
        raise DatasetError(f"{error.filename or out}: {error.strerror or error}") from None


def _prepare(source: Path, out: Path, lists, layout, shards: int, workers: int, beam_options) -> Report:
    """`prepare`, once its arguments are checked and no other process writes in `out`."""
    parts = lay_plan(out, lists, layout.lexicon, shards=shards)
    sweep(out)
    images = str(layout.source) if layout.source.is_dir() else None
    plan = [Shard(str(out), name, images) for name in parts]
    try:
        _write(plan, parts, layout, workers, beam_options)
    except BaseException:
        sweep(out)  # mainly partial files left by a full disk
        raise
    results = [read_result(shard) for shard in plan]
    report = _report(out, lists, plan, results)
    if not any(report.written.values()):
        _remove(plan, results)
        drop = report.dropped[0]
        raise DatasetError(f"{source}: no image can be read: {drop['path']}: {drop['reason']}, {drop['detail']}")
    _describe(report, plan, results)
    sweep(out, finished=True)
    return report


def _write(plan, parts, layout, workers: int, beam_options: Sequence[str] | None) -> None:
    """Writes the shards of a plan that do not exist yet."""
    pending = [shard for shard in plan if not read_result(shard)]
    for shard in pending:
        shard.entries.write_bytes(b"\n".join(parts[shard.name]))
    if pending and not pending[0].images:
        with _bar("sort the archive", total=_size(layout.source), unit="B", unit_scale=True) as bar:
            sort_images(archive_images(layout, progress=bar.update), pending)
    sizes = {shard: len(parts[shard.name]) for shard in plan}
    done = sum(sizes.values()) - sum(sizes[shard] for shard in pending)
    if beam_options is not None:
        written = write_on_beam(pending, beam_options)
    elif workers > 1 and len(pending) > 1:
        written = write_in_processes(pending, min(workers, len(pending)))
    else:
        written = write_here(pending)
    with _bar("write the shards", total=sum(sizes.values()), initial=done, unit="image") as bar:
        for shard in written:
            bar.update(sizes[shard])


def _report(out: Path, lists: dict[str, list[bytes]], plan: list[Shard], results: Iterable[Result]) -> Report:
    written, dropped = Counter(), []
    for shard, result in zip(plan, results, strict=True):
        written[shard.split] += result.written
        for path, reason, detail in result.dropped:
            dropped.append({"split": shard.split, "path": path, "reason": reason, "detail": detail})
    return Report(out, {split: len(lines) for split, lines in lists.items()}, {s: written[s] for s in lists}, dropped)


def _describe(report: Report, plan: list[Shard], results: list[Result]) -> None:
    """Writes everything but the shards."""
    import tensorflow_datasets as tfds

    splits = {
        split: {"listed": report.listed[split], "written": report.written[split], "dropped": report.reasons(split)}
        for split in report.listed
    }
    original = report.listed == COUNTS
    content = {"original": original, "splits": splits, "dropped": report.dropped}
    write_whole(report.out / "report.json", (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    sums = "".join(f"{result.sha256}  {shard.name}\n" for shard, result in zip(plan, results, strict=True))
    write_whole(report.out / "SHA256SUMS", sums.encode())
    infos = []
    for split in sorted({shard.split for shard in plan}, key=list(splits).index):
        own = [result for shard, result in zip(plan, results, strict=True) if shard.split == split]
        lengths, size = [result.written for result in own], sum(result.bytes for result in own)
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size))
    what = "Synth90k (MJSynth)" if original else "Words in the layout of Synth90k (MJSynth), in another number"
    tfds.folder_dataset.write_metadata(
        data_dir=report.out,
        # Image takes an encoded image as it is, whatever its channels; 3 is what TFDS decodes it to.
        features=tfds.features.FeaturesDict(
            {
                "image": {"encoded": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")},
                "text": {"string": tfds.features.Text()},
            }
        ),
        split_infos=infos,
        version=VERSION,
        check_data=False,  # it would need TensorFlow
        description=f"{what}: {sum(report.written.values()):,} rendered English words, cropped, about 31 pixels high.",
        homepage=HOMEPAGE,
        citation=CITATION,
    )


def _remove(plan: list[Shard], results: list[Result]) -> None:
    for shard in plan:
        shard.path.unlink(missing_ok=True)
        shard.result.unlink(missing_ok=True)
    Path(plan[0].out, FOLDER, "plan.json").unlink(missing_ok=True)


def _size(source: Path) -> int | None:
    return source.stat().st_size if source.is_file() else None


def _require_writable(out: Path) -> None:
    # Checked before an archive is read for minutes; anything missed here shows when the first file is written.
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise DatasetError(f"{there}: {'Permission denied' if there.is_dir() else 'Not a directory'}")


def _require_packages(out: Path, *, beam: bool) -> None:
    extra = "data"
    try:
        import google_crc32c  # noqa: F401
        import tensorflow_datasets  # noqa: F401

        if beam:
            extra = "beam"
            import apache_beam  # noqa: F401
    except ImportError as error:
        raise DatasetError(f"{out}: needs the extra `{extra}`: pip install 'crnn_jax[{extra}]' ({error})") from None
