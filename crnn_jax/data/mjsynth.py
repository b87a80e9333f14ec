"""Synth90k in its original layout (MJSynth): its split lists, lexicon and images, in a folder or an archive.

Jaderberg, Simonyan, Vedaldi, Zisserman 2014, "Synthetic Data and Artificial Neural Networks for Natural Scene Text
Recognition": https://www.robots.ox.ac.uk/~vgg/data/text/. In the folder `mnt/ramdisk/max/90kDICT32px` of its archive
there are 8.9 million images such as `3000/7/182_slinking_71711.jpg`: number, label with its case, and the line of
`lexicon.txt`, from 0, that has the word in lower case. Each line of a split's list names an image and that number:
`./3000/7/182_slinking_71711.jpg 71711`.
"""

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from crnn_jax.data.sample import DatasetError
from crnn_jax.images import ImageError, load_image

LISTS = {"train": "annotation_train.txt", "validation": "annotation_val.txt", "test": "annotation_test.txt"}
LEXICON = "lexicon.txt"
COUNTS = {"train": 7_224_612, "validation": 802_734, "test": 891_927}  # lines in the original's lists
PREFIX = "mnt/ramdisk/max/90kDICT32px"

MALFORMED, DISAGREES = "malformed", "label and lexicon disagree"
MISSING, EMPTY, UNREADABLE = "missing", "empty", "unreadable"
PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}  # by their first bytes
NAME = re.compile(r"\d+_(.+)_(\d+)\.\w+")


class Layout(NamedTuple):
    """The text files of a source, and where its images are."""

    source: Path  # an archive, or the folder that holds the lists
    root: str  # within an archive: the folder that holds the lists, "" if there is none
    lists: dict[str, bytes]  # by split
    lexicon: bytes


class UnfitError(ValueError):
    """An image that cannot be used, and why: one of this module's reasons, and the details."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def read_layout(source: Path, *, progress: Callable[[int], object] = lambda count: None) -> Layout:
    """Reads the lists and the lexicon of a folder or an archive, which may be compressed with gzip, bzip2 or xz.

    An archive is read only up to the last of them; `progress` is called with the number of bytes of each read. The
    folder may also be the one that the archive was unpacked in. Raises DatasetError.
    """
    names = {*LISTS.values(), LEXICON}
    if source.is_dir():
        root = next((folder for folder in (source, source / PREFIX) if (folder / LISTS["train"]).is_file()), source)
        files = {name: _read(root / name) for name in names}
        return Layout(root, "", *_sort_out(files))
    files, roots = {}, {}
    for member, content in _members(source, lambda name: PurePosixPath(name).name in names, progress):
        name = PurePosixPath(member)
        files.setdefault(name.name, content)
        roots.setdefault(name.name, str(name.parent))
        if files.keys() == names:
            break
    for name in sorted(names - files.keys()):
        raise DatasetError(f"{source}: the archive has no {name}")
    root = roots[LISTS["train"]]
    return Layout(source, "" if root == "." else root, *_sort_out(files))


def archive_images(
    layout: Layout, *, progress: Callable[[int], object] = lambda count: None
) -> Iterator[tuple[bytes, bytes]]:
    """Every file of an archive: its path relative to the lists' folder, as in `image_path`, and its content.

    One pass over the whole archive, which can be read in no other order. Raises DatasetError.
    """
    prefix = f"{layout.root}/" if layout.root else ""
    for member, content in _members(layout.source, lambda name: name.startswith(prefix), progress):
        yield member.removeprefix(prefix).encode("utf-8", "surrogateescape"), content


def read_lines(content: bytes) -> list[bytes]:
    """The non-blank lines of a list."""
    return [line for line in content.replace(b"\r\n", b"\n").split(b"\n") if line.strip()]


def image_path(line: bytes) -> bytes:
    """The path in a line of a list, without a leading `./`; the whole line if it has no index."""
    return (line.strip().rpartition(b" ")[0] or line.strip()).removeprefix(b"./")


def read_lexicon(content: bytes) -> list[str]:
    """The words of a lexicon in line order. Raises DatasetError."""
    try:
        return content.decode().replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError:
        raise DatasetError(f"{LEXICON}: not UTF-8") from None


def read_entry(line: bytes, lexicon: list[str], read: Callable[[bytes], bytes]) -> tuple[bytes, str]:
    """The image named by a line of a list, as it is stored, and its label in the case that is rendered.

    `read` gives the content of a path. The file name and the list must give the same line of the lexicon, the word
    there must be the label in the file name, and the whole image must decode. Raises UnfitError.
    """
    path = image_path(line)
    try:
        name = NAME.fullmatch(PurePosixPath(path.decode()).name)
        index = int(line.split()[-1])
    except ValueError:
        name = None
    if name is None:
        raise UnfitError(MALFORMED, "expected `./folder/number_label_index.jpg index`")
    label = name[1]
    if index != int(name[2]) or not 0 <= index < len(lexicon) or lexicon[index].lower() != label.lower():
        word = repr(lexicon[index]) if 0 <= index < len(lexicon) else "missing"
        raise UnfitError(DISAGREES, f"line {index} of the lexicon is {word}")
    try:
        image = read(path)
    except DatasetError:  # also a ValueError, but about the file that holds the images: they are not missing
        raise
    except (FileNotFoundError, NotADirectoryError, KeyError, ValueError):  # ValueError: a path with a null byte
        raise UnfitError(MISSING, "no such image") from None
    except OSError as error:
        raise UnfitError(UNREADABLE, str(error.strerror)) from None
    if not image:
        raise UnfitError(EMPTY, "no bytes")
    try:
        load_image(image)
    except ImageError as error:
        raise UnfitError(UNREADABLE, str(error).removeprefix("image: ")) from None
    return image, label


def _sort_out(files: dict[str, bytes]) -> tuple[dict[str, bytes], bytes]:
    return {split: files[name] for split, name in LISTS.items()}, files[LEXICON]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None


def _members(
    source: Path, wanted: Callable[[str], bool], progress: Callable[[int], object]
) -> Iterator[tuple[str, bytes]]:
    """The files of an archive whose names are wanted, with their contents, in archive order."""
    try:
        with open(source, "rb") as file:
            opener = next((open_ for magic, open_ in PACKED.items() if file.peek(8).startswith(magic)), None)
            stream = _Counted(file, progress)
            # Not decompressed by tarfile, which takes an archive cut short between two files for a complete one. Read
            # as a stream: otherwise tarfile sometimes seeks backwards, and decompression starts over.
            with tarfile.open(fileobj=opener(stream) if opener else stream, mode="r|") as archive:
                while member := archive.next():
                    archive.members.clear()  # it would keep a kilobyte for each of the nine million
                    name = member.name.removeprefix("./")
                    if member.isfile() and wanted(name):
                        yield name, archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DatasetError(f"{source}: damaged, cut short or not a tar archive: {error}") from None
    except OSError as error:
        raise DatasetError(f"{source}: {error.strerror or error}") from None


class _Counted(io.RawIOBase):
    """A file that reports how many bytes are read from it."""

    def __init__(self, file, progress: Callable[[int], object]):
        self._file, self._progress = file, progress

    def readable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        content = self._file.read(count)
        self._progress(len(content))
        return content
