import errno
import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
from original import LEXICON, content, pack, write_original

from crnn_jax.data import preparation
from crnn_jax.data.dataset import open_dataset
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.synth90k import prepare
from crnn_jax.data.tfrecord import TFRecordFile
from crnn_jax.data.whole import only_one

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("google_crc32c")
Example = tfds.proto.tf_example_pb2.Example

COUNTS = {"train": 30, "validation": 5, "test": 6}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder laid out like the original, what has to be dropped of it, and its preparation in one process."""
    folder = tmp_path_factory.mktemp("world")
    dropped = write_original(folder / "original")
    return folder / "original", dropped, prepare(folder / "original", folder / "out", shards=4, workers=1)


def records(out: Path, split: str) -> list[tuple[bytes, str]]:
    dataset = open_dataset(f"{out}/synth90k-{split}.*")
    return [dataset[i][:2] for i in range(len(dataset))]


def test_every_image_is_in_a_shard_or_in_the_report(world):
    source, dropped, report = world
    assert report.written == COUNTS
    assert report.listed == {"train": 36, "validation": 7, "test": 6}
    reported = {split: {} for split in COUNTS}
    for drop in report.dropped:
        reported[drop["split"]][drop["path"]] = drop["reason"]
    assert reported == dropped
    names = {"train": "annotation_train.txt", "validation": "annotation_val.txt", "test": "annotation_test.txt"}
    for split, name in names.items():
        paths = [line.split()[0].removeprefix("./") for line in (source / name).read_text().splitlines()]
        kept = [path for path in paths if path not in dropped[split]]
        expected = [((source / path).read_bytes(), path.split("/")[-1].split("_")[1]) for path in kept]
        found = records(report.out, split)
        assert sorted(found) == sorted(expected)
        assert found != expected, "mixed"
    assert len(list(open_dataset(f"{report.out}/synth90k-train.*"))) == 30  # all decode


def test_the_report_counts_by_reason(world):
    _, _, report = world
    saved = json.loads((report.out / "report.json").read_text())
    assert saved["splits"]["train"] == {
        "listed": 36,
        "written": 30,
        "dropped": {"empty": 1, "label and lexicon disagree": 3, "missing": 1, "unreadable": 1},
    }
    assert saved["splits"]["test"] == {"listed": 6, "written": 6, "dropped": {}}
    assert saved["original"] is False
    assert saved["dropped"] == report.dropped
    assert report.lines()[1:] == [
        "validation: 5 of 7 images; dropped: 1 malformed, 1 unreadable; the original has 802,734",
        "test: 6 of 6 images; the original has 891,927",
    ]


@pytest.mark.filterwarnings("default")  # with protobuf 6, which Beam needs, TFDS uses deprecated calls
def test_tfds_reads_it(world):
    source, _, report = world
    builder = tfds.builder_from_directory(report.out)
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == COUNTS
    assert {name: split.num_shards for name, split in builder.info.splits.items()} == {
        "train": 4,
        "validation": 1,
        "test": 1,
    }
    assert (builder.info.name, str(builder.info.version)) == ("synth90k", "1.0.0")
    assert "Reading Text in the Wild" in builder.info.citation
    shard = builder.info.splits["train"].filepaths[0]
    for i, message in enumerate(map(TFRecordFile(Path(shard)).__getitem__, range(3))):
        example = builder.info.features.deserialize_example_np(message)
        assert example["image"]["encoded"].shape == (31, 40, 3)
        label = example["text"]["string"].decode()
        assert label.lower() in LEXICON
        theirs = builder.info.features.serialize_example(
            {"image": {"encoded": records(report.out, "train")[i][0]}, "text": {"string": label}}
        )
        assert Example.FromString(message) == Example.FromString(theirs)  # the order of the bytes is arbitrary
    assert "tensorflow" not in sys.modules


def test_the_checksums_are_those_of_the_shards(world):
    _, _, report = world
    sums = dict(reversed(line.split("  ")) for line in (report.out / "SHA256SUMS").read_text().splitlines())
    shards = {name: data for name, data in content(report.out).items() if "tfrecord" in name}
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in shards.items()}


def test_other_processes_and_an_archive_give_the_same_bytes(world, tmp_path):
    source, _, report = world
    archive = pack(source, tmp_path / "x.tar.gz")
    by_others = prepare(source, tmp_path / "a", shards=4, workers=2)
    packed = prepare(archive, tmp_path / "b", shards=4, workers=1)
    assert by_others[1:] == packed[1:] == report[1:]
    assert content(tmp_path / "a") == content(tmp_path / "b") == content(report.out)
    kept = {path.name for path in (tmp_path / "b/preparation").iterdir()}
    shards = {name for name in content(report.out) if "tfrecord" in name}
    assert kept == {".lock", "plan.json", "lexicon.txt"} | {f"{name}.json" for name in shards}


def test_without_damages_nothing_is_reported(tmp_path):
    write_original(tmp_path / "original", damages=False)
    report = prepare(tmp_path / "original", tmp_path / "out", shards=2, workers=1)
    assert (report.written, report.dropped) == (COUNTS, [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_one_line(world, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DatasetError, match="Permission denied"):
        prepare(world[0], tmp_path / "out", workers=1)


def test_an_unwritable_folder_is_found_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DatasetError, match=f"^{tmp_path}: Permission denied$"):
        prepare(tmp_path / "nothing", tmp_path / "out", workers=1)


def test_two_preparations_do_not_write_in_one_folder(world, tmp_path):
    with (
        only_one(tmp_path / "out" / "preparation"),
        pytest.raises(DatasetError, match="another process is writing to it"),
    ):
        prepare(world[0], tmp_path / "out", workers=1)
    prepare(world[0], tmp_path / "out", shards=4, workers=1)


def test_a_file_in_the_way_is_one_line(world, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DatasetError, match="out.*: Not a directory"):
        prepare(world[0], tmp_path / "out", workers=1)


def test_no_image_at_all_is_an_error_and_leaves_nothing(world, tmp_path):
    source = tmp_path / "original"
    source.mkdir()
    for name in ("annotation_train.txt", "annotation_val.txt", "annotation_test.txt", "lexicon.txt"):
        (source / name).write_bytes((world[0] / name).read_bytes())
    with pytest.raises(DatasetError, match=r"original: no image can be read: \S+\.jpg: "):
        prepare(source, tmp_path / "out", shards=4, workers=1)
    assert not content(tmp_path / "out")
    (source / "annotation_train.txt").write_text("\n")
    (source / "annotation_val.txt").write_text("\n")
    (source / "annotation_test.txt").write_text("\n")
    with pytest.raises(DatasetError, match="original: its lists are empty"):
        prepare(source, tmp_path / "out", workers=1)


@pytest.mark.parametrize("module", ["google_crc32c", "tensorflow_datasets"])
def test_without_a_package_the_message_says_what_to_install(world, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DatasetError, match=r"pip install 'crnn_jax\[data\]'"):
        prepare(world[0], tmp_path / "out", workers=1)


def test_without_beam_the_message_says_what_to_install(world, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(DatasetError, match=r"pip install 'crnn_jax\[beam\]'"):
        prepare(world[0], tmp_path / "out", shards=4, beam_options=[])


@pytest.mark.filterwarnings("default")
def test_beam_gives_the_same_bytes(world, tmp_path):
    pytest.importorskip("apache_beam")
    source, _, report = world
    options = ["--runner=DirectRunner", "--direct_num_workers=1"]
    assert prepare(source, tmp_path / "out", shards=4, beam_options=options)[1:] == report[1:]
    assert content(tmp_path / "out") == content(report.out)


@pytest.mark.filterwarnings("default")
def test_what_fails_on_beam_is_one_line(world, tmp_path, monkeypatch):
    pytest.importorskip("apache_beam")

    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(preparation.TFRecordWriter, "write", full)
    with pytest.raises(DatasetError, match=r"^/\S+: No space left on device$"):
        prepare(world[0], tmp_path / "out", shards=4, beam_options=["--runner=DirectRunner"])
