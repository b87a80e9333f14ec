import gc
import io
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from crnn_jax.data.lmdb import LmdbDataset
from crnn_jax.data.sample import DatasetError
from crnn_jax.images import ImageError

lmdb = pytest.importorskip("lmdb")


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (5, 4), value).save(buffer, "PNG")
    return buffer.getvalue()


TWO_WORDS = {
    "num-samples": b"2",
    "image-000000001": png(10),
    "label-000000001": "naïve".encode(),
    "image-000000002": png(20),
    "label-000000002": b"two",
}


def write(folder, entries):
    with lmdb.open(str(folder), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key.encode(), value)
    return folder


def test_samples_are_read_in_order_and_again(tmp_path):
    dataset = LmdbDataset(write(tmp_path, TWO_WORDS))
    assert len(dataset) == 2
    for _ in range(2):
        samples = list(dataset)
        assert [sample.label for sample in samples] == ["naïve", "two"]
        assert [sample.name for sample in samples] == ["image-000000001", "image-000000002"]
        for sample, value in zip(samples, (10, 20), strict=True):
            np.testing.assert_array_equal(sample.image, np.full((4, 5), value))


def test_threads_that_read_first_together_open_it_once(tmp_path, monkeypatch):
    sent = pickle.dumps(LmdbDataset(write(tmp_path, TWO_WORDS)))  # as to another process, where it is not open
    gc.collect()
    opened, open_it = [], lmdb.open

    def slowly(*arguments, **options):
        opened.append(arguments)
        time.sleep(0.05)
        return open_it(*arguments, **options)

    monkeypatch.setattr(lmdb, "open", slowly)
    dataset = pickle.loads(sent)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda i: dataset[i % 2].label, range(8))) == ["naïve", "two"] * 4
    assert len(opened) == 1


def test_it_can_be_opened_again_after_a_look_at_its_beginning(tmp_path):
    dataset = LmdbDataset(write(tmp_path, TWO_WORDS))
    assert next(iter(dataset)).label == "naïve"
    assert len(list(LmdbDataset(tmp_path))) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num-samples": None}, ": the key num-samples is missing"),
        ({"num-samples": b"two"}, ": num-samples is b'two', not a number"),
        ({"num-samples": b"0"}, ": the LMDB is empty"),
        ({"num-samples": b"3"}, ": the key label-000000003 is missing"),
        ({"image-000000002": None}, ": the key image-000000002 is missing"),
        ({"label-000000001": b"\xe9t\xe9"}, ", label-000000001: not UTF-8"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(tmp_path, change, message):
    entries = {key: value for key, value in (TWO_WORDS | change).items() if value is not None}
    write(tmp_path, entries)
    with pytest.raises(DatasetError) as error:
        list(LmdbDataset(tmp_path))
    assert str(error.value) == f"{tmp_path}{message}"


def test_an_image_that_does_not_decode_is_named(tmp_path):
    dataset = LmdbDataset(write(tmp_path, TWO_WORDS | {"image-000000002": b"none"}))
    with pytest.raises(ImageError, match=", image-000000002: not an image of a known format"):
        list(dataset)


def test_a_file_that_is_no_lmdb(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(DatasetError, match="the LMDB cannot be read: .*MDB_INVALID"):
        LmdbDataset(tmp_path)


def test_a_file_cut_short_is_refused_instead_of_crashing(tmp_path):
    words = {f"image-{i:09d}": png(i) * 50 for i in range(100)}
    path = write(tmp_path, words | TWO_WORDS) / "data.mdb"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match=f"cut short, it should have {len(content)} bytes"):
        LmdbDataset(tmp_path)


def test_without_the_package_the_message_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path, TWO_WORDS)
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(DatasetError, match="an LMDB needs the package lmdb: pip install lmdb"):
        LmdbDataset(tmp_path)
