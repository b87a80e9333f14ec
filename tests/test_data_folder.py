import re

import numpy as np
import pytest
from PIL import Image

from crnn_jax.data.dataset import open_dataset
from crnn_jax.data.folder import FolderDataset
from crnn_jax.data.sample import DatasetError
from crnn_jax.images import ImageError

LABELS = ["Genaxis Theatre", "[06]", "naïve,\u2028\x85 5 x", ""]


@pytest.fixture
def folder(tmp_path):
    """Four images, 0.png ... 3.png, of as many grey levels."""
    for i in range(4):
        Image.new("L", (5 + i, 4), 10 * i).save(tmp_path / f"{i}.png")
    return tmp_path


def write(folder, name, text, **options):
    (folder / name).write_bytes(text.encode(**options) if isinstance(text, str) else text)
    return folder / name


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_labels_tsv(folder, encoding, newline):
    lines = [f"{i}.png\t{label}" for i, label in enumerate(LABELS)]
    dataset = FolderDataset(write(folder, "labels.tsv", newline.join([*lines, "", ""]), encoding=encoding))
    assert len(dataset) == 4
    samples = list(dataset)
    assert [sample.label for sample in samples] == LABELS
    assert [sample.name for sample in samples] == ["0.png", "1.png", "2.png", "3.png"]
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(sample.image, np.full((4, 5 + i), 10 * i))
    assert [sample.label for sample in dataset] == LABELS  # again from the beginning


def test_labels_csv(folder):
    lines = ["filename,words", "0.png,one", '1.png, "1,000"', '2.png,"say ""so"""', "3.png,"]
    for given in (lines, ["", *lines], lines[1:]):  # with a head and without
        write(folder, "labels.csv", "\r\n".join([*given, ""]))
        assert [sample.label for sample in open_dataset(folder)] == ["one", "1,000", 'say "so"', ""]
    write(folder, "other.csv", "filename\twords\n0.png\tone\n")
    assert [sample.label for sample in open_dataset(folder / "other.csv")] == ["one"]
    for i in range(2):
        (folder / f"{i}.png").rename(folder / str(i))  # names without a suffix, as in some datasets
    write(folder, "labels.csv", "0,one\n1,two\n")
    assert [sample.label for sample in open_dataset(folder)] == ["one", "two"]
    write(folder, "gt.txt", "0 of gt\n")
    assert open_dataset(folder)[0].label == "of gt"


def test_lists_as_spreadsheets_save_them(folder):
    write(folder, "labels.csv", 'filename;words\n0.png;1,5\n1.png;"a;b"\n')
    assert [sample.label for sample in open_dataset(folder)] == ["1,5", "a;b"]
    (folder / "labels.csv").unlink()
    write(folder, "labels.tsv", "image\tLabel\n0.png\tone\n")
    assert [sample.label for sample in open_dataset(folder)] == ["one"]
    write(folder, "labels.tsv", "lost\tword\n0.png\ttwo\n")  # not a column title
    with pytest.raises(DatasetError, match="line 1: no such image"):
        open_dataset(folder)


def test_lines_of_labels_csv_that_are_no_entries(folder):
    for line, message in (
        ("1.png,1,000", "expected image,label, in quotes if it contains a comma: '1.png,1,000'"),
        ("1.png;1", "expected image,label, in quotes if it contains a comma: '1.png;1'"),
        ('1.png,"one', "unexpected end of data: '1.png,\"one'"),
        ("none.png,one", f"no such image: {folder}/none.png"),
    ):
        path = write(folder, "labels.csv", f"0.png,zero\n{line}\n")
        with pytest.raises(DatasetError, match=re.escape(f"{path}, line 2: {message}")):
            FolderDataset(path)
        lenient = FolderDataset(path, strict=False)
        assert lenient[0].label == "zero"
        assert len(lenient.damage) == (not line.startswith("none")) and len(lenient) == 2 - len(lenient.damage)


def test_images_in_folders_below(folder):
    (folder / "images").mkdir()
    (folder / "0.png").rename(folder / "images" / "my word.png")
    dataset = FolderDataset(write(folder, "labels.tsv", "images/my word.png\tword"))
    assert [(sample.name, sample.label) for sample in dataset] == [("images/my word.png", "word")]


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ('0.png, "Genaxis Theatre"', "Genaxis Theatre"),  # ICDAR 2013 and 2015
        (r'0.png, "say \"a\\b\", loud"', r'say "a\b", loud'),
        ('0.png, "', '"'),
        ("0.png,1,000", "1,000"),
        ("0.png 1,000", "1,000"),
        ("0.png one two", "one two"),
        ('0.png "quoted"', '"quoted"'),
        ('0.png\t"a, b" c', '"a, b" c'),
    ],
)
def test_gt_txt(folder, line, label):
    (sample,) = FolderDataset(write(folder, "gt.txt", f"{line}\r\n", encoding="utf-8-sig"))
    assert (sample.name, sample.label) == ("0.png", label)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.tsv", "0.png\ta\n\n1.png b\n", ", line 3: no tab between image and label: '1.png b'"),
        ("labels.tsv", "0.png\ta\ten\n", ", line 1: more than one tab: '0.png\\ta\\ten'"),
        ("labels.tsv", "0.png,a", ", line 1: no tab between image and label: '0.png,a'"),
        ("gt.txt", "0.png a\n1.png\n", ", line 2: no separator between image and label: '1.png'"),
        ("labels.tsv", "0.png\ta\nlost/9.png\tb", ", line 2: no such image: {folder}/lost/9.png"),
        ("labels.tsv", "\ta", ", line 1: no such image: {folder}"),
        ("labels.tsv", "x" * 5000 + "\ta", ", line 1: no such image: {folder}/xxx"),
        ("labels.tsv", "0.png\ta\n1.png\té".encode("latin-1"), ", line 2: not UTF-8"),
        ("labels.tsv", "0.png\ta".encode("utf-16"), ": encoded in UTF-16: save it as UTF-8"),
        ("labels.tsv", "0.png\ta\n1\0.png\tb", ", line 2: contains a null character: '1\\x00.png\\tb'"),
        ("labels.tsv", "", ": the list is empty"),
        ("labels.tsv", "\n \r\n", ": the list is empty"),
    ],
)
def test_a_list_that_is_wrong_is_named_with_the_line(folder, name, text, message):
    path = write(folder, name, text)
    with pytest.raises(DatasetError) as error:
        FolderDataset(path)
    assert str(error.value).startswith(f"{path}{message.format(folder=folder)}")


def test_a_list_that_is_missing(tmp_path):
    with pytest.raises(DatasetError, match="labels.tsv: No such file or directory"):
        FolderDataset(tmp_path / "labels.tsv")


def test_an_image_that_does_not_decode_is_named_when_it_is_reached(folder):
    (folder / "1.png").write_text("this is no picture")
    samples = iter(FolderDataset(write(folder, "labels.tsv", "0.png\ta\n1.png\tb\n")))
    assert next(samples).label == "a"
    with pytest.raises(ImageError, match="1.png: not an image of a known format"):
        next(samples)
