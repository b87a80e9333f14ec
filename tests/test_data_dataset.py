import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crnn_jax.data.dataset import open_dataset
from crnn_jax.data.folder import FolderDataset
from crnn_jax.data.sample import DatasetError
from crnn_jax.metrics import normalise

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def image(tmp_path):
    Image.new("L", (5, 4)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("name", ["labels.tsv", "gt.txt"])
def test_a_folder_of_images_or_its_list(image, name):
    (image.parent / name).write_text("a.png\tword")
    for path in (image.parent, str(image.parent), image.parent / name):
        dataset = open_dataset(path)
        assert isinstance(dataset, FolderDataset)
        assert [sample.label for sample in dataset] == ["word"]


def test_an_lmdb(image):
    lmdb = pytest.importorskip("lmdb")
    folder = image.parent / "lmdb"
    with lmdb.open(str(folder), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        for key, value in {"num-samples": b"1", "image-000000001": image.read_bytes(), "label-000000001": b"w"}.items():
            transaction.put(key.encode(), value)
    assert [sample.label for sample in open_dataset(folder)] == ["w"]


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
    with pytest.raises(DatasetError, match=f"^{folder}: no dataset: it has none of labels.tsv, gt.txt, data.mdb"):
        open_dataset(folder)
    (folder / "empty").mkdir()
    with pytest.raises(DatasetError, match=f"^{folder}/empty: an empty folder$"):
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
