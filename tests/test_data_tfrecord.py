import io
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from crnn_jax.data.sample import DatasetError
from crnn_jax.data.shards import ShardDataset
from crnn_jax.data.tfrecord import TFRecordFile, TFRecordWriter
from crnn_jax.images import ImageError

Example = pytest.importorskip("tensorflow_datasets").proto.tf_example_pb2.Example
pytest.importorskip("google_crc32c")


def crc32c(data: bytes) -> int:
    """Bit by bit, from the polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def framed(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    return length + masked(length) + record + masked(record)


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (5, 4), value).save(buffer, "PNG")
    return buffer.getvalue()


def example(**features: bytes | list[bytes]) -> bytes:
    message = Example()
    for key, value in features.items():
        values = value if isinstance(value, list) else [value]
        message.features.feature[key.replace("__", "/")].bytes_list.value.extend(values)
    return message.SerializeToString()


def word(text: str, value: int, label: str = "text__string") -> bytes:
    return example(image__encoded=png(value), **{label: text.encode()})


def write(path, records):
    path.write_bytes(b"".join(framed(record) for record in records))
    return path


def test_the_checksum_of_these_tests_is_the_known_one():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C's definition


def test_records_come_out_as_they_went_in(tmp_path):
    records = [b"", b"a", bytes(range(256)) * 20]
    path = write(tmp_path / "x.tfrecord", records)
    file = TFRecordFile(path)
    assert (len(file), file.damage) == (3, None)
    assert [file[i] for i in (2, 0, 1)] == [records[i] for i in (2, 0, 1)]


@pytest.mark.parametrize("label", ["text__string", "image__transcript"])
def test_both_schemas_over_several_shards(tmp_path, label):
    first = write(tmp_path / "a.tfrecord-0", [word("naïve", 10, label), word("two", 20, label)])
    empty = write(tmp_path / "a.tfrecord-1", [])
    last = write(tmp_path / "a.tfrecord-2", [word("3", 30, label)])
    dataset = ShardDataset([first, empty, last])
    assert len(dataset) == 3
    assert [dataset[i].label for i in (-1, -3)] == ["3", "naïve"]
    for index in (3, -4):
        with pytest.raises(IndexError):
            dataset[index]
    for _ in range(2):
        samples = list(dataset)
        assert [sample.label for sample in samples] == ["naïve", "two", "3"]
        assert [sample.name for sample in samples] == [f"{first}, record 0", f"{first}, record 1", f"{last}, record 0"]
        for sample, value in zip(samples, (10, 20, 30), strict=True):
            np.testing.assert_array_equal(sample.image, np.full((4, 5), value))


def test_more_shards_than_files_may_be_open_at_first(tmp_path):
    script = (
        "import resource, sys; from pathlib import Path; from crnn_jax.data.shards import ShardDataset\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "print(len(ShardDataset(sorted(Path(sys.argv[1]).iterdir()))))"
    )
    for i in range(110):
        write(tmp_path / f"x.tfrecord-{i:05d}", [word("a", 1)])
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True)
    assert done.stdout == "110\n", done.stderr


def test_tensorflow_is_not_imported(tmp_path):
    list(ShardDataset([write(tmp_path / "x.tfrecord", [word("a", 1)])]))
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("position", range(len(framed(b"some data"))))
def test_any_changed_byte_is_found_and_the_record_named(tmp_path, position):
    damaged = bytearray(framed(b"some data"))
    damaged[position] ^= 4
    path = tmp_path / "x.tfrecord"
    path.write_bytes(framed(b"one") + bytes(damaged))
    file = TFRecordFile(path)
    assert file[0] == b"one"
    if position < 12:  # in the length, or in its checksum
        assert len(file) == 1 and file.damage.startswith(f"{path}, record 1: damaged")
    else:
        with pytest.raises(DatasetError, match=r"x\.tfrecord, record 1: damaged"):
            file[1]


@pytest.mark.parametrize("length", range(1, len(framed(b"some data"))))
def test_a_file_cut_short_is_found_at_any_place(tmp_path, length):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(framed(b"one") + framed(b"some data")[:length])
    file = TFRecordFile(path)
    assert [file[i] for i in range(len(file))] == [b"one"]
    assert file.damage == f"{path}, record 1: cut short"
    with pytest.raises(DatasetError, match="record 1: cut short"):
        ShardDataset([path])


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], ": no records"),
        ([b"\xff\xff"], ", record 0: not a tf.train.Example"),
        (
            [example(image__encoded=png(0), b=b"", a=b"")],
            ", record 0: needs image/encoded and text/string or image/transcript, has a, b, image/encoded",
        ),
        ([example(text__string=b"x")], ", record 0: needs image/encoded and"),
        ([word("a", 1), example(image__encoded=png(0))], ", record 1: text/string has 0 byte strings instead of one"),
        (
            [word("a", 1), example(image__encoded=[png(0), png(0)], text__string=b"b")],
            ", record 1: image/encoded has 2 byte strings instead of one",
        ),
        ([example(image__encoded=png(0), text__string=b"\xe9")], ", record 0: text/string is not UTF-8"),
    ],
)
def test_what_is_wrong_is_named_with_its_record(tmp_path, records, message):
    path = write(tmp_path / "x.tfrecord", records)
    with pytest.raises(DatasetError) as error:
        list(ShardDataset([path]))
    assert str(error.value).startswith(f"{path}{message}")


def test_an_image_that_does_not_decode_is_named(tmp_path):
    path = write(tmp_path / "x.tfrecord", [word("a", 1), example(image__encoded=b"none", text__string=b"b")])
    with pytest.raises(ImageError, match="x.tfrecord, record 1: not an image of a known format"):
        list(ShardDataset([path]))


def test_files_that_are_no_tfrecords(tmp_path):
    (tmp_path / "x.tfrecord").write_text("a text of some length")
    with pytest.raises(DatasetError, match="record 0: damaged, compressed or not a TFRecord"):
        ShardDataset([tmp_path / "x.tfrecord"])
    with pytest.raises(DatasetError, match="missing.tfrecord: No such file"):
        ShardDataset([tmp_path / "missing.tfrecord"])


@pytest.mark.parametrize(
    ("module", "package"), [("google_crc32c", "google-crc32c"), ("tensorflow_datasets.proto", "tensorflow-datasets")]
)
def test_without_a_package_the_message_says_what_to_install(tmp_path, monkeypatch, module, package):
    path = write(tmp_path / "x.tfrecord", [word("a", 1)])
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DatasetError, match=f"need the package {package}: pip install {package}"):
        ShardDataset([path])


def test_a_written_file_has_its_name_once_it_is_whole(tmp_path):
    path = tmp_path / "x.tfrecord"
    with TFRecordWriter(path) as writer:
        writer.write(b"one")
        assert not path.exists()
        writer.write(b"some data")
    assert path.read_bytes() == framed(b"one") + framed(b"some data")
    with pytest.raises(KeyError), TFRecordWriter(path) as writer:
        writer.write(b"another")
        raise KeyError
    assert path.read_bytes() == framed(b"one") + framed(b"some data")
    assert list(tmp_path.iterdir()) == [path]


def test_without_strict_what_is_in_front_of_a_damage_is_read(tmp_path):
    whole = write(tmp_path / "b.tfrecord", [word("c", 3)])
    records = framed(word("a", 1)) + framed(word("b", 2))
    (tmp_path / "a.tfrecord").write_bytes(records[:-5])
    (tmp_path / "c.tfrecord").write_bytes(b"")
    paths = [tmp_path / "a.tfrecord", whole, tmp_path / "c.tfrecord"]
    with pytest.raises(DatasetError, match="a.tfrecord, record 1: cut short"):
        ShardDataset(paths)
    dataset = ShardDataset(paths, strict=False)
    assert [sample.label for sample in dataset] == ["a", "c"]
    assert dataset.damage == (f"{tmp_path}/a.tfrecord, record 1: cut short",)


def test_without_strict_the_schema_comes_from_the_first_record_that_can_be_read(tmp_path):
    path = tmp_path / "x.tfrecord"
    content = bytearray(framed(word("a", 1)) + framed(word("b", 2, "image__transcript")))
    content[20] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="record 0: damaged"):
        ShardDataset([path])
    assert ShardDataset([path], strict=False)[1].label == "b"


def test_a_dataset_can_be_sent_to_another_process(tmp_path):
    dataset = ShardDataset([write(tmp_path / "x.tfrecord", [word("a", 1), word("b", 2)])])
    assert dataset[1].label == "b"
    assert pickle.loads(pickle.dumps(dataset))[1] == dataset[1]
