import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from original import content, pack, write_original

from crnn_jax.data import synth90k, workers
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.synth90k import prepare
from crnn_jax.data.tfrecord import TFRecordWriter

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("google_crc32c")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder laid out like the original, what has to be dropped of it, and its uninterrupted preparation."""
    folder = tmp_path_factory.mktemp("world")
    dropped = write_original(folder / "original")
    return folder / "original", dropped, prepare(folder / "original", folder / "out", shards=4, workers=1)


KILLED = """
import os, signal, sys
from crnn_jax.data import preparation, synth90k
entry, taken = preparation.read_entry, []
def read_entry(*args):
    taken.append(args)
    if len(taken) == 25:
        os.kill(os.getpid(), signal.SIGKILL)
    return entry(*args)
preparation.read_entry = read_entry
synth90k.prepare(sys.argv[1], sys.argv[2], shards=4, workers=1)
"""


@pytest.mark.parametrize("packed", [False, True])
def test_killed_and_started_again_it_keeps_the_whole_shards(world, tmp_path, monkeypatch, packed):
    source, _, report = world
    source = pack(source, tmp_path / "x.tar.gz") if packed else source
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, source, out], env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    assert done.returncode == -9
    shards = {path.name: path.stat() for path in out.glob("*.tfrecord*")}
    assert len(shards) == 2 and not (out / "dataset_info.json").exists()
    assert content(out).items() <= content(report.out).items()
    written = []
    write = workers.write_shard
    monkeypatch.setattr(workers, "write_shard", lambda shard: written.append(shard.name) or write(shard))
    monkeypatch.setattr(synth90k, "archive_images", lambda *_, **__: map(pytest.fail, ["sorted again"]))
    assert prepare(source, out, shards=4, workers=1)[1:] == report[1:]
    assert content(out) == content(report.out)
    assert not set(written) & shards.keys() and len(written) == 4
    assert {name: (out / name).stat().st_ino for name in shards} == {name: s.st_ino for name, s in shards.items()}
    assert not list((out / "preparation").glob("*partial*"))
    prepare(source, out, shards=4, workers=1)
    assert len(written) == 4, "nothing was left to do"


def test_an_archive_that_was_not_sorted_to_its_end_is_sorted_anew(world, tmp_path, monkeypatch):
    source, _, report = world
    archive, out = pack(source, tmp_path / "x.tar.gz"), tmp_path / "out"
    images = synth90k.archive_images

    def interrupted(*args, **options):
        for number, image in enumerate(images(*args, **options)):
            if number == 20:
                raise KeyboardInterrupt
            yield image

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(synth90k, "archive_images", interrupted)
        prepare(archive, out, shards=4, workers=1)
    assert not content(out)
    prepare(archive, out, shards=4, workers=1)
    assert content(out) == content(report.out)


def test_a_shard_that_was_lost_or_cut_is_written_again(world, tmp_path):
    source, _, report = world
    out = tmp_path / "out"
    prepare(source, out, shards=4, workers=1)
    lost, cut, *_ = sorted(out.glob("*.tfrecord*"))
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    prepare(source, out, shards=4, workers=1)
    assert content(out) == content(report.out)


def test_shards_of_another_plan_are_left_alone(world, tmp_path):
    source, _, report = world
    before = content(report.out)
    with pytest.raises(DatasetError, match="out: has shards of other lists or another shard count"):
        prepare(source, report.out, shards=3, workers=1)
    assert content(report.out) == before
    (tmp_path / "other.tfrecord").write_bytes(b"")
    with pytest.raises(DatasetError, match="has shards that this preparation did not write"):
        prepare(source, tmp_path, shards=4, workers=1)


@pytest.mark.parametrize("packed", [False, True])
def test_a_full_disk_is_one_line_and_leaves_no_half_shard(world, tmp_path, monkeypatch, packed):
    source, _, report = world
    source, out = pack(source, tmp_path / "x.tar.gz") if packed else source, tmp_path / "out"
    written, write = [], TFRecordWriter.write

    def full(self, data):
        written.append(data)
        if len(written) == 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    with monkeypatch.context() as patch, pytest.raises(DatasetError, match=r"out.*: No space left on device$") as error:
        patch.setattr(TFRecordWriter, "write", full)
        prepare(source, out, shards=4, workers=1)
    assert "\n" not in str(error.value)
    assert content(out).items() <= content(report.out).items()
    assert not list(out.rglob("*partial*")) + list(out.rglob(".incomplete*"))
    prepare(source, out, shards=4, workers=1)
    assert content(out) == content(report.out)


def test_a_worker_that_fails_or_dies_is_one_line(world, tmp_path, monkeypatch):
    source, _, _ = world
    monkeypatch.setattr(workers, "write_shard", _die)
    with pytest.raises(DatasetError, match="out: a worker was killed"):
        prepare(source, tmp_path / "out", shards=4, workers=2)


def _die(shard) -> None:
    os._exit(1)
