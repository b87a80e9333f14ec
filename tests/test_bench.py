"""experiments/bench.py runs, and tells a rate for everything that it names."""

import re
import sys

import pytest
from PIL import Image
from small import EXPERIMENTS, load_script, noise_images


@pytest.fixture
def bench(monkeypatch):
    """The script, which imports others that lie beside it."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return load_script("bench")


@pytest.fixture
def words(tmp_path):
    """A folder of twenty labelled images."""
    for i, image in enumerate(noise_images(20)):
        Image.fromarray(image).save(tmp_path / f"{i}.jpg")
    (tmp_path / "labels.tsv").write_text("".join(f"{i}.jpg\tword{i}\n" for i in range(20)))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["render", "--styles", "plain"], ["plain"]),
        (["step"], ["step with rendering", "step on ready words", "rendering alone"]),
    ],
)
def test_a_rate_for_every_row(bench, arguments, names, monkeypatch, capsys, quick_compilation):
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    small = ["run.batch_size=8", "data.fonts=2", "data.style=plain"]
    assert bench.main([*arguments, "--config", "quickstart", "--set", *small]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert "batch 8" in head
    rates = {row[:24].strip(): int(row[24:].split()[0].replace(",", "")) for row in rows}
    assert list(rates) == names and min(rates.values()) > 0


def test_a_rate_for_every_kind_of_dataset(bench, words, monkeypatch, capsys):
    pytest.importorskip("grain")
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(bench, "WAYS", {"threads": bench.WAYS["threads"]})  # processes take seconds to start
    assert bench.main(["data", "--data", str(words), "--words", "16", "--set", "run.batch_size=8"]) == 0
    _, *rows = capsys.readouterr().out.splitlines()
    rates = {row[:24].split(",")[0]: int(row[24:].split()[0].replace(",", "")) for row in rows}
    assert list(rates)[:4] == ["tfrecord", "array_record", "lmdb", "folder"] and min(rates.values()) > 0
    assert bench.main(["data", "--data", str(words / "none")]) == 1
    assert capsys.readouterr().err == f"bench.py: {words}/none: no such file or folder\n"


def test_an_unknown_style_is_told_in_one_line(bench, capsys):
    assert bench.main(["render", "--styles", "none"]) == 1
    assert re.fullmatch(r"bench.py: data.style = none: expected one of [^\n]*\n", capsys.readouterr().err)


@pytest.mark.parametrize("processes", [0, 1])
def test_memory_of_every_process_that_reads(bench, processes, words, monkeypatch, capsys):
    pytest.importorskip("grain")
    settings = ["run.batch_size=8", f"run.read_processes={processes}"]
    assert bench.main(["memory", "--data", str(words), "--words", "800", "--set", *settings]) == 0
    rows = [re.findall(r"[\d,]+", line) for line in capsys.readouterr().out.splitlines()]
    assert [int(row[0]) for row in rows] == [80 * tenth for tenth in range(11)]
    sizes = [int(size.replace(",", "")) for size in rows[-1][1:]]
    assert len(sizes) == 1 + processes and min(sizes) > 50
    assert bench.main(["memory", "--data", str(words / "none")]) == 1
    monkeypatch.setitem(sys.modules, "psutil", None)
    capsys.readouterr()
    assert bench.main(["memory", "--data", str(words)]) == 1
    assert re.fullmatch(r"bench.py: [^\n]*psutil[^\n]*\n", capsys.readouterr().err)
