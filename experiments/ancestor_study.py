"""What each fault of CRNN-with-STN, the Keras project that this one starts from, costs in word accuracy.

    python experiments/ancestor_study.py [--variants NAME ...] [--seeds 0 1 2] [--steps N] [--batch N] [--out DIR]

Trains that project's network (`crnn_jax/ancestor.py`, narrow unless `--config keras_stn`) as it was, with each of its
faults mended alone, with all of them mended, with each fault alone in the mended network, and with its STN moved or
left out. All but two rows use this project's optimiser. One more fault is the optimiser's: it clips gradients by the
norm of all of them together. The networks train on rendered words and read held-out ones of the same style. Every
variant sees the same number of words from every seed. The seeds differ in initial weights and training words, but a
seed has the same ones for every variant.

Results go to DIR/results.jsonl, one line per run, and runs that are there are not repeated: the same command resumes,
starting the interrupted run again. It ends with a Markdown table of the runs with these --steps and this --batch, and
with how far the STNs have moved: `stn_deviation` and `stn_outside` of `crnn_jax.stn`.
"""

import argparse
import statistics
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from command import add_overrides, run, tells
from rows import add_rows, claim, read_rows
from study import spread, table
from train import load_config

from crnn_jax.ancestor import FAULTS, SLOTS, pad_labels
from crnn_jax.charset import Charset
from crnn_jax.config import Config, ConfigError, override
from crnn_jax.data.whole import only_one
from crnn_jax.model import build
from crnn_jax.training import parallel
from crnn_jax.training.loop import HELD_OUT_SEED
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.state import create_state, variables
from crnn_jax.training.step import eval_step, mean_metrics, train_step
from crnn_jax.training.words import load_words, rendered_held_out, train_batch

# Keras 2 clipped by the norm of all gradients together.
TOGETHER = "optimizer.clip_apart=false"
# Its optimiser, without the learning rate's decay of 1e-6 per step, which is negligible over so few steps.
SGD = [
    TOGETHER,
    "optimizer.name=sgd",
    "optimizer.warmup_steps=0",
    "optimizer.final_factor=1",
    "optimizer.localisation_factor=1",
    "optimizer.ema_decay=0",
]


class Variant(NamedTuple):
    """A network with these faults, and the config changes that it is trained with, as `--set` spells them."""

    faults: tuple[str, ...]
    changes: list[str] = []


BASE = "as it was"  # what the others are compared with
VARIANTS = {
    BASE: Variant(FAULTS, [TOGETHER]),
    "all mended": Variant(()),
    **{f"{fault} mended": Variant(tuple(other for other in FAULTS if other != fault), [TOGETHER]) for fault in FAULTS},
    "clipping mended": Variant(FAULTS),
    **{f"{fault} alone": Variant((fault,)) for fault in FAULTS},
    "clipping alone": Variant((), [TOGETHER]),
    "as it was, no STN": Variant(FAULTS, ["model.stn.kind=none"]),
    "as it was, STN after conv_1": Variant(FAULTS, [TOGETHER, "model.stn.placement=block1"]),
    "as it was, SGD at 0.0001": Variant(FAULTS, [*SGD, "optimizer.learning_rate=1e-4"]),
    "as it was, SGD at 0.002": Variant(FAULTS, [*SGD, "optimizer.learning_rate=2e-3"]),  # an earlier version's
    "all mended, no STN": Variant((), ["model.stn.kind=none"]),
    "all mended, STN after conv_1": Variant((), ["model.stn.placement=block1"]),
    "all mended, STN on the image": Variant((), ["model.stn.placement=image"]),  # this project's STN
}


@tells(ConfigError, OSError)
def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="variants to train (default: all)")
    parser.add_argument(
        "--config", default="keras_stn_narrow", metavar="NAME|PATH", help="name in experiments/configs/, or a path"
    )
    add_overrides(parser, help="config fields to override in every run")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/ancestor_study"), metavar="DIR")
    args = parser.parse_args(argv)
    chosen = args.variants or list(VARIANTS)
    if unknown := [name for name in chosen if name not in VARIANTS]:
        parser.error(f"unknown variant {unknown[0]!r}: expected any of {', '.join(VARIANTS)}")
    results = args.out / "results.jsonl"
    try:
        base = override(load_config(args.config), args.set)
        for name in chosen:  # raises for what cannot be studied before claiming the folder
            variant_config(base, VARIANTS[name], steps=args.steps, batch=args.batch, seed=0)
        with only_one(args.out):
            claim(args.out, base, None, {})
            rows = read_rows(results)
            for seed in args.seeds:  # all variants before the next seed
                for name in chosen:
                    run = {"variant": name, "seed": seed, "steps": args.steps, "batch": args.batch}
                    if any(run.items() <= row.items() for row in rows):
                        continue
                    config = variant_config(base, VARIANTS[name], steps=args.steps, batch=args.batch, seed=seed)
                    print(f"{name}, seed {seed}", flush=True)
                    rows.append(run | train_variant(config, VARIANTS[name].faults))
                    add_rows(results, rows[-1:])
    except KeyboardInterrupt:
        print("ancestor_study.py: stopped; run the same command to restart this run", file=sys.stderr)
        return 130
    rows = [row for row in rows if (row["steps"], row["batch"]) == (args.steps, args.batch)]
    print(table(rows, [], base=BASE))
    print("\n".join(stn_lines(rows)))
    return 0


def variant_config(base: Config, variant: Variant, *, steps: int, batch: int, seed: int) -> Config:
    """The base config with a variant's changes, for `steps` batches. Raises ConfigError if the study cannot use it."""
    config = override(base, variant.changes)
    if not config.model.cnn.startswith("keras"):
        raise ConfigError(f"model.cnn = {config.model.cnn!r}: expected a keras stack: no other can have faults")
    if config.data.max_length > SLOTS:
        raise ConfigError(f"data.max_length = {config.data.max_length}: expected at most {SLOTS}, the padded length")
    if config.data.real or config.data.sources:
        raise ConfigError("data.real, data.sources: expected none: the study renders its words")
    run = replace(config.run, steps=steps, batch_size=batch, seed=seed, eval_every=steps, checkpoint_every=steps)
    return replace(config, run=run)


def train_variant(config: Config, faults: tuple[str, ...]) -> dict[str, float]:
    """Trains a network with these faults from scratch, then reads held-out words.

    Returns:
        `all`, the word accuracy in per cent; `loss`, `stn_deviation` and `stn_outside`, means over the last dispatch
        of training, the last two only with an STN; `seconds`, including compilation.
    """
    run, began = config.run, time.perf_counter()
    init_key, run_key = jax.random.split(jax.random.key(run.seed))
    model = build(config.model, axis_name=parallel.axis_name()).clone(faults=faults)
    tx = make_optimizer(config.optimizer, run.steps)
    state = create_state(init_key, model, tx, config.model)
    size = parallel.per_device(run.batch_size)
    words, _ = load_words(config)

    options = {"model": model, "tx": tx, "ema_decay": config.optimizer.ema_decay, "axis_name": parallel.axis_name()}
    step_fn = partial(train_step, **options)
    if "padding" in faults:
        step_fn = partial(padded_step, padding=Charset.of(config.model.charset).num_classes, **options)
    dispatch = parallel.make_train(
        step_fn,
        partial(train_batch, config=config, size=size),
        batch_size=run.batch_size,
        length=run.steps_per_dispatch,
    )
    evaluate = parallel.make_eval(
        partial(eval_step, model=model),
        partial(rendered_held_out, config=config, size=size),
        batch_size=run.batch_size,
        total=config.data.held_out_words,
    )
    held_out_key = jax.random.key(HELD_OUT_SEED)
    state, words, run_key, held_out_key = parallel.replicate((state, words, run_key, held_out_key))

    for step in range(run.steps_per_dispatch, run.steps + 1, run.steps_per_dispatch):
        state, metrics = dispatch(state, words, run_key)
        if step % run.log_every == 0 or step == run.steps:
            last = {name: float(np.mean(values)) for name, values in parallel.fetch(metrics).items()}
            seconds = time.perf_counter() - began
            print(f"  step {step} of {run.steps}, loss {last['loss']:.3f}, {seconds:.0f} s", flush=True)
    accuracy = mean_metrics(evaluate(variables(state), words, held_out_key)[0])["word_accuracy"]
    print(f"  {accuracy:.1f} % of the held-out words read right", flush=True)
    kept = {name: last[name] for name in ("loss", "stn_deviation", "stn_outside") if name in last}
    return {"all": accuracy, **kept, "seconds": round(time.perf_counter() - began)}


def padded_step(state, batch, key, *, padding: int, **options):
    """`train_step` on labels padded with the class `padding`."""
    label, length = pad_labels(batch.label, batch.label_length, padding=padding)
    return train_step(state, batch._replace(label=label, label_length=length), key, **options)


def stn_lines(rows: list[dict]) -> list[str]:
    """One line per variant that has an STN: how far it has moved from the identity, over its seeds."""
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in rows if "stn_deviation" in row):
        runs = [row for row in rows if row["variant"] == variant]
        moved = spread([run["stn_deviation"] for run in runs])
        beyond = statistics.mean(100 * run["stn_outside"] for run in runs)
        lines.append(f"{variant}: the STN deviates by {moved} from the identity, {beyond:.1f} % of its grid is outside")
    return lines


if __name__ == "__main__":
    run(main)
