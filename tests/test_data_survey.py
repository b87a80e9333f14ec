"""What is damaged is found, named and counted, wherever it is; what is whole is counted right."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from small import noise_images, write_lmdb, write_tfrecords

from crnn_jax.data import damage as damage_module
from crnn_jax.data.damage import Damage, whole_records
from crnn_jax.data.dataset import open_dataset
from crnn_jax.data.sample import Dataset, DatasetError, Record
from crnn_jax.data.survey import survey


def encode(height: int, width: int, suffix: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.resize(noise_images(1)[0], (height, width))).save(buffer, suffix)
    return buffer.getvalue()


def write_folder(folder, samples):
    folder.mkdir()
    lines = []
    for i, (image, label) in enumerate(samples):
        (folder / f"{i}.png").write_bytes(image)
        lines.append(f"{i}.png\t{label}\n")
    (folder / "labels.tsv").write_text("".join(lines))
    return folder


@pytest.fixture
def samples():
    return [(encode(20 + i, 60), f"word{i}") for i in range(6)]


def look(path):
    """The labels that can be read, and what is said about the others."""
    damage = Damage()
    labels = [record.label for _, record, _ in whole_records(open_dataset(path, strict=False), damage)]
    return labels, damage


def test_nothing_is_damaged(samples, tmp_path):
    labels, damage = look(write_folder(tmp_path / "f", samples))
    assert labels == [label for _, label in samples]
    assert (len(damage), str(damage), damage.places) == (0, "", [])


def test_the_damage_of_a_folder(samples, tmp_path):
    folder = write_folder(tmp_path / "f", samples)
    (folder / "0.png").unlink()
    (folder / "1.png").write_bytes(b"")
    (folder / "2.png").write_bytes(samples[2][0][:-40])
    (folder / "3.png").write_text("no image at all")
    with (folder / "labels.tsv").open("ab") as file:
        file.write(b"4.png no tab\n5.png\t\xe9t\xe9\n")
    labels, damage = look(folder)
    assert labels == ["word4", "word5"]
    assert damage.counts == {
        "line without a label": 1,
        "label is not UTF-8": 1,
        "missing image": 1,
        "empty image": 1,
        "image does not decode": 1,
        "not an image of a known format": 1,
    }
    assert ("missing image", f"{folder}/0.png: No such file or directory") in damage.places
    assert ("label is not UTF-8", f"{folder}/labels.tsv, line 8: not UTF-8") in damage.places


def test_the_damage_of_an_lmdb(samples, tmp_path):
    folder = write_lmdb(tmp_path / "f", samples)
    import lmdb

    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"num-samples", b"7")
        transaction.put(b"label-000000001", b"\xe9")
        transaction.put(b"image-000000002", b"")
        transaction.delete(b"image-000000003")
    labels, damage = look(folder)
    assert labels == ["word3", "word4", "word5"]
    assert damage.counts == {"label is not UTF-8": 1, "empty image": 1, "missing key": 2}


def test_the_damage_of_tfrecords(samples, tmp_path):
    paths = [
        write_tfrecords(tmp_path / f"{i}.tfrecord", samples[first : first + 2]) for i, first in enumerate((0, 2, 4))
    ]
    first, second, third = (bytearray(path.read_bytes()) for path in paths)
    paths[0].write_bytes(first[:-5])  # cut in the middle of a record
    second[100] ^= 1  # in the data of a record
    paths[1].write_bytes(second)
    third[3] ^= 1  # in the length of a record
    paths[2].write_bytes(third)
    (tmp_path / "3.tfrecord").write_bytes(b"")
    labels, damage = look(tmp_path)
    assert labels == ["word0", "word3"]
    assert damage.counts == {"cut short": 1, "rest of a shard lost": 1, "checksum does not match": 1}
    assert [message for _, message in damage.places] == [
        f"{paths[0]}, record 1: cut short",
        f"{paths[2]}, record 0: damaged, compressed or not a TFRecord: the checksum of its length does not match",
        f"{paths[1]}, record 0: damaged: its checksum does not match",
    ]


def test_an_example_without_its_image_is_no_labelled_image(samples, tmp_path):
    path = write_tfrecords(tmp_path / "x.tfrecord", samples)
    pytest.importorskip("tensorflow_datasets")
    from crnn_jax.data.example import serialise
    from crnn_jax.data.tfrecord import TFRecordWriter

    with TFRecordWriter(path) as writer:
        for message in (b"\xff\xff", b"", serialise(*samples[0]), b"", b"\xff\xff"):
            writer.write(message)
    labels, damage = look(path)
    assert (labels, damage.counts) == (["word0"], {"not a labelled image": 4})
    with TFRecordWriter(path) as writer:
        writer.write(b"")
    with pytest.raises(DatasetError, match="x.tfrecord, record 0: needs image/encoded and text/string"):
        open_dataset(path, strict=False)


def test_the_damage_of_array_records(samples, tmp_path):
    pytest.importorskip("array_record")
    from crnn_jax.data.conversion import convert

    folder = write_folder(tmp_path / "f", samples * 2)
    convert([open_dataset(folder)], tmp_path / "a", format="array_record", shards=6)
    paths = sorted((tmp_path / "a").iterdir())
    content = bytearray(paths[0].read_bytes())
    content[content.index(samples[1][0]) + 50] ^= 1
    paths[0].write_bytes(content)
    paths[1].write_bytes(b"")
    paths[2].write_bytes(b"no records" * 1000)
    paths[3].write_bytes(paths[3].read_bytes()[:-100])
    labels, damage = look(tmp_path / "a")
    assert labels == ["word0", "word2", "word3", "word4", "word5"]
    assert damage.counts == {"shard cannot be read": 3, "checksum does not match": 1}
    with pytest.raises(DatasetError, match="00001-of-00006: the file is empty$"):
        open_dataset(tmp_path / "a")
    for path in (paths[0], *paths[4:]):
        path.unlink()
    with pytest.raises(DatasetError, match="00001-of-00006: the file is empty$"):
        open_dataset(tmp_path / "a", strict=False)


def test_of_much_damage_the_first_places_are_listed(monkeypatch):
    monkeypatch.setattr(damage_module, "LISTED", 3)
    damage = Damage()
    for i in range(10):
        damage.add(f"{i}: empty")
    damage.add("something new")
    assert damage.to_json() == {
        "counts": {"empty image": 10, "cannot be read": 1},
        "places": [{"reason": "empty image", "message": f"{i}: empty"} for i in range(3)],
    }
    assert str(damage) == "10 empty image, 1 cannot be read"


@pytest.fixture
def varied(tmp_path):
    samples = [
        (encode(10, 20, "JPEG"), "Aa1"),
        (encode(20, 20), "aa"),
        (encode(30, 90), "aa"),
        (encode(40, 40), "b-b"),
        (encode(50, 50), "né"),
        (b"", "lost"),
    ]
    return samples, open_dataset(write_folder(tmp_path / "f", samples))


def test_all_is_counted(varied):
    samples, dataset = varied
    found = survey(dataset)
    assert (found.words, found.distinct, len(found.damage)) == (5, 4, 1)
    assert found.lengths == {2: 3, 3: 2}
    assert found.frequent == {"aa": 2, "Aa1": 1, "b-b": 1, "né": 1}
    assert found.characters == {"a": 5, "b": 2, "A": 1, "1": 1, "-": 1, "n": 1, "é": 1}
    assert list(found.characters)[:2] == ["a", "b"]
    assert found.charsets == {"36": 3, "62": 3, "94": 4}
    assert found.heights == {0: 10, 5: 10, 50: 30, 95: 50, 100: 50}
    assert found.widths == {0: 20, 5: 20, 50: 40, 95: 90, 100: 90}
    assert found.aspects == {0: 1, 5: 1, 50: 1, 95: 3, 100: 3}
    assert found.formats == {"png": 4, "jpg": 1}
    assert found.total_bytes == sum(len(image) for image, _ in samples)
    assert [sample.label for sample in found.samples] == ["Aa1", "aa", "aa", "b-b", "né"]


def test_it_goes_through_json(varied):
    found = survey(varied[1])
    table = json.loads(json.dumps(found.to_json()))
    assert table["words"] == 5
    assert table["lengths"] == {"2": 3, "3": 2}
    assert table["damage"]["counts"] == {"empty image": 1}
    assert "samples" not in table


def test_as_text(varied):
    _, dataset = varied
    text = str(survey(dataset))
    for line in (
        "words       5, 1 damaged places",
        "  damage    1 empty image",
        f"            {dataset.path.parent}/5.png: empty",
        "labels      4 distinct, 1 repeated",
        f"          2        3 {'#' * 40}",
        f"          3        2 {'#' * 27}",
        "charset 94  holds 4 labels, 80.0 %",
        "heights     min 10, 5 % 10, median 30, 95 % 50, max 50",
        "characters  7: a: 5, b: 2, A: 1, 1: 1, -: 1, n: 1, é: 1",
        "formats     png: 4, jpg: 1",
    ):
        assert line in text.splitlines()


def test_samples_are_from_all_over_the_dataset():
    class Many(Dataset):
        def __len__(self):
            return 1000

        def __getitem__(self, index):
            return Record(np.full((4, 5), 7, np.uint8), str(index), str(index))

    found = survey(Many(), samples=5)
    assert [sample.label for sample in found.samples] == ["0", "250", "500", "749", "999"]
    assert (found.formats, found.total_bytes) == ({"array": 1000}, 20_000)


def test_in_place_of_a_damaged_sample_comes_the_next_word(samples, tmp_path):
    folder = write_folder(tmp_path / "f", samples)
    for damaged in ("0.png", "5.png"):
        (folder / damaged).write_bytes(b"")
    found = survey(open_dataset(folder, strict=False), samples=3)  # 0, 2 and 5
    assert [sample.label for sample in found.samples] == ["word1", "word2"]


def test_with_no_word_left_there_is_a_survey_all_the_same(tmp_path):
    found = survey(open_dataset(write_folder(tmp_path / "f", [(b"", "x")])))
    assert (found.words, found.heights, found.samples) == (0, {}, ())
    assert json.dumps(found.to_json())
