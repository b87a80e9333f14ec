"""experiments/bench.py runs, and tells a rate for everything that it names."""

import re

import pytest
from small import EXPERIMENTS, load_script


@pytest.fixture
def bench(monkeypatch):
    """The script, which imports others that lie beside it."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return load_script("bench")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["render", "--styles", "plain"], ["plain"]),
        (["step"], ["step with rendering", "step on ready words", "rendering alone"]),
    ],
)
def test_a_rate_for_every_row(bench, arguments, names, monkeypatch, capsys):
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    small = ["run.batch_size=8", "data.fonts=2", "data.style=plain"]
    assert bench.main([*arguments, "--config", "quickstart", "--set", *small]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert "batch 8" in head
    rates = {row[:24].strip(): int(row[24:].split()[0].replace(",", "")) for row in rows}
    assert list(rates) == names and min(rates.values()) > 0


def test_an_unknown_style_is_told_in_one_line(bench, capsys):
    assert bench.main(["render", "--styles", "none"]) == 1
    assert re.fullmatch(r"bench.py: data.style = none: expected one of [^\n]*\n", capsys.readouterr().err)
