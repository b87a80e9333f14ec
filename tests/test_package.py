"""The wheel built from this clone: what is in it, and that it works without the clone."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIMIT = 80_000_000  # bytes, of which the weights of the models from a GPU are most

# Run in an empty folder. Importing TensorFlow ends it.
SCRIPT = """
import json
import crnn_jax, jax
from crnn_jax.synth.bank import load_bank
from crnn_jax.synth.render import render
from crnn_jax.synth.style import STYLES
from crnn_jax.synth.words import GLYPHS, english_words

word = "reading"
glyphs = jax.numpy.array([[GLYPHS.index(c) for c in word]] * 4)
lengths = jax.numpy.full(4, len(word))
draw = jax.jit(render, static_argnames="style")
images = draw(jax.random.key(0), load_bank(2), glyphs, lengths, style=STYLES["plain"])
found = {"file": crnn_jax.__file__, "shape": images.shape, "grey": images.std(axis=(1, 2)).tolist()}
found["words"] = len(english_words())
found["texts"] = [reading.text for reading in crnn_jax.load("tiny").read(images)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: a build in place would leave its traces in the clone, and pick up older ones."""
    clone, target = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, clone)
    shutil.copytree(ROOT / "crnn_jax", clone / "crnn_jax", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", target, clone]
    if importlib.util.find_spec("setuptools"):  # else pip fetches it
        command.append("--no-build-isolation")
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    [path] = target.glob("*.whl")
    return path


def package_files() -> set[str]:
    """The files of the clone's package that belong in the wheel: all of them."""
    files = (path for path in (ROOT / "crnn_jax").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(ROOT)) for path in files}


def test_the_wheel_holds_the_whole_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    expected = package_files()
    assets = "crnn_jax/synth/assets"
    assert {f"{assets}/glyphs.npz.xz", f"{assets}/words.txt.xz", f"{assets}/licenses/OFL-1.1.txt"} <= expected
    assert expected - names == set()
    assert {name.partition("/")[0] for name in names - expected} == {
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    }
    assert any(name.endswith("/LICENSE") for name in names)
    assert "Requires-Dist: jax" in metadata


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size < LIMIT


def test_the_wheel_works_elsewhere(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    (site / "tensorflow").mkdir()
    (site / "tensorflow" / "__init__.py").write_text("raise SystemExit('tensorflow was imported')")
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=empty,
        env=os.environ | {"PYTHONPATH": str(site), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert Path(found["file"]).is_relative_to(site)
    assert found["shape"] == [4, 32, 100]
    assert min(found["grey"]) > 10  # every one shows ink
    assert found["words"] > 50_000
    assert found["texts"].count("reading") >= 3
