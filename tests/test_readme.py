"""The README's commands work as written, and the files that it names exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from original import write_original
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
SCRIPTS = re.findall(r"python (experiments/\S+\.py[^\n#&]*)", "\n".join(BLOCKS))
# A run of two steps: the whole of quickstart takes minutes.
SHORT = "run.steps=2 run.steps_per_dispatch=1 run.log_every=1 run.eval_every=2 run.checkpoint_every=2".split()
SHORT += ["run.batch_size=8", "data.held_out_words=8", "data.style=plain", "data.fonts=4"]


@pytest.fixture
def photos(tmp_path):
    """A folder of two labelled images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for word in ("hello", "world"):
        font = ImageFont.load_default(28)
        left, top, right, bottom = font.getbbox(word)
        image = Image.new("L", (round(right - left) + 12, round(bottom - top) + 12), 240)
        ImageDraw.Draw(image).text((6 - left, 6 - top), word, fill=20, font=font)
        image.save(folder / f"{word}.png")
    (folder / "labels.tsv").write_text("hello.png\thello\nworld.png\tworld\n")
    return folder


def test_one_line_installs_and_trains_and_one_runs_the_tests():
    install, tests = BLOCKS[0].strip(), BLOCKS[1].strip()
    assert "\n" not in install and install.endswith("python experiments/train.py")
    assert tests == "python -m pytest" and tests in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("command", SCRIPTS, ids=lambda command: command.split()[0])
def test_the_commands_run(command, photos, tmp_path):
    if "ARCHIVE" in command:
        write_original(tmp_path / "original")
    words = tmp_path / "words.txt"
    words.write_text("help\nworld\nhello\n")
    paths = {"IMAGE_OR_FOLDER": photos, "FOLDER": photos, "ARCHIVE": tmp_path / "original", "WORDS": words}
    for name, path in paths.items():
        command = command.replace(f"{name} ...", name).replace(name, str(path))
    script, *arguments = shlex.split(command)
    if script.endswith("train.py"):
        arguments += ["--set", *SHORT]
    process = subprocess.run(
        [sys.executable, ROOT / script, *arguments],
        cwd=tmp_path,
        # Compiles faster and runs slower, which does not matter here.
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip()
    if script.endswith("read.py"):
        assert [line.split("\t")[1] for line in process.stdout.splitlines()] == ["hello", "world"]


def test_the_files_that_it_names_are_there():
    named = re.findall(r"`((?:crnn_jax|experiments)/[\w./]*)`", README) + re.findall(r"\]\(([\w./]+)\)", README)
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).exists()] == []
