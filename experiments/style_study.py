"""Ranks variants of the renderer by what a small model trained on them reads, not by their looks.

    python experiments/style_study.py --data FOLDER ... [--variants NAME ...] [--steps 2000] [--seeds 0 1 2]

Every variant changes one thing of the style `photo` (or takes another one) and trains the config `tiny` on it for the
same number of steps, from every seed, in DIR/runs; the seeds draw other weights and other words, but the same ones for
every variant. What every run reads of the datasets goes to DIR/results.jsonl, a line a run, and a run that is there is
not done again: the same command goes on where it was stopped. Steps and seeds of a table must be the same for all.
"""

import argparse
import json
import logging
import statistics
import sys
from dataclasses import replace
from pathlib import Path

from evaluate import dataset_words, evaluate, name_of
from train import load_config

import crnn_jax
from crnn_jax.config import Config, ConfigError
from crnn_jax.data.dataset import open_dataset
from crnn_jax.data.sample import DatasetError
from crnn_jax.images import ImageError
from crnn_jax.synth.style import MJSYNTH, PHOTO
from crnn_jax.training.checkpoint import CheckpointError
from crnn_jax.training.loop import train

BASE = "photo"
STYLES = {
    BASE: PHOTO,
    "mjsynth": MJSYNTH,
    "upright": replace(PHOTO, rotation_std=0.0, wide_share=0.0, scale_std=0.0, shear_std=0.0, tilt_std=0.0),
    "more rotation, perspective": replace(PHOTO, wide_share=0.5),
    "straight baselines": replace(PHOTO, curve_share=0.0),
    "more curved baselines": replace(PHOTO, curve_share=0.5),
    "no blur": replace(PHOTO, blur_share=0.0),
    "more blur": replace(PHOTO, blur_share=0.6, blur=(0.4, 2.4)),
    "no noise": replace(PHOTO, noise=(0.0, 0.0), noisy_share=0.0),
    "more noise": replace(PHOTO, noisy_share=0.5),
    "JPEG quality 80": replace(PHOTO, jpeg_quality=(80.0, 0.0)),
    "even light": replace(PHOTO, light_std=0.0),
    "no textures": replace(PHOTO, plain_share=1.0),
    "always textures": replace(PHOTO, plain_share=0.0),
    "stronger textures": replace(PHOTO, blend_std=0.5),
    "higher contrast": replace(PHOTO, min_contrast=0.15),
    "tight crops": replace(PHOTO, margin_mean=0.0, margin_std=6.0),
    "loose crops": replace(PHOTO, margin_mean=24.0, margin_std=12.0),
    "the fonts' own spacing": replace(PHOTO, advance_share=1.0),
    "random spacing": replace(PHOTO, advance_share=0.0),
    "no bold": replace(PHOTO, bold_share=0.0),
    "no slant, no underline": replace(PHOTO, oblique_share=0.0, underline_share=0.0),
}
DATA = {  # of the config `tiny`: of the words, not of their looks
    "50 fonts": {"fonts": 50},
    "no random strings": {"share_random": 0.0},
    "no digits": {"share_digits": 0.0},
    "no punctuation": {"share_punctuation": 0.0},
}
VARIANTS = [*STYLES, *DATA]


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="PATH", help="anything that evaluate.py reads")
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS, metavar="NAME")
    parser.add_argument("--config", default="tiny", metavar="NAME", help="a file of experiments/configs/")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/style_study"), metavar="DIR")
    args = parser.parse_args(argv)
    logging.getLogger("absl").setLevel(logging.ERROR)
    results = args.out / "results.jsonl"
    try:
        base = load_config(args.config)
        datasets = {name_of(path, {}): open_dataset(path) for path in args.data}
        args.out.mkdir(parents=True, exist_ok=True)
        rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
        for seed in args.seeds:  # a whole round of variants before the next seed
            for variant in args.variants:
                if any((r["variant"], r["seed"], r["steps"]) == (variant, seed, args.steps) for r in rows):
                    continue
                config = variant_config(base, variant, steps=args.steps, seed=seed)
                workdir = args.out / "runs" / f"{variant}-{args.steps}-{seed}"
                print(f"{variant}, seed {seed}", flush=True)
                if train(config, workdir)["step"] < args.steps:
                    return 1  # interrupted, and saved
                rows.append({"variant": variant, "seed": seed, "steps": args.steps, **accuracies(workdir, datasets)})
                with results.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    except (CheckpointError, ConfigError, DatasetError, FloatingPointError, ImageError, OSError) as error:
        print(f"style_study.py: {error}", file=sys.stderr)
        return 1
    print(table([row for row in rows if row["steps"] == args.steps], list(datasets)))
    return 0


def variant_config(base: Config, variant: str, *, steps: int, seed: int) -> Config:
    """The base config with one thing changed, for a short run."""
    data = replace(base.data, style=STYLES.get(variant, PHOTO), **DATA.get(variant, {}))
    dispatch = base.run.steps_per_dispatch
    if steps % dispatch:
        raise ConfigError(f"--steps {steps}: expected a multiple of {dispatch}, the steps of a dispatch of {base.name}")
    run = replace(base.run, steps=steps, seed=seed, eval_every=steps, checkpoint_every=steps, keep=1)
    return replace(base, data=data, run=run)


def accuracies(workdir: Path, datasets: dict) -> dict[str, float]:
    """Word accuracy in per cent on every dataset, and on all their words together."""
    reader = crnn_jax.load(workdir)
    rows = {
        name: evaluate(reader, dataset_words(reader, dataset, name), cased=False, punctuation=False)
        for name, dataset in datasets.items()
    }
    total = sum(row["count"] for row in rows.values())
    everything = sum(row["word_accuracy"] * row["count"] for row in rows.values()) / total
    return {"all": everything} | {name: row["word_accuracy"] for name, row in rows.items()}


def table(rows: list[dict], datasets: list[str]) -> str:
    """Markdown: a row a variant, the best first: mean and standard deviation over its seeds, difference from the base.

    The difference is the mean over the seeds that both have, with its standard deviation.
    """
    by_variant: dict[str, dict[int, dict]] = {}
    for row in rows:
        by_variant.setdefault(row["variant"], {})[row["seed"]] = row
    base = by_variant.get(BASE, {})

    def cells(variant):
        runs = by_variant[variant]
        columns = [spread([run[name] for run in runs.values()]) for name in ["all", *datasets]]
        shared = [run["all"] - base[seed]["all"] for seed, run in runs.items() if seed in base]
        difference = spread(shared, sign="+") if shared and variant != BASE else ""
        return " | ".join([variant, str(len(runs)), *columns, difference])

    order = sorted(by_variant, key=lambda v: -statistics.mean(run["all"] for run in by_variant[v].values()))
    header = ["variant", "seeds", "all words", *datasets, f"against {BASE}"]
    lines = [" | ".join(header), "|".join("---" for _ in header), *(cells(variant) for variant in order)]
    return "\n".join(f"| {line} |" for line in lines)


def spread(values: list[float], sign: str = "") -> str:
    """Mean and standard deviation; the mean alone of one value."""
    mean = f"{statistics.mean(values):{sign}.2f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.2f}"


if __name__ == "__main__":
    sys.exit(main())
