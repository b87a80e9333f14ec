"""Which spatial transformer converges in front of a CRNN, where it helps, and by how much: a study over several seeds.

    python experiments/stn_study.py train [--studies NAME ...] [--seeds 0 1 2 3 4] [--at-once 10] [--out DIR]
        [--config NAME] [--data FOLDER ...] [--init MODEL] [--set a.b=VALUE ...]
    python experiments/stn_study.py table [--studies NAME ...] [--results FILE] [--against]
    python experiments/stn_study.py time [--seeds 0 1 2 3 4]

train: trains small networks (configs/stn_study.py) for every setting, which is a change of that config, and every seed.
A quarter of every batch is words of each of four kinds: straight, rotated by up to 45 degrees, in perspective, curved.
One program trains at most --at-once networks: seeds, and settings that differ only in numbers. Results go to
DIR/results.jsonl, one line per network, and networks that are there are not trained again: the same command resumes.
With another --config all words are in its style, and with --data the networks read these datasets as well.
table: prints accuracy on held-out words, the same in every kind, as Markdown, with 95 % intervals over the seeds; with
--against, the difference from the config, kind by kind.
time: compares one program for all seeds with training one network after another.
experiments/stn_figures.py draws the results.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import jax
import numpy as np
from command import add_overrides, run, tells
from rows import add_rows, claim
from stn_settings import STUDIES, check_base, keys
from stn_table import difference_table, read_networks, table, words_read
from stn_words import HELD_OUT_BATCH, KINDS, MakeBatch, load_datasets, look, make_words, read_datasets, read_held_out
from train import load_config

from crnn_jax.config import Config, ConfigError, override
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.whole import only_one
from crnn_jax.images import ImageError
from crnn_jax.synth.batch import Source, load_source
from crnn_jax.synth.style import Style
from crnn_jax.training.checkpoint import CheckpointError, Checkpoints, find_model, load_variables
from crnn_jax.training.population import (
    init_population,
    make_train,
    same_program,
    start_from,
)

OWN = "stn_study"  # the config whose words are of four kinds
CURVES = (
    "loss",
    "accuracy",
    "gradient_norm",
    "stn_deviation",
    "stn_outside",
    "stn_contrast",
)  # means over each dispatch
# Columns of a row apart from the accuracies, which are named after what was read.
COLUMNS = ("change", "seed", "steps", "every", "words", "bypass", "seconds", "stn_spread", *CURVES)


@tells(CheckpointError, ConfigError, DatasetError, ImageError, OSError)
def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("train", "table", "time"))
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", help="for train and time (default: 0 1 2 3 4)")
    parser.add_argument("--config", default=OWN, metavar="NAME|PATH", help="name in experiments/configs/, or a path")
    parser.add_argument("--data", nargs="+", default=[], metavar="FOLDER", help="labelled words to read as well")
    add_overrides(parser, help="config fields to override in every network")
    parser.add_argument("--init", metavar="MODEL", help="start every network from the weights of this model")
    parser.add_argument("--at-once", type=int, default=10, metavar="N", help="maximum networks per program")
    parser.add_argument("--held-out", type=int, default=1024, metavar="N", help="held-out words of each kind")
    parser.add_argument("--out", type=Path, default=Path("runs/stn_study"), metavar="DIR")
    parser.add_argument("--results", type=Path, metavar="FILE", help="results to tabulate (default: DIR/results.jsonl)")
    parser.add_argument("--against", action="store_true", help="print differences from the config instead")
    args = parser.parse_args(argv)
    if args.results and args.command == "train":
        parser.error("--results is for table: train writes to --out")
    if args.seeds and args.command == "table":
        parser.error("--seeds is for train and time: a table covers all seeds in the results")
    seeds = args.seeds or [0, 1, 2, 3, 4]
    results = args.results or args.out / "results.jsonl"
    try:
        base = override(load_config(args.config), args.set)
        kinds = KINDS if args.config == OWN else {"rendered": base.data.style}
        if args.at_once < 1 or args.held_out < 1 or args.held_out % HELD_OUT_BATCH:
            raise ConfigError(f"--at-once must be at least 1 and --held-out a multiple of {HELD_OUT_BATCH}")
        if args.command == "time":
            timing(base, seeds, kinds)
            return 0
        if args.command == "train":
            for name in args.studies:
                check_base(name, base)
            changes = dict.fromkeys(key for name in args.studies for key in keys(name).values())
            options = {"kinds": kinds, "data": args.data, "init": args.init}
            train_all(base, list(changes), seeds, args.at_once, args.held_out, args.out, **options)
        rows = read_networks(results)
        if not rows:
            raise ConfigError(f"{results} has no networks yet: run stn_study.py train")
        tell = difference_table if args.against else table
        tables = [tell(name, keys(name), rows, words_read(rows)) for name in args.studies]
        print("\n\n".join(text for text in tables if text))
    except KeyboardInterrupt:
        print("stn_study.py: stopped; run the same command to continue from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def train_all(
    base: Config,
    changes: list[str],
    seeds: list[int],
    at_once: int,
    held_out: int,
    out: Path,
    *,
    kinds: dict[str, Style] = KINDS,
    data: Sequence[str] = (),
    init: str | None = None,
) -> None:
    """Trains the networks missing in OUT/results.jsonl, at most `at_once` in one program, and adds them there.

    Raises ConfigError if the folder's networks have another config or start, or were measured on other words.
    """
    if base.data.share_real:
        raise ConfigError(
            f"data.share_real = {base.data.share_real:g}: expected 0, since these networks learn rendered words only"
        )
    start = find_model(init) if init else None
    real = load_datasets(data, base, taken=[*kinds, *COLUMNS])
    results, source = out / "results.jsonl", load_source(base)
    draw = make_words(base, kinds, base.run.batch_size)
    draw_held_out = make_words(base, kinds, HELD_OUT_BATCH * len(kinds), held_out=True)
    configs = {change: override(base, change.split()) for change in changes}
    counts = {name: len(words.label) for name, words in real.items()}
    with only_one(out):
        claim(out, base, init, dict.fromkeys(kinds, held_out) | counts, held_out)
        every = base.run.steps_per_dispatch
        for group in chunks(seeds, at_once):
            done = {(row["change"], row["seed"]) for row in read_networks(results)}
            missing = {change: [seed for seed in group if (change, seed) not in done] for change in changes}
            rest = [change for change in changes if missing[change]]
            while rest:
                first, its_seeds = configs[rest[0]], missing[rest[0]]
                alike = [c for c in rest if same_program(first, configs[c]) and missing[c] == its_seeds]
                rest = [change for change in rest if change not in alike]
                for part in chunks(alike, max(1, at_once // len(its_seeds))):
                    names = ", ".join(change or "as it is" for change in part)
                    print(f"{len(part)} x {len(its_seeds)} networks: {names}")
                    workdir = out / "programs" / hashlib.sha256(json.dumps([part, its_seeds]).encode()).hexdigest()[:12]
                    rows = [configs[change] for change in part]
                    population, curves, seconds = train_population(rows, its_seeds, source, draw, workdir, start=start)
                    measured = read_held_out(rows, population, source, draw_held_out, list(kinds), held_out)
                    measured |= read_datasets(rows, population, real)
                    measured |= look(rows, population, source, draw_held_out, list(kinds))
                    told = []
                    for (i, change), (j, seed) in product(enumerate(part), enumerate(its_seeds)):
                        row = {"change": change, "seed": seed, "steps": base.run.steps, "every": every}
                        row["words"], row["bypass"] = [*kinds, *real], configs[change].model.stn.bypass
                        row["seconds"] = round(seconds / len(part) / len(its_seeds), 1)
                        row |= {name: round(float(values[i, j]), 4) for name, values in measured.items()}
                        row |= {name: [float(f"{x:.4g}") for x in values[:, i, j]] for name, values in curves.items()}
                        told.append(row)
                    add_rows(results, told)
                    shutil.rmtree(workdir)


def train_population(
    configs: list[Config], seeds: list[int], source: Source, draw: MakeBatch, workdir: Path, *, start: Path | None
):
    """Trains a population to its end, from the weights in `start` or from scratch; resumes one in `workdir`.

    Returns:
        The population; its CURVES, `float32[dispatches, settings, seeds]` each; the seconds that this call trained.
    """
    run = configs[0].run
    every, size = run.steps_per_dispatch, run.batch_size * len(configs) * len(seeds)
    names = CURVES if configs[0].model.stn.kind != "none" else CURVES[:3]
    shape = (run.steps // every, len(configs), len(seeds))
    population = init_population(configs, seeds)
    if start:
        population, note = start_from(population, configs[0], load_variables(start), name=start.name)
        print(note, flush=True)
    state = {
        "population": population,
        "curves": {name: np.full(shape, np.nan, np.float32) for name in names},
    }
    checkpoints = Checkpoints(workdir, configs[0])
    if checkpoints.latest is not None:
        state = checkpoints.restore(state)
    population, curves = state["population"], state["curves"]
    train = make_train(configs, seeds, draw, length=every)
    began, first, pending = time.perf_counter(), int(population.step[0, 0]), []
    for step in range(first + every, run.steps + 1, every):
        population, metrics = train(population, source)
        pending.append({name: metrics[name].mean(axis=0) for name in names})  # stays on the device
        if step % run.checkpoint_every == 0 or step == run.steps:
            for i, point in enumerate(jax.device_get(pending), start=step // every - len(pending)):
                for name, values in point.items():
                    curves[name][i] = values
            pending = []
            rate = (step - first) * size / (time.perf_counter() - began)
            means = ", ".join(f"{k} {np.array2string(v.mean(axis=1), precision=3)}" for k, v in point.items())
            print(f"step {step}/{run.steps}: {rate:.0f} images/s, {means}", flush=True)
            if step < run.steps:
                checkpoints.save(step, jax.device_get({"population": population, "curves": curves}), None)
    checkpoints.close()
    return population, curves, time.perf_counter() - began


def timing(base: Config, seeds: list[int], kinds: dict[str, Style], dispatches: int = 2) -> None:
    """Prints how long one program for all seeds takes, and one network after another; compilation apart."""
    source, draw, every = load_source(base), make_words(base, kinds, base.run.batch_size), base.run.steps_per_dispatch
    compiled, seconds = {}, {len(seeds): [], 1: []}
    for size in seconds:
        began = time.perf_counter()
        population, train = init_population([base], seeds[:size]), make_train([base], seeds[:size], draw, length=every)
        jax.block_until_ready(train(population, source))
        compiled[size] = time.perf_counter() - began
    for _ in range(dispatches):
        for size, times in seconds.items():
            began = time.perf_counter()
            for group in chunks(seeds, size):
                population = init_population([base], group)
                jax.block_until_ready(make_train([base], group, draw, length=every)(population, source))
            times.append(time.perf_counter() - began)
    names = {len(seeds): "one program", 1: "one after another"}
    print(f"{len(seeds)} networks, {every} steps of {base.run.batch_size} words each")
    for size, times in seconds.items():
        rate = len(seeds) * every * base.run.batch_size / min(times)
        first = f"{compiled[size]:.1f} s for the first call, with compilation"
        print(f"{names[size]}: {min(times):.1f} s, {rate:.0f} images/s; {first}")


def chunks(items: Sequence, size: int) -> Iterator[list]:
    """Consecutive chunks of `size` items; the last may be shorter."""
    return (list(items[i : i + size]) for i in range(0, len(items), size))


if __name__ == "__main__":
    run(main)
