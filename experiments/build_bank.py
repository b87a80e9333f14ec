"""Rebuilds the glyph bank, crnn_jax/synth/assets/glyphs.npz.xz, and the attribution table beside it, fonts.tsv.

    pip install scipy fonttools brotli    (and npm on PATH)
    python experiments/build_bank.py --cache ~/.cache/crnn_jax_fonts

The fonts are those listed in fonts.tsv, in these exact versions, as npm packages: about 500 MB of traffic once, of
which 20 MB stay in the cache; then it takes three minutes on two cores. An interrupted download can be resumed.
`--packages FILE` uses another list, a table with the column `package`. A font is dropped, and the reason printed, if it
lacks a letter or digit or is illegible at this size (see `reason_to_drop`). Fonts that looked unreadable, and those
with the same Latin letters as another font, were removed from the list by hand.
"""

import argparse
import concurrent.futures
import functools
import io
import json
import lzma
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt
from tqdm import tqdm

from crnn_jax.synth import bank

ASSETS = Path(bank.__file__).parent / "assets"
CHARACTERS = [chr(bank.FIRST_GLYPH + glyph) for glyph in range(bank.NUM_GLYPHS)]
ALPHANUMERIC = [glyph for glyph, character in enumerate(CHARACTERS) if character.isalnum()]
LOWER = [glyph for glyph, character in enumerate(CHARACTERS) if character.islower()]
INK = bank.CELL - 2 * bank.SPREAD  # texels that the ink of a glyph may fill
OVERSAMPLE = 4  # mask pixels per texel
COLUMNS = ["family", "category", "licence", "package", "copyright"]
EM = 512  # pixels per em at which outlines are measured
WANTED = {
    "font.woff2": "files/{family}-latin-400-normal.woff2",
    "LICENSE": "LICENSE",
    "package.json": "package.json",
    "metadata.json": "metadata.json",
}


class Glyphs(NamedTuple):
    """One font: 94 cells, in the units of bank.Bank; `present` is False if the font lacks the glyph."""

    fields: np.ndarray  # uint8[94, S, S]
    metrics: np.ndarray  # float32[94, 6]
    present: np.ndarray  # bool[94]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for the downloaded fonts")
    parser.add_argument("--packages", type=Path, help="another table of npm packages (default: fonts.tsv)")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder for glyphs.npz.xz and fonts.tsv")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes")
    args = parser.parse_args()

    packages = read_packages(args.packages or ASSETS / "fonts.tsv")
    download(packages, args.cache, jobs=args.jobs)
    folders = [args.cache / family_of(package) for package in packages]
    with concurrent.futures.ProcessPoolExecutor(args.jobs) as pool:
        paths = [folder / "font.woff2" for folder in folders]
        drawn = list(tqdm(pool.map(draw_font, paths), total=len(paths), desc="draw"))

    kept, rows = [], []
    for package, folder, glyphs in zip(packages, folders, drawn, strict=True):
        reason = reason_to_drop(glyphs)
        if reason:
            print(f"dropped {folder.name}: {reason}")
            continue
        kept.append(glyphs)
        rows.append(attribution(package, folder))
    fields, metrics = lend_missing(kept, [row[1] for row in rows])
    write(args.out, fields, metrics, rows)


def read_packages(path: Path) -> list[str]:
    """npm packages (`@fontsource/aladin@5.2.8`; the version may be left out) from a table with a header line."""
    header, *rows = (line.split("\t") for line in path.read_text(encoding="utf8").splitlines())
    column = header.index("package")
    return sorted(row[column] for row in rows)


def family_of(package: str) -> str:
    """`@fontsource/aladin@5.2.8` -> `aladin`."""
    return package.split("/")[1].split("@")[0]


def download(packages: list[str], cache: Path, *, jobs: int):
    """Fetches what is not yet in the cache: one folder per family with the font, its licence and its description."""
    missing = [package for package in packages if not (cache / family_of(package) / "metadata.json").exists()]
    with concurrent.futures.ThreadPoolExecutor(2 * jobs) as pool:
        fetches = [pool.submit(fetch, package, cache) for package in missing]
        for done in tqdm(concurrent.futures.as_completed(fetches), total=len(missing), desc="download"):
            if done.exception():
                pool.shutdown(cancel_futures=True)
                raise SystemExit(f"cannot fetch a font: {done.exception()}")


def fetch(package: str, cache: Path):
    """Downloads one npm package and keeps the files of WANTED, the last of which marks the folder as complete."""
    family = family_of(package)
    with tempfile.TemporaryDirectory() as temporary:
        command = ["npm", "pack", "--loglevel", "error", "--pack-destination", temporary, package]
        result = subprocess.run(command, capture_output=True, text=True, cwd=temporary)
        if result.returncode:
            raise RuntimeError(f"npm pack {package} failed: {result.stderr.strip() or result.returncode}")
        (archive,) = Path(temporary).glob("*.tgz")
        (cache / family).mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            for name, member in WANTED.items():
                (cache / family / name).write_bytes(tar.extractfile("package/" + member.format(family=family)).read())


def draw_font(path: Path) -> Glyphs:
    """Measures and draws the 94 glyphs of a font file.

    All glyphs of a font share one scale, so that they share stroke and spread: the largest at which nearly all letters
    and digits fit. A glyph that would not fit (often W, @ or %) gets a smaller scale of its own.
    """
    font = load_font(path, EM)
    missing, _ = draw_ink(font, "\uffff")
    present = np.zeros(bank.NUM_GLYPHS, bool)
    boxes = np.zeros((bank.NUM_GLYPHS, 4))
    for glyph, character in enumerate(CHARACTERS):
        mask, box = draw_ink(font, character)
        boxes[glyph] = box / EM
        present[glyph] = mask.size and not np.array_equal(mask, missing)
    left, top, right, bottom = boxes[ALPHANUMERIC].T
    line = max(bottom.max() - top.min(), np.percentile(right - left, 97))
    fields = np.zeros((bank.NUM_GLYPHS, bank.CELL, bank.CELL), np.uint8)
    metrics = np.zeros((bank.NUM_GLYPHS, 6), np.float32)
    for glyph in np.flatnonzero(present):
        left, top, right, bottom = boxes[glyph]
        scale = (INK - 1) / max(line, right - left, bottom - top)  # 1: the ink is rounded outwards to whole mask pixels
        mask, box = draw_ink(load_font(path, scale * OVERSAMPLE), CHARACTERS[glyph])
        fields[glyph] = distance_field(mask)
        left, top, right, bottom = box / (scale * OVERSAMPLE)
        metrics[glyph] = (
            scale,
            left,
            -top,
            -bottom,
            right - left,
            font.getlength(CHARACTERS[glyph]) / EM,
        )
        present[glyph] = fields[glyph].max() > 128
    return Glyphs(fields, metrics, present)


@functools.lru_cache(maxsize=16)
def load_font(path: Path, size: float) -> ImageFont.FreeTypeFont:
    """A font at `size` pixels per em, without kerning or ligatures."""
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def draw_ink(font: ImageFont.FreeTypeFont, character: str) -> tuple[np.ndarray, np.ndarray]:
    """The coverage (0..1) of a character, cropped to its ink, and the crop's box: left, top, right, bottom from the
    origin on the baseline, in pixels, y down. Pillow's own box also spans the advance."""
    left, top, right, bottom = (int(side) for side in font.getbbox(character, anchor="ls"))
    image = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(image).text((1 - left, 1 - top), character, fill=255, font=font, anchor="ls")
    ink = image.getbbox() or (0, 0, 0, 0)
    box = np.array(ink) + np.array([left - 1, top - 1, left - 1, top - 1])
    return np.asarray(image.crop(ink), np.float32) / 255, box


def distance_field(mask: np.ndarray) -> np.ndarray:
    """The cell of a glyph drawn at OVERSAMPLE mask pixels per texel; uint8[S, S], see bank.Bank."""
    margin = bank.SPREAD * OVERSAMPLE
    coverage = np.pad(mask, [(margin, margin + -length % OVERSAMPLE) for length in mask.shape])
    inside = coverage > 0.5
    distance = np.where(inside, distance_transform_edt(inside) - 0.5, 0.5 - distance_transform_edt(~inside))
    distance = np.where((coverage > 0) & (coverage < 1), coverage - 0.5, distance)  # the outline crosses these pixels
    rows, columns = (length // OVERSAMPLE for length in distance.shape)
    texels = distance.reshape(rows, OVERSAMPLE, columns, OVERSAMPLE).mean((1, 3)) / OVERSAMPLE
    cell = np.zeros((bank.CELL, bank.CELL), np.uint8)
    cell[:rows, :columns] = np.clip(np.round(128 + texels * 127 / bank.SPREAD), 0, 255)
    return cell


def reason_to_drop(glyphs: Glyphs) -> str:
    """Why a font cannot be used; empty if it can."""
    lacking = [CHARACTERS[glyph] for glyph in ALPHANUMERIC if not glyphs.present[glyph]]
    if lacking:
        return f"lacks {''.join(lacking)}"
    scale = np.median(glyphs.metrics[LOWER, 0])
    if scale < 20:
        return f"{scale:.1f} texels per em: a swash font, whose letters are too small for their cells"
    deepest = glyphs.fields[LOWER].max((1, 2)) / 127 - 128 / 127
    stroke = 2 * bank.SPREAD * np.median(deepest) / scale
    if stroke < 0.016:
        return f"stroke {stroke:.3f} em: hairline"
    x_height = scale * np.median(glyphs.metrics[[CHARACTERS.index(letter) for letter in "xzuvn"], 2])
    if x_height < 9:
        return f"x-height {x_height:.1f} texels"
    return ""


def lend_missing(fonts: list[Glyphs], categories: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Stacks the fonts; a punctuation mark that a font lacks comes from another font of its category.

    The lender is the font of the category with the nearest x-height per em that has the mark; it is copied unchanged.
    """
    fields = np.stack([font.fields for font in fonts])
    metrics = np.stack([font.metrics for font in fonts])
    present = np.stack([font.present for font in fonts])
    categories = np.array(categories)
    x_height = metrics[:, CHARACTERS.index("x"), 2]
    for font, glyph in np.argwhere(~present):
        lenders = np.flatnonzero(present[:, glyph] & (categories == categories[font]))
        if not lenders.size:
            raise SystemExit(f"no {categories[font]} font in the list has {CHARACTERS[glyph]!r} to lend")
        lender = lenders[np.argmin(abs(x_height[lenders] - x_height[font]))]
        fields[font, glyph], metrics[font, glyph] = (
            fields[lender, glyph],
            metrics[lender, glyph],
        )
    print(f"{np.sum(~present)} missing glyphs borrowed from other fonts")
    return fields, metrics


def attribution(package: str, folder: Path) -> list[str]:
    """A row of fonts.tsv, in the order of COLUMNS."""
    metadata = json.loads((folder / "metadata.json").read_text())
    version = json.loads((folder / "package.json").read_text())["version"]
    with TTFont(folder / "font.woff2") as font:
        copyright_line = font["name"].getDebugName(0) or metadata["license"]["attribution"]
    name = package.rpartition("@")[0] if package.rindex("@") else package
    row = [
        metadata["family"],
        metadata["category"],
        metadata["license"]["type"],
        f"{name}@{version}",
        copyright_line,
    ]
    return [" ".join(value.split()) for value in row]


def write(out: Path, fields: np.ndarray, metrics: np.ndarray, rows: list[list[str]]):
    """Writes the bank, at 6 bits per texel, and the attribution table."""
    levels = ((fields.astype(np.uint16) * 63 + 127) // 255).astype(np.uint8)
    stream = io.BytesIO()
    np.savez(stream, levels=levels, metrics=metrics)
    compressed = lzma.compress(stream.getvalue(), preset=9)
    (out / "glyphs.npz.xz").write_bytes(compressed)
    table = [COLUMNS, *rows]
    (out / "fonts.tsv").write_text("".join("\t".join(row) + "\n" for row in table), encoding="utf8")
    print(f"{len(rows)} fonts, {len(compressed) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
