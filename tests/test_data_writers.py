"""Every format comes back as it went in; an output is whole or not there."""

import errno
import io
import resource
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small import noise_images

from crnn_jax.data import conversion, tfrecord, writers
from crnn_jax.data.conversion import convert
from crnn_jax.data.dataset import open_dataset
from crnn_jax.data.sample import Dataset, DatasetError, Record
from crnn_jax.data.whole import whole_folder
from crnn_jax.data.writers import WRITERS, LmdbWriter, image_format

lmdb = pytest.importorskip("lmdb")
pytest.importorskip("array_record")
pytest.importorskip("google_crc32c")

LABELS = ["naïve", "", "a-b", " x ", "UPPER", '"quoted"', "日本", "seven", "8", "nine,9"]


class Words(Dataset):
    """Words in memory."""

    def __init__(self, records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return self.records[index]


def encode(image, suffix: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, suffix)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def words():
    """A word for each label, PNG and JPEG in turn."""
    images = [encode(image, ("PNG", "JPEG")[i % 2]) for i, image in enumerate(noise_images(len(LABELS)))]
    return Words([Record(image, LABELS[i], f"word {i}") for i, image in enumerate(images)])


def content(dataset: Dataset) -> list[tuple[bytes, str]]:
    return [dataset[i][:2] for i in range(len(dataset))]


def is_empty(folder: Path) -> bool:
    return list(folder.iterdir()) == []


def test_from_kind_to_kind_bytes_and_labels_stay(words, tmp_path):
    dataset = words
    for i, format in enumerate(["folder", "lmdb", "tfrecord", "array_record", "folder"]):
        result = convert([dataset], tmp_path / str(i), format=format, shards=3)
        assert (result.written, len(result.damage), result.format) == (len(LABELS), 0, format)
        dataset = open_dataset(tmp_path / str(i))
        assert content(dataset) == content(words)
    assert {path.name for path in tmp_path.iterdir()} == set("01234")  # nothing is left beside them
    assert [path.name for path in sorted((tmp_path / "4").rglob("*.*"))][:3] == [
        "000000001.png",
        "000000002.jpg",
        "000000003.png",
    ]


@pytest.mark.parametrize("format", WRITERS)
def test_the_same_words_give_the_same_files(words, tmp_path, format):
    files = []
    for name in "ab":
        convert([words], tmp_path / name, format=format)
        paths = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        files.append([(path.relative_to(tmp_path / name), path.read_bytes()) for path in paths])
    assert files[0] == files[1]


@pytest.mark.parametrize("format", ["tfrecord", "array_record"])
def test_shards_are_balanced_and_named_as_tfds_names_them(words, tmp_path, format):
    convert([words, words], tmp_path / "out", format=format, shards=8, name="svt-train")
    paths = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in paths] == [f"svt-train.{format}-{i:05d}-of-00008" for i in range(8)]
    assert {len(open_dataset(path)) for path in paths} == {2, 3}
    assert content(open_dataset(tmp_path / "out")) == 2 * content(words)


@pytest.mark.parametrize("format", ["tfrecord", "array_record"])
def test_a_shard_of_which_nothing_is_left_is_there_all_the_same(words, tmp_path, format):
    records = [record._replace(image=b"") if 4 <= i < 8 else record for i, record in enumerate(words.records)]
    result = convert([Words(records)], tmp_path / "out", format=format, shards=5)
    assert str(result.damage) == "4 empty image"
    assert len(list((tmp_path / "out").iterdir())) == 5
    assert content(open_dataset(tmp_path / "out")) == [record[:2] for record in records if record.image]


def test_rendered_words_become_png(tmp_path):
    images = noise_images(3)
    convert([Words([Record(image, "x", "x") for image in images])], tmp_path / "out", format="lmdb")
    dataset = open_dataset(tmp_path / "out")
    assert image_format(dataset[0].image) == "png"
    for sample, image in zip(dataset, images, strict=True):
        np.testing.assert_array_equal(sample.image, image)


def test_a_label_with_a_line_break_or_a_tab_is_no_line_of_a_list(words, tmp_path):
    records = [words[0]._replace(label=label) for label in ("a\nb", "fine", "end\r", "in\rside", "a\tb")]
    result = convert([Words(records)], tmp_path / "out", format="folder")
    assert result.damage.counts == {"label cannot be written": 3}
    assert [sample.label for sample in open_dataset(tmp_path / "out")] == ["fine", "in\rside"]
    assert convert([Words(records)], tmp_path / "lmdb", format="lmdb").written == 5


def test_an_image_folder_holds_a_thousand(words, tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "IN_A_FOLDER", 4)
    convert([words], tmp_path / "out", format="folder")
    assert [len(list(path.iterdir())) for path in sorted((tmp_path / "out" / "images").iterdir())] == [4, 4, 2]
    assert content(open_dataset(tmp_path / "out")) == content(words)


def test_an_lmdb_grows_and_its_file_is_as_small_as_its_content(tmp_path, monkeypatch):
    noise = np.random.default_rng(0)
    records = [Record(encode(noise.integers(0, 256, (32, 100), np.uint8)), str(i), str(i)) for i in range(300)]
    monkeypatch.setattr(LmdbWriter, "map_size", 1 << 16)  # three doublings in the first commit
    monkeypatch.setattr(writers, "BATCH", 1 << 18)
    convert([Words(records)], tmp_path / "out", format="lmdb")
    dataset = open_dataset(tmp_path / "out")
    assert content(dataset) == [record[:2] for record in records]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["data.mdb"]
    assert (tmp_path / "out" / "data.mdb").stat().st_size < 1.5 * sum(len(record.image) for record in records)


def test_an_lmdb_file_as_large_as_its_map_is_shrunk(words, tmp_path):
    """As on systems whose files have the size of the map from the start."""
    with whole_folder(tmp_path / "out") as folder:
        with WRITERS["lmdb"](folder, name="", shards=1, total=1) as writer:
            writer.write(0, *words[0][:2])
            with (folder / "growing.mdb").open("r+b") as file:
                file.truncate(1 << 26)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["data.mdb"]
    assert (tmp_path / "out" / "data.mdb").stat().st_size < 1 << 17
    assert content(open_dataset(tmp_path / "out")) == [words[0][:2]]


def test_lmdb_keys_count_without_gaps_from_one(words, tmp_path):
    records = [words[0], words[1]._replace(image=b"no image"), words[2]]
    convert([Words(records)], tmp_path / "out", format="lmdb")
    with lmdb.open(str(tmp_path / "out"), readonly=True, lock=False) as environment, environment.begin() as transaction:
        entries = {bytes(key).decode(): bytes(value) for key, value in transaction.cursor()}
    assert entries == {
        "num-samples": b"2",
        "image-000000001": words[0].image,
        "label-000000001": words[0].label.encode(),
        "image-000000002": words[2].image,
        "label-000000002": words[2].label.encode(),
    }


@pytest.mark.parametrize("format", WRITERS)
def test_after_an_error_nothing_is_left(words, tmp_path, format):
    class Broken(Words):
        def __getitem__(self, index):
            if index == 7:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    with pytest.raises(KeyboardInterrupt):
        convert([Broken(words.records)], tmp_path / "out", format=format, shards=2)
    assert is_empty(tmp_path)


@pytest.mark.parametrize("format", WRITERS)
def test_with_nothing_left_nothing_is_written(words, tmp_path, format):
    result = convert([Words([words[0]._replace(image=b"")])], tmp_path / "out", format=format)
    assert (result.written, str(result.damage)) == (0, "1 empty image")
    assert is_empty(tmp_path)


@contextmanager
def file_sizes_up_to(count: int):
    """Writing more than `count` bytes to a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("format", ["tfrecord", "array_record", "lmdb"])
def test_a_file_that_cannot_grow_is_one_line_and_nothing_is_left(words, tmp_path, format):
    large = Words(words.records * 20)
    with file_sizes_up_to(30_000), pytest.raises(DatasetError) as error:
        convert([large], tmp_path / "out", format=format)
    assert str(error.value).startswith(f"{tmp_path}/out: cannot be written: ")
    assert "\n" not in str(error.value)
    assert is_empty(tmp_path)


@pytest.mark.parametrize("format", ["tfrecord", "folder"])
def test_a_full_disk_is_one_line_and_nothing_is_left(words, tmp_path, monkeypatch, format):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tfrecord.os, "fsync", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DatasetError) as error:
        convert([words], tmp_path / "out", format=format)
    assert str(error.value) == f"{tmp_path}/out: cannot be written: No space left on device"
    assert is_empty(tmp_path)


@pytest.mark.parametrize("format", WRITERS)
def test_a_place_that_cannot_be_written_is_one_line(words, tmp_path, format):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=f"^{tmp_path}/file/out: cannot be written: Not a directory$"):
        convert([words], tmp_path / "file" / "out", format=format)


def test_what_is_there_is_left_alone(words, tmp_path):
    (tmp_path / "out").mkdir()
    convert([words], tmp_path / "out", format="folder")  # an empty folder may be replaced
    (tmp_path / "file").write_text("dear")
    for name in ("out", "file"):
        with pytest.raises(DatasetError, match=f"^{tmp_path}/{name}: already exists; remove it or choose another$"):
            convert([words], tmp_path / name, format="lmdb")
    assert content(open_dataset(tmp_path / "out")) == content(words)
    assert (tmp_path / "file").read_text() == "dear"


def test_what_a_killed_process_left_is_no_obstacle(words, tmp_path):
    (tmp_path / ".incomplete-out").mkdir()
    (tmp_path / ".incomplete-out" / "labels.tsv").write_text("x")
    convert([words], tmp_path / "out", format="lmdb")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shards": 0}, "shards = 0: expected 1 to 10, the number of words"),
        ({"shards": 11}, "shards = 11: expected 1 to 10, the number of words"),
        ({"name": "a/b"}, "name = 'a/b': expected a plain file name for the shards"),
        ({"name": ""}, "name = '': expected a plain file name for the shards"),
    ],
)
def test_shards_that_cannot_be(words, tmp_path, options, message):
    with pytest.raises(DatasetError, match=f"^{message}$"):
        convert([words], tmp_path / "out", format="tfrecord", **options)
    assert is_empty(tmp_path)


@pytest.mark.parametrize(
    ("format", "module", "package"),
    [
        ("lmdb", "lmdb", "lmdb"),
        ("array_record", "array_record.python.array_record_module", "array-record"),
        ("array_record", "tensorflow_datasets.proto", "tensorflow-datasets"),
        ("tfrecord", "tensorflow_datasets.proto", "tensorflow-datasets"),
        ("tfrecord", "google_crc32c", "google-crc32c"),
    ],
)
def test_without_a_package_the_message_says_what_to_install(words, tmp_path, monkeypatch, format, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DatasetError, match=f"pip install {package}"):
        convert([words], tmp_path / "out", format=format)
    assert is_empty(tmp_path)


def test_a_conversion_tells_what_became_of_the_records(words, tmp_path):
    records = [words[0], words[1]._replace(image=words[1].image[:100])]
    result = convert([Words(records)], tmp_path / "out", format="folder")
    table = result.to_json()
    assert (table["written"], table["damage"]["skipped"], table["format"]) == (1, 1, "folder")
    assert table["damage"]["counts"] == {"image does not decode": 1}
    [place] = table["damage"]["places"]
    assert place["message"].startswith("word 1: does not decode: ")
    assert str(result).startswith(f"{tmp_path}/out: 1 words, ")
    assert str(result).endswith(" a second; skipped 1: 1 image does not decode")
    assert conversion.encoded(b"as it is") == b"as it is"
