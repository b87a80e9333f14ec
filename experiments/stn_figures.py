"""Draws the results of stn_study.py.

    python experiments/stn_figures.py [--results FILE] [--out DIR]

stn_gain.svg: what a transformer gains on each kind of words or dataset over a network without one, of as many
parameters if that was trained;
stn_curves.svg: the loss, the distance from the identity and the share of samples outside over the steps, at each rate
of the localisation net;
stn_settings.svg: each study's settings side by side. Whiskers are 95 % intervals over the seeds. Needs matplotlib (the
extra `notebook`).
"""

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np
from command import run, tells
from stn_settings import STUDIES, keys
from stn_table import average, by_seed, differences, interval, read_networks, words_read

from crnn_jax.config import ConfigError

INK, MUTED, GRID = "#22262b", "#6f747b", "#e4e1da"
COLOURS = ("#2f6690", "#b4472e", "#3a7d44", "#8e6c8a", "#c08a2b")
LINES = 3  # networks of each setting in the curves, at most


@tells(ConfigError, OSError)
def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("experiments/studies/stn.jsonl"), metavar="FILE")
    parser.add_argument("--out", type=Path, default=Path("experiments/studies"), metavar="DIR")
    args = parser.parse_args(argv)
    try:
        import matplotlib
    except ImportError as error:
        print(f"stn_figures.py: needs the package matplotlib: pip install matplotlib ({error})", file=sys.stderr)
        return 1
    matplotlib.use("Agg")
    matplotlib.rcParams |= {
        "svg.hashsalt": "stn",  # the same results give the same files
        "svg.fonttype": "none",
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "axes.edgecolor": GRID,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    rows = read_networks(args.results)
    if not rows:
        raise OSError(f"{args.results}: no networks")
    args.out.mkdir(parents=True, exist_ok=True)
    for name, draw in {"gain": draw_gain, "curves": draw_curves, "settings": draw_settings}.items():
        figure = draw(rows)
        path = args.out / f"stn_{name}.svg"
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        print(path)
    return 0


def draw_gain(rows: list[dict]):
    """Points with whiskers: one group per kind of words, one colour per transformer."""
    from matplotlib.figure import Figure

    places, transformers, words = keys("place"), keys("kind"), words_read(rows)
    with_as_many = by_seed(rows, places["no transformer, as many parameters"])
    base = with_as_many or by_seed(rows, places["no transformer"])
    shown = {
        "TPS, 20 points, on the image": "",
        "affine, on the image": transformers["affine"],
        "TPS, after the first block": places["after the first block"],
        "TPS, on the last features": places["on the last features"],
    }
    shown = {name: by_seed(rows, key) for name, key in shown.items() if by_seed(rows, key)}
    figure = Figure(figsize=(7.2, 3.2))
    axes = figure.subplots()
    for i, (name, runs) in enumerate(shown.items()):
        ends = [interval(differences(runs, base, [kind])) for kind in words] if runs.keys() & base.keys() else []
        x = np.arange(len(ends)) + 0.14 * (i - (len(shown) - 1) / 2)
        means, halves = [mean for mean, _ in ends], [np.nan_to_num(half) for _, half in ends]
        axes.errorbar(x, means, halves, fmt="o", color=COLOURS[i], markersize=5, capsize=0, elinewidth=1.5, label=name)
    axes.axhline(0, color=MUTED, linewidth=1)
    axes.set_xticks(range(len(words)), words)
    axes.set_ylabel("words read, points more\nthan without" + (", as many parameters" if with_as_many else ""))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def draw_curves(rows: list[dict]):
    """Three panels over the steps: one thin line per network, one colour per rate of the localisation net."""
    from matplotlib.figure import Figure

    rates = {name: list(by_seed(rows, key).values())[:LINES] for name, key in keys("rate").items()}
    rates = {f"rate {name}": runs for name, runs in rates.items() if runs}
    panels = {
        "loss": "CTC loss",
        "stn_deviation": "distance of the grid from the identity",
        "stn_outside": "share of the samples outside",
    }
    figure = Figure(figsize=(10, 2.9))
    for axes, (curve, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for colour, (name, runs) in zip(COLOURS, rates.items(), strict=False):
            for i, row in enumerate(runs):
                if curve in row:
                    steps = row["every"] * (1 + np.arange(len(row[curve])))
                    label = name if i == 0 else None
                    axes.plot(steps, row[curve], color=colour, linewidth=0.9, alpha=0.8, label=label)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("steps")
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        if curve == "loss":
            axes.set_yscale("log")
            axes.legend(frameon=False, fontsize=7, loc="lower left")
    figure.tight_layout()
    return figure


def draw_settings(rows: list[dict]):
    """One panel per study: accuracy over all kinds of words, one point per setting."""
    from matplotlib.figure import Figure

    studies = {name: {s: by_seed(rows, key) for s, key in keys(name).items()} for name in STUDIES}
    studies = {name: {s: runs for s, runs in settings.items() if runs} for name, settings in studies.items()}
    studies = {name: settings for name, settings in studies.items() if len(settings) > 1}
    if not studies:
        return Figure(figsize=(4, 1))
    words = words_read(rows)
    figure = Figure(figsize=(10, 2.1 * -(-len(studies) // 3)))
    panels = figure.subplots(-(-len(studies) // 3), 3, squeeze=False, sharex=True).ravel()
    for axes, (name, settings) in zip(panels, studies.items(), strict=False):
        order = sorted(settings, key=lambda s, of=settings: statistics.mean(average(r, words) for r in of[s].values()))
        for y, setting in enumerate(order):
            values = [average(row, words) for row in settings[setting].values()]
            mean, half = interval(values)
            axes.plot(values, [y] * len(values), "|", color=COLOURS[0], alpha=0.4)
            axes.errorbar(mean, y, xerr=np.nan_to_num(half), fmt="o", color=COLOURS[0], markersize=5, elinewidth=1.5)
        axes.set_yticks(range(len(order)), order)
        axes.set_ylim(-0.6, len(order) - 0.4)
        axes.set_title(name, fontsize=9, loc="left")
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    for axes in panels[len(studies) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(studies) - 3) : len(studies)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    panels[0].set_xlim(left=0)  # and that of the others, which share it; an interval may reach below 0
    figure.supxlabel("words read, per cent", fontsize=9, color=MUTED)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    run(main)
