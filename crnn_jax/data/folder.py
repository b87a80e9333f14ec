"""A folder of image files with a list of their labels."""

import codecs
import csv
import os
import re
from pathlib import Path

from crnn_jax.data.sample import Dataset, DatasetError, Record

NAMES = "image images img file filename file_name path name id".split()  # headings of the first column of a table
TITLES = "label labels text texts word words transcription".split()  # of the second
MARKS = {",": "comma", ";": "semicolon"}


class FolderDataset(Dataset):
    """The images named in a list, one per line with its label, in UTF-8.

    `labels.tsv`, and any list but the following: `image path<TAB>label`. `gt.txt` comes in several forms: a line
    without a tab is split at its first comma (ICDAR 2013 and 2015: `word_1.png, "label"`) or space. `*.csv` has two
    columns, image and label, quoted where necessary, separated by commas or, if its first line has none, semicolons; or
    it is like `labels.tsv`. All but `gt.txt` may have a header. Paths are relative to the list's folder.

    The list is read when the dataset is opened. With `strict` its images must exist; without it, a missing image is
    only noticed when it is read, and `damage` lists the lines that are not entries. Raises DatasetError.
    """

    def __init__(self, path: Path, *, strict: bool = True):
        self.path = path
        self._entries: list[tuple[str, str]] = []
        damage = []
        lines = [(number, line) for number, line in enumerate(_read_lines(path), start=1) if line.strip()]
        first = lines[0][1].decode(errors="replace") if lines else ""
        delimiter = ";" if ";" in first and "," not in first else ","  # of a CSV
        if path.name != "gt.txt" and _is_head(first, path, delimiter):
            del lines[0]
        for number, line in lines:
            try:
                entry = _parse(line, path, number, strict, delimiter)
            except DatasetError as error:
                if strict:
                    raise
                damage.append(str(error))
                continue
            self._entries.append(entry)
        self.damage = tuple(damage)
        if not self._entries:
            raise DatasetError(damage[0] if damage else f"{path}: the list is empty")

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Record:
        name, label = self._entries[index]
        try:
            return Record((self.path.parent / name).read_bytes(), label, name)
        except OSError as error:
            raise DatasetError(f"{self.place(name)}: {error.strerror}") from None

    @property
    def images(self) -> list[Path]:
        """The paths of all images."""
        return [self.path.parent / name for name, _ in self._entries]

    def place(self, name: str) -> str:
        """The path of the image."""
        return str(self.path.parent / name)


def _read_lines(path: Path) -> list[bytes]:
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DatasetError(f"{path}: encoded in UTF-16: save it as UTF-8")
    # splitlines would also split at separators that a label may contain.
    return [line.removesuffix(b"\r") for line in content.split(b"\n")]


def _is_head(line: str, path: Path, delimiter: str) -> bool:
    """Whether the first line of a list is a header such as filename,words, and not an image or what looks like one.

    Outside CSVs the columns must be in NAMES and TITLES; any other line is taken for the entry of a missing image.
    """
    name, separator, title = line.partition("\t" if "\t" in line else delimiter)
    name, title = name.strip(' "'), title.strip(' "')
    if path.suffix != ".csv" and (name.lower() not in NAMES or title.lower() not in TITLES):
        return False
    return bool(name and separator) and not Path(name).suffix and not os.path.exists(path.parent / name)


def _parse(content: bytes, path: Path, number: int, strict: bool, delimiter: str) -> tuple[str, str]:
    """The image and the label of a line."""
    where = f"{path}, line {number}"
    try:
        line = content.decode()
    except UnicodeDecodeError:
        raise DatasetError(f"{where}: not UTF-8") from None
    if "\0" in line:
        raise DatasetError(f"{where}: contains a null character: {line[:80]!r}")
    if path.suffix == ".csv" and "\t" not in line:  # tab-separated lists are sometimes called .csv
        entry = _split_csv(line, where, delimiter)
    else:
        entry = _split_gt(line) if path.name == "gt.txt" else _split_tab(line)
        if "\t" in line.partition("\t")[2]:
            raise DatasetError(f"{where}: more than one tab: {line[:80]!r}")
    if entry is None:
        separator = "separator" if path.name == "gt.txt" else "tab"
        raise DatasetError(f"{where}: no {separator} between image and label: {line[:80]!r}")
    if strict and not os.path.isfile(path.parent / entry[0]):
        raise DatasetError(f"{where}: no such image: {path.parent / entry[0]}")
    return entry


def _split_csv(line: str, where: str, delimiter: str) -> tuple[str, str]:
    try:
        [cells] = csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise DatasetError(f"{where}: {error}: {line[:80]!r}") from None
    if len(cells) != 2:
        expected = f"expected image{delimiter}label, in quotes if it contains a {MARKS[delimiter]}"
        raise DatasetError(f"{where}: {expected}: {line[:80]!r}")
    return cells[0], cells[1]


def _split_tab(line: str) -> tuple[str, str] | None:
    name, tab, label = line.partition("\t")
    return (name, label) if tab else None


def _split_gt(line: str) -> tuple[str, str] | None:
    if "\t" in line:
        return _split_tab(line)
    parts = re.split(r" *, *| +", line, maxsplit=1)
    if len(parts) == 1:
        return None
    name, label = parts
    if len(label) >= 2 and label[0] == label[-1] == '"' and line.startswith(f"{name},"):
        label = re.sub(r'\\(["\\])', r"\1", label[1:-1])  # quoted, with \" for a quote inside
    return name, label
