import pytest
from original import LEXICON, SIZES, jpeg, pack, write_original

from crnn_jax.data.mjsynth import (
    COUNTS,
    UnfitError,
    archive_images,
    image_path,
    read_entry,
    read_layout,
    read_lexicon,
    read_lines,
)
from crnn_jax.data.sample import DatasetError


@pytest.fixture
def folder(tmp_path):
    write_original(tmp_path / "original")
    return tmp_path / "original"


def test_the_original_has_nine_million_images():
    assert sum(COUNTS.values()) == 8_919_273


def test_a_folder_and_the_one_it_was_unpacked_in(folder, tmp_path):
    layout = read_layout(folder)
    assert (layout.source, layout.root) == (folder, "")
    assert {split: len(read_lines(content)) for split, content in layout.lists.items()} == {
        "train": SIZES["train"] + 6,
        "validation": SIZES["val"] + 2,
        "test": SIZES["test"],
    }
    assert read_lexicon(layout.lexicon)[: len(LEXICON)] == LEXICON
    unpacked = tmp_path / "unpacked/mnt/ramdisk/max/90kDICT32px"
    unpacked.parent.mkdir(parents=True)
    folder.rename(unpacked)
    assert read_layout(tmp_path / "unpacked") == layout._replace(source=unpacked)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("prefix", ["mnt/ramdisk/max/90kDICT32px/", "", "./"])
def test_an_archive_has_what_the_folder_has(folder, tmp_path, mode, prefix):
    archive = pack(folder, tmp_path / "x.tar", mode=mode, prefix=prefix)
    heard = []
    layout, from_folder = read_layout(archive), read_layout(folder)
    assert (layout.lists, layout.lexicon) == (from_folder.lists, from_folder.lexicon)
    images = dict(archive_images(layout, progress=heard.append))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert images == {str(path.relative_to(folder)).encode(): path.read_bytes() for path in files}
    assert sum(heard) == archive.stat().st_size


def test_an_archive_is_read_up_to_the_last_list_alone(folder, tmp_path):
    archive = pack(folder, tmp_path / "x.tar", mode="w")
    size = archive.stat().st_size
    with archive.open("ab") as file:
        file.write(bytes(1 << 20))
    heard = []
    read_layout(archive, progress=heard.append)
    assert sum(heard) <= size


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_an_archive_cut_short_is_found(folder, tmp_path, share):
    archive = pack(folder, tmp_path / "x.tar.gz")
    layout, content = read_layout(archive), archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DatasetError, match=r"x\.tar\.gz: damaged, cut short or not a tar archive: \w") as error:
        list(archive_images(layout))
    assert "\n" not in str(error.value)


def test_what_is_no_source(folder, tmp_path):
    (folder / "annotation_val.txt").unlink()
    with pytest.raises(DatasetError, match="annotation_val.txt: No such file"):
        read_layout(folder)
    with pytest.raises(DatasetError, match="x.tar.gz: the archive has no annotation_val.txt"):
        read_layout(pack(folder, tmp_path / "x.tar.gz"))
    with pytest.raises(DatasetError, match="nothing: No such file"):
        read_layout(tmp_path / "nothing")
    (tmp_path / "text").write_text("no archive at all" * 100)
    with pytest.raises(DatasetError, match="text: damaged, cut short or not a tar archive"):
        read_layout(tmp_path / "text")
    with pytest.raises(DatasetError, match="lexicon.txt: not UTF-8"):
        read_lexicon(b"caf\xe9")


def test_lines_are_split_at_line_feeds_alone():
    assert read_lines(b"./a 1\r\n\n ./b 2\x0b\n") == [b"./a 1", b" ./b 2\x0b"]
    assert [image_path(line) for line in (b"./1/2/3_a b_4.jpg 4", b"1/x.jpg 4", b"./x")] == [
        b"1/2/3_a b_4.jpg",
        b"1/x.jpg",
        b"x",
    ]


def test_the_label_keeps_its_case_and_the_image_its_bytes():
    images = {b"3000/7/182_sLinKing_4.jpg": jpeg(7)}
    entry = read_entry(b"./3000/7/182_sLinKing_4.jpg 4", LEXICON, images.__getitem__)
    assert entry == (jpeg(7), "sLinKing")


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b"./1/1/1_cat_1.jpg", "malformed", "expected"),
        (b"./1/1/1_cat_1.jpg one", "malformed", "expected"),
        (b"./1/1/cat.jpg 1", "malformed", "expected"),
        (b"./1/1/1_c\xe9t_1.jpg 1", "malformed", "expected"),
        (b"./1/1/1_cat_2.jpg 2", "label and lexicon disagree", "line 2 of the lexicon is 'dog'"),
        (b"./1/1/1_cat_1.jpg 2", "label and lexicon disagree", "line 2 of the lexicon is 'dog'"),
        (b"./1/1/1_cat_2.jpg 1", "label and lexicon disagree", "line 1 of the lexicon is 'cat'"),
        (b"./1/1/1_cat_6.jpg 6", "label and lexicon disagree", "line 6 of the lexicon is missing"),
        (b"./1/1/1_cat_1.jpg -5", "label and lexicon disagree", "line -5 of the lexicon is missing"),
        (b"./1/1/1_cat_1.jpg 1", "missing", "no such image"),
        (b"./1\x00/1/1_cat_1.jpg 1", "missing", "no such image"),
        (b"./1/1/2_cat_1.jpg 1", "empty", "no bytes"),
        (b"./1/1/3_cat_1.jpg 1", "unreadable", "not an image of a known format"),
        (b"./1/1/4_cat_1.jpg 1", "unreadable", "does not decode: "),
        (b"./1/1/5_cat_1.jpg 1", "unreadable", "Is a directory"),
    ],
)
def test_what_cannot_be_taken_says_why(tmp_path, line, reason, detail):
    folder = tmp_path / "1/1"
    folder.mkdir(parents=True)
    (folder / "2_cat_1.jpg").write_bytes(b"")
    (folder / "3_cat_1.jpg").write_bytes(b"none")
    (folder / "4_cat_1.jpg").write_bytes(jpeg(1)[:500])
    (folder / "5_cat_1.jpg").mkdir()
    with pytest.raises(UnfitError) as error:
        read_entry(line, LEXICON, lambda path: (tmp_path / path.decode()).read_bytes())
    assert error.value.reason == reason
    assert error.value.detail.startswith(detail)


def test_damage_of_what_holds_the_images_does_not_make_them_missing():
    def read(path):
        raise DatasetError("parcel-3.tfrecord, record 7: damaged")

    with pytest.raises(DatasetError, match=r"parcel-3.tfrecord, record 7: damaged"):
        read_entry(b"./1/1/1_cat_1.jpg 1", LEXICON, read)
