import re

import numpy as np
import pytest

from crnn_jax.data import standin
from crnn_jax.data.mjsynth import read_layout, read_lexicon, read_lines
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.standin import natural_widths, write_stand_in
from crnn_jax.data.synth90k import prepare
from crnn_jax.images import load_image

WORDS = ["ab", "cat", "house", "lantern", "x9"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("standin") / "original"
    assert write_stand_in(folder, count=310, words=WORDS, fonts=4) == {"train": 251, "validation": 28, "test": 31}
    return folder


def test_it_has_the_layout_of_the_original(folder):
    layout = read_layout(folder)
    assert read_lexicon(layout.lexicon)[:-1] == WORDS
    lines = [line.decode() for content in layout.lists.values() for line in read_lines(content)]
    assert len(lines) == 310
    for line in lines:
        name = re.fullmatch(r"\./1/[12]/(\d+)_([A-Za-z0-9]+)_(\d) (\d)", line.replace(".jpg", ""))
        assert name[3] == name[4] and name[2].lower() == WORDS[int(name[3])] and 1 <= int(name[1]) <= 300
    files = {str(path.relative_to(folder)) for path in folder.rglob("*.jpg")}
    assert files == {line.split()[0].removeprefix("./") for line in lines}
    assert len({line.split("_")[1] for line in lines}) > 2 * len(WORDS), "several cases"


def test_images_are_as_wide_as_their_words(folder):
    widths = {}
    for path in folder.rglob("*.jpg"):
        image = load_image(path)
        assert image.shape[0] == 31
        assert image.std() > 1, "something is written on it"
        widths.setdefault(len(path.name.split("_")[1]), []).append(image.shape[1])
    assert np.mean(widths[2]) < np.mean(widths[5]) < np.mean(widths[7])
    assert all(len(set(values)) > 10 for values in widths.values())
    every = [width for values in widths.values() for width in values]
    assert sum(width == 192 for width in every) < 0.03 * len(every), "few fill their canvas, and are squeezed"


def test_the_whole_way_to_shards(folder, tmp_path):
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("google_crc32c")
    report = prepare(folder, tmp_path / "out", shards=3, workers=1)
    assert report.written == report.listed == {"train": 251, "validation": 28, "test": 31}
    assert report.dropped == []


def test_natural_widths_are_where_the_repeated_columns_begin():
    images = np.arange(4 * 3 * 5, dtype=np.uint8).reshape(4, 3, 5)
    images[1, :, 3:] = images[1, :, 2:3]
    images[2] = images[2, :, :1]
    images[3, :, 4] = images[3, :, 3]
    images[3, 0, 4] += 1  # one pixel differs
    np.testing.assert_array_equal(natural_widths(images), [5, 3, 1, 5])


def test_what_cannot_be_written_is_one_line(folder, tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match="original: already exists"):
        write_stand_in(folder, count=1)
    for word in ("naïve", "two words", "", "x" * 25):
        with pytest.raises(DatasetError, match="expected a word of 1 to 24 letters and digits"):
            write_stand_in(tmp_path / "a", count=1, words=[word])
    with pytest.raises(DatasetError, match="0 images of 1 words"):
        write_stand_in(tmp_path / "a", count=0, words=["a"])
    with pytest.raises(DatasetError, match="seed = -1: expected at least 0"):
        write_stand_in(tmp_path / "a", count=1, words=["a"], seed=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="file/a.*: Not a directory"):
        write_stand_in(tmp_path / "file/a", count=1, words=["a"])

    def render(*_):
        yield np.array([0]), np.zeros((1, 31, 40), np.uint8)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(standin, "_render", render)
    monkeypatch.setattr(standin.Path, "write_bytes", full)
    with pytest.raises(DatasetError, match="a: No space left on device"):
        write_stand_in(tmp_path / "a", count=1, words=["a"])
    assert not list(tmp_path.rglob("annotation*"))
