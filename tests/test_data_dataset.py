import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small import write_lmdb, write_tfrecords
from toy import toy_config, toy_source, toy_words

from crnn_jax.config import override
from crnn_jax.data import rendered
from crnn_jax.data.dataset import files_of, open_dataset, share_words, take_part, tenth_start
from crnn_jax.data.example import parse_features
from crnn_jax.data.folder import FolderDataset
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.selection import select
from crnn_jax.data.tfrecord import TFRecordFile
from crnn_jax.metrics import normalise

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def image(tmp_path):
    Image.new("L", (5, 4)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("name", ["labels.tsv", "gt.txt"])
def test_a_folder_of_images_or_its_list(image, name, monkeypatch):
    (image.parent / name).write_text("a.png\tword")
    monkeypatch.setenv("HOME", str(image.parent.parent))
    assert [sample.label for sample in open_dataset(f"~/{image.parent.name}")] == ["word"]
    for path in (image.parent, str(image.parent), image.parent / name):
        dataset = open_dataset(path)
        assert isinstance(dataset, FolderDataset)
        assert [sample.label for sample in dataset] == ["word"]


def test_paths_of_the_same_words_are_known_as_such(image, monkeypatch):
    folder = image.parent / "words"
    folder.mkdir()
    for name in ("a.tfrecord-0", "a.tfrecord-1", "b.tfrecord-0"):
        (folder / name).write_bytes(b"")
    (image.parent / "link").symlink_to(folder)
    monkeypatch.setenv("HOME", str(image.parent))
    same = folder, "~/words", f"{folder}/a.*", folder / "a.tfrecord-1", image.parent / "link" / "a.tfrecord-0"
    assert all(share_words(path, [image, folder]) for path in same)
    assert not share_words(folder / "b.tfrecord-0", [f"{folder}/a.*"]) and not share_words(folder, [image])
    (folder / "labels.tsv").write_text("../a.png\tword")  # now the folder is this dataset
    assert files_of("~/words") == [folder / "labels.tsv"]
    assert share_words(folder, [folder / "labels.tsv"]) and not share_words(folder, [f"{folder}/a.*"])


def test_a_selection_is_of_the_files_as_they_are(image, tmp_path, monkeypatch):
    """Also for a path with a ~."""
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "labels.tsv").write_text("../a.png\t1\n../a.png\t2\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    config = override(toy_config(), ["data.min_height=1"])
    kept = []
    for labels in ("../a.png\t1\n../a.png\t2\n", "../a.png\t1\n../a.png\tüü\n"):
        (tmp_path / "words" / "labels.tsv").write_text(labels, encoding="utf-8")
        kept.append(select("~/words", config, cache=tmp_path / "cache")[1].indices.tolist())
    assert kept == [[0, 1], [0]]


def test_an_lmdb(image):
    lmdb = pytest.importorskip("lmdb")
    folder = image.parent / "lmdb"
    with lmdb.open(str(folder), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        for key, value in {"num-samples": b"1", "image-000000001": image.read_bytes(), "label-000000001": b"w"}.items():
            transaction.put(key.encode(), value)
    assert [sample.label for sample in open_dataset(folder)] == ["w"]
    assert [sample.label for sample in open_dataset(folder / "data.mdb")] == ["w"]


def test_tfrecords_by_file_folder_or_pattern(image):
    proto = pytest.importorskip("tensorflow_datasets").proto
    crc = pytest.importorskip("google_crc32c")

    def masked(data: bytes) -> bytes:
        value = crc.value(data)
        return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) % 2**32)

    folder = image.parent / "shards"
    folder.mkdir()
    for name, text in [("b.tfrecord-01", b"two"), ("b.tfrecord-00", b"one"), ("c.tfrecord", b"three")]:
        message = proto.tf_example_pb2.Example()
        message.features.feature["image/encoded"].bytes_list.value.append(image.read_bytes())
        message.features.feature["text/string"].bytes_list.value.append(text)
        data = message.SerializeToString()
        length = struct.pack("<Q", len(data))
        (folder / name).write_bytes(length + masked(length) + data + masked(data))
    assert [sample.label for sample in open_dataset(folder)] == ["one", "two", "three"]
    assert [sample.label for sample in open_dataset(folder / "b.tfrecord-*")] == ["one", "two"]
    assert [sample.label for sample in open_dataset(folder / "c.tfrecord")] == ["three"]


def test_paths_that_are_no_dataset_are_named(image):
    folder = image.parent
    with pytest.raises(
        DatasetError, match=f"^{folder}: not a dataset: it contains none of labels.tsv, gt.txt, labels.csv, data.mdb"
    ):
        open_dataset(folder)
    (folder / "empty").mkdir()
    with pytest.raises(DatasetError, match=f"^{folder}/empty: the folder is empty$"):
        open_dataset(folder / "empty")
    with pytest.raises(DatasetError, match=f"^{folder}/missing: no such file or folder$"):
        open_dataset(folder / "missing")
    with pytest.raises(DatasetError, match="no such file or folder$"):
        open_dataset(folder / "*.tfrecord")


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("real_words/iiit5k_train", 2000),
        ("real_words/svt_train", 257),
        ("real_words/ic03_train", 891),
        ("mjsynth_sample", 803),
    ],
)
def test_real_data_where_it_is_at_hand(path, count):
    if not (SHARED / path).exists():
        pytest.skip("the data is not here")
    if path == "mjsynth_sample":
        pytest.importorskip("tensorflow_datasets")
    dataset = open_dataset(SHARED / path)
    assert len(dataset) == count
    samples = [sample for sample, _ in zip(dataset, range(20), strict=False)]
    assert all(sample.image.ndim == 2 and np.ptp(sample.image) > 20 for sample in samples)
    assert all(normalise(sample.label) for sample in samples)


def test_all_original_words_have_the_label_that_their_files_name_has():
    path = SHARED / "mjsynth_sample" / "words-000.tfrecord"
    if not path.exists():
        pytest.skip("the data is not here")
    pytest.importorskip("tensorflow_datasets")
    dataset, file = open_dataset(path), TFRecordFile(path)
    names = [parse_features(file[i], "")["image/filename"].bytes_list.value[0].decode() for i in range(len(file))]
    samples = list(dataset)  # this decodes every image
    assert [sample.label for sample in samples] == [name.split("_")[1] for name in names]
    assert len(samples) == 803 and all(sample.image.shape[1] > 20 for sample in samples)


def many_words(kind: str, folder: Path, count: int) -> Path:
    """A dataset of `count` images, each one pixel wider, labelled w0, w1, ...; TFRecords in three shards."""
    samples = []
    for i in range(count):
        buffer = io.BytesIO()
        Image.new("L", (i + 1, 4)).save(buffer, "PNG")
        samples.append((buffer.getvalue(), f"w{i}"))
    folder.mkdir()
    if kind == "lmdb":
        return write_lmdb(folder, samples)
    if kind == "tfrecord":
        for shard, first in enumerate((0, 7, 8)):
            write_tfrecords(folder / f"words.tfrecord-{shard}", samples[first : (7, 8, count)[shard]])
        return folder
    for image, label in samples:
        (folder / f"{label}.png").write_bytes(image)
    (folder / "labels.tsv").write_text("".join(f"{label}.png\t{label}\n" for _, label in samples))
    return folder


@pytest.mark.parametrize("kind", ["folder", "lmdb", "tfrecord"])
def test_samples_from_one_index_to_another(tmp_path, kind):
    dataset = open_dataset(many_words(kind, tmp_path / kind, 23))
    everything = [f"w{i}" for i in range(23)]
    for start, stop in [(0, None), (0, 23), (5, 9), (7, 8), (8, 8), (8, None), (22, None), (23, 23), (20, 40), (9, 3)]:
        samples = list(dataset.samples(start, stop=stop))
        assert [sample.label for sample in samples] == everything[start:stop], (start, stop)
        assert [sample.image.shape[1] for sample in samples] == [int(label[1:]) + 1 for label in everything[start:stop]]


@pytest.mark.parametrize("kind", ["folder", "lmdb", "tfrecord"])
def test_the_tenth_and_the_rest_are_all(tmp_path, kind, monkeypatch):
    dataset = open_dataset(many_words(kind, tmp_path / kind, 23))
    assert tenth_start(dataset) == 21
    tenth, rest = take_part(dataset, "tenth"), take_part(dataset, "rest")
    assert take_part(dataset, "all") is dataset
    assert (len(tenth), len(rest)) == (2, 21)
    assert [sample.name for sample in rest] + [sample.name for sample in tenth] == [sample.name for sample in dataset]
    assert [sample.label for sample in tenth.samples(1)] == ["w22"]
    assert [sample.label for sample in rest.samples(19, stop=30)] == ["w19", "w20"]

    decoded = []
    monkeypatch.setattr("crnn_jax.data.sample.load_image", lambda *args, **options: decoded.append(args))
    assert len(list(tenth)) == len(decoded) == 2


def test_too_few_words_for_a_tenth(image):
    (image.parent / "labels.tsv").write_text("a.png\tword\n" * 9)
    dataset = open_dataset(image.parent)
    assert len(take_part(dataset, "rest")) == 9
    with pytest.raises(DatasetError, match="^a dataset of 9 words has no tenth: it needs 10 or more$"):
        take_part(dataset, "tenth")
    with pytest.raises(ValueError, match="part = 'half': expected all, tenth, rest"):
        take_part(dataset, "half")


def test_rendered_words_are_a_dataset(monkeypatch):
    monkeypatch.setattr(rendered, "load_source", toy_source)
    monkeypatch.setattr(rendered, "synth_batch", toy_words)
    dataset = rendered.RenderedWords(toy_config(), count=100)
    samples = list(dataset)
    assert len(samples) == len(dataset) == 100
    assert all(sample.image.shape == (32, 40) and sample.label.isdigit() for sample in samples)
    assert len({(sample.label, sample.image.tobytes()) for sample in samples}) > 50
    [again] = rendered.RenderedWords(toy_config(), count=100).samples(70, stop=71)
    assert (again.label, again.name) == (samples[70].label, "word 70")
    np.testing.assert_array_equal(again.image, samples[70].image)
    assert [sample.name for sample in take_part(dataset, "tenth").samples(9)] == ["word 99"]
