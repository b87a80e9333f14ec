"""The notebooks run from top to bottom, with the bundled model, and show what they promise."""

import os
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb"))
STORED_SIZE = 300_000  # bytes


def execute(path: Path, folder: Path, monkeypatch) -> tuple[str, int]:
    """Runs a notebook in its own folder; returns what it printed, and how many figures it drew."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    return printed, sum("image/png" in output.get("data", {}) for output in outputs)


def test_look_inside(tmp_path, monkeypatch):
    printed, figures = execute(ROOT / "experiments" / "notebooks" / "look_inside.ipynb", tmp_path, monkeypatch)
    assert figures == 6
    assert int(re.search(r"(\d) of 8 read right", printed)[1]) >= 7
    assert re.search(r"^ station: [-station]+$", printed, re.MULTILINE)  # the classes of the frames
    assert re.search(r"^the STN of stn_crnn on slanted words, read as hidden, garden, window", printed, re.MULTILINE)
    bent = re.findall(r"^(\w+) bent: (\w*) .*, straightened: (\w*) ", printed, re.MULTILINE)
    assert len(bent) == 3 and all(word == straightened for word, _, straightened in bent)
    assert sum(word == read for word, read, _ in bent) < 3
    before, after = (float(loss) for loss in re.findall(r"(?:before|after): .* loss ([\d.]+)", printed))
    assert after < before / 4  # the points that the gradient found
    assert "after:  station" in printed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_small_and_have_a_test(path):
    assert path.stat().st_size < STORED_SIZE
    assert path.name in Path(__file__).read_text()
