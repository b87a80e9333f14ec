"""ArrayRecord shards are read as TFRecord shards are."""

import pickle

import pytest
from test_data_tfrecord import word

from crnn_jax.data.dataset import open_dataset
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.shards import ShardDataset

array_record = pytest.importorskip("array_record.python.array_record_module")


def write(path, records):
    writer = array_record.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for record in records:
        writer.write(record)
    writer.close()
    return path


def test_shards_of_a_folder(tmp_path):
    write(tmp_path / "a.array_record-00000-of-00002", [word("one", 1), word("two", 2)])
    write(tmp_path / "a.array_record-00001-of-00002", [word("naïve", 3)])
    dataset = open_dataset(tmp_path)
    assert [sample.label for sample in dataset] == ["one", "two", "naïve"]
    assert dataset[2].name == f"{tmp_path}/a.array_record-00001-of-00002, record 0"
    assert pickle.loads(pickle.dumps(dataset))[1] == dataset[1]


@pytest.mark.parametrize("content", [b"", b"no records" * 1000])
def test_files_that_are_no_array_records_are_named(tmp_path, content):
    path = tmp_path / "x.array_record"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"^{path}: "):
        ShardDataset([path])


def test_a_changed_byte_is_found_and_the_record_named(tmp_path):
    path = write(tmp_path / "x.array_record", [word("a" * 2000, 1), word("b", 2)])
    content = bytearray(path.read_bytes())
    content[content.index(b"aaaa")] ^= 4
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"^{path}, record 0: "):
        ShardDataset([path])[0]
