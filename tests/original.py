"""A Synth90k of a few words in the original's layout, with the kinds of damage that the original has, and others."""

import io
import random
import tarfile
from pathlib import Path

from PIL import Image

LEXICON = ["0", "cat", "dog", "haus", "slinking", "zzz"]
SIZES = {"train": 30, "val": 5, "test": 6}


def jpeg(value: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    noise = bytes((value + i * 7) % 256 for i in range(40 * 31 * len(mode)))
    Image.frombytes(mode, (40, 31), noise).save(buffer, "JPEG")
    return buffer.getvalue()


def write_original(folder: Path, *, damages: bool = True) -> dict[str, dict[str, str]]:
    """Writes the layout. Returns what has to be dropped, by TFDS's names for the splits: {path: reason}."""
    lists, number = {}, 0
    for split, size in SIZES.items():
        lines = []
        for _ in range(size):
            number += 1
            index = number % len(LEXICON)
            word = (LEXICON[index].upper(), LEXICON[index].title(), LEXICON[index])[number % 3]
            path = f"{number % 4 + 1}/{number % 2 + 1}/{number}_{word}_{index}.jpg"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(jpeg(number, "L" if number % 5 == 0 else "RGB"))
            lines.append(f"./{path} {index}")
        lists[split] = lines
    dropped = {"train": {}, "validation": {}, "test": {}}
    if damages:
        (folder / "9/9").mkdir(parents=True)
        (folder / "9/9/1_cat_1.jpg").write_bytes(jpeg(1)[:400])
        (folder / "9/9/2_dog_2.jpg").write_bytes(b"")
        (folder / "9/9/3_haus_3.jpg").write_text("this is no image")
        (folder / "9/9/4_dog_1.jpg").write_bytes(jpeg(2))
        (folder / "9/9/5_cat_1.jpg").write_bytes(jpeg(3))
        (folder / "9/9/6_cat_99.jpg").write_bytes(jpeg(4))
        (folder / "9/9/cat.jpg").write_bytes(jpeg(5))
        lists["train"] += ["./9/9/1_cat_1.jpg 1", "./9/9/2_dog_2.jpg 2", "./9/9/4_dog_1.jpg 1", "./9/9/5_cat_1.jpg 2"]
        lists["train"] += ["./9/9/6_cat_99.jpg 99", "./9/9/7_zzz_5.jpg 5"]
        lists["val"] += ["./9/9/3_haus_3.jpg 3", "./9/9/cat.jpg 1"]
        disagrees = "label and lexicon disagree"
        dropped["train"] = {"9/9/1_cat_1.jpg": "unreadable", "9/9/2_dog_2.jpg": "empty", "9/9/4_dog_1.jpg": disagrees}
        dropped["train"] |= {"9/9/5_cat_1.jpg": disagrees, "9/9/6_cat_99.jpg": disagrees, "9/9/7_zzz_5.jpg": "missing"}
        dropped["validation"] = {"9/9/3_haus_3.jpg": "unreadable", "9/9/cat.jpg": "malformed"}
    for split, lines in lists.items():
        (folder / f"annotation_{split}.txt").write_text("\n".join(lines) + "\n")
    (folder / "lexicon.txt").write_text("\n".join(LEXICON) + "\n")
    return dropped


def pack(folder: Path, archive: Path, *, prefix: str = "mnt/ramdisk/max/90kDICT32px/", mode: str = "w:gz") -> Path:
    """Packs a layout as the original is packed: its files in random order, the lists among the images."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    random.Random(0).shuffle(files)
    with tarfile.open(archive, mode) as tar:
        for path in files:
            tar.add(path, f"{prefix}{path.relative_to(folder)}")
    return archive


def content(out: Path) -> dict[str, bytes]:
    """The files in `out`, without its folders, by name."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
