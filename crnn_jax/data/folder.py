"""A folder of image files with a list of their labels."""

import os
import re
from pathlib import Path

from crnn_jax.data.sample import Dataset, DatasetError, Record


class FolderDataset(Dataset):
    """The images that a list names, one a line, each with its label; UTF-8.

    `labels.tsv`, and any list but `gt.txt`: `image path<TAB>label`. `gt.txt` comes in several forms: a line without a
    tab is split at its first comma (ICDAR 2013 and 2015: `word_1.png, "label"`) or space. Paths are relative to the
    list's folder. The list is read when the dataset is opened, and with `strict` its images are looked for; without it
    one that is missing is only found out when it is read. Raises DatasetError.
    """

    def __init__(self, path: Path, *, strict: bool = True):
        self.path = path
        self._entries: list[tuple[str, str]] = []
        for number, line in enumerate(_read_lines(path), start=1):
            if not line.strip():
                continue
            entry = _split_gt(line) if path.name == "gt.txt" else _split_tab(line)
            if entry is None:
                separator = "separator" if path.name == "gt.txt" else "tab"
                raise DatasetError(f"{path}, line {number}: no {separator} between image and label: {line[:80]!r}")
            if strict and not os.path.isfile(path.parent / entry[0]):
                raise DatasetError(f"{path}, line {number}: no such image: {path.parent / entry[0]}")
            self._entries.append(entry)
        if not self._entries:
            raise DatasetError(f"{path}: the list is empty")

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Record:
        name, label = self._entries[index]
        try:
            return Record((self.path.parent / name).read_bytes(), label, name)
        except OSError as error:
            raise DatasetError(f"{self.place(name)}: {error.strerror}") from None

    def place(self, name: str) -> str:
        """The path of the image."""
        return str(self.path.parent / name)


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")  # with or without the byte order mark
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DatasetError(f"{path}, line {line}: not UTF-8") from None
    # str.splitlines would also split at separators that a label may contain.
    return [line.removesuffix("\r") for line in text.split("\n")]


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
