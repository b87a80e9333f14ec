"""Ranks variants of the renderer, the learning or the model by what a small model trained with them reads.

    python experiments/study.py style --data FOLDER ... [--part all|tenth|rest] [--variants NAME ...] [--seeds 0 1 2]
        [--init MODEL]
    python experiments/study.py learning|model --data FOLDER ... [--config NAME]

Every variant changes one thing in a config (`tiny` by default, whose style is `photo`) and is trained on the same
number of images, from every seed, in DIR/runs. The seeds differ in weights and words, but a seed has the same ones for
every variant. With --init all start from the weights of one model instead: the effect of a variant shows sooner if most
words are already read. Results go to DIR/results.jsonl, one line per run, and runs that are there are not repeated: the
same command resumes. A run that diverges is reported and has no row. Variants are comparable only with the same steps
and seeds. Measure runs that learn real words (--set data.real=...) on `--part tenth`.
"""

import argparse
import math
import statistics
import sys
from dataclasses import replace
from pathlib import Path

from command import add_overrides, run, tells
from rows import add_rows, claim, read_rows
from train import load_config

import crnn_jax
from crnn_jax.config import Config, ConfigError, override
from crnn_jax.data.dataset import PARTS
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.whole import only_one
from crnn_jax.evaluation import all_words, dataset_words, open_datasets, read_words
from crnn_jax.images import ImageError
from crnn_jax.training import parallel
from crnn_jax.training.checkpoint import CheckpointError, find_model
from crnn_jax.training.loop import train
from crnn_jax.training.words import check_words

# Each is a change of the config, as `--set` spells it; the others are compared with the first of a study.
STYLE = {
    "photo": [],
    "mjsynth": ["data.style=mjsynth"],
    # Without what it has beyond the generator of Synth90k.
    "no small capitals": ["data.style.small_caps_share=0"],
    "no letters set apart": ["data.style.apart_share=0"],
    "no neighbouring words": ["data.style.neighbour_share=0"],
    "no panels and frames": ["data.style.edge_share=0"],
    "no low resolution": ["data.style.coarse_share=0"],
    "no sharpening": ["data.style.sharp_share=0"],
    "no overexposure": ["data.style.exposed_share=0"],
    "no blur": ["data.style.blur_share=0"],
    "little noise": ["data.style.noisy_share=0"],
    "JPEG quality 80": ["data.style.jpeg_quality=80,0"],
    "even light": ["data.style.light_std=0"],
    "less rotation, perspective": ["data.style.wide_share=0.2"],
    "tighter crops": ["data.style.margin_std=8"],
    "straight baselines": ["data.style.curve_share=0"],
    "always textures": ["data.style.plain_share=0"],
    "random spacing": ["data.style.advance_share=0"],
    "50 fonts": ["data.fonts=50"],
    "words as in a dictionary": ["data.length_bias=1"],
    "no random strings": ["data.share_random=0"],
    "no digits": ["data.share_digits=0"],
    "no punctuation": ["data.share_punctuation=0"],
    # More of it.
    "more rotation, perspective": ["data.style.wide_share=0.7"],
    "more low resolution": ["data.style.coarse_share=0.7"],
    "more curved baselines": ["data.style.curve_share=0.5"],
    "looser crops": ["data.style.margin_mean=20"],
    "much looser crops": ["data.style.margin_mean=30"],
    "looser crops, less varied": ["data.style.margin_mean=20", "data.style.margin_std=10"],
    "looser crops, more varied": ["data.style.margin_mean=20", "data.style.margin_std=24"],
    "tighter and looser crops": ["data.style.margin_std=24", "data.style.margin_min=-18"],
    "no textures": ["data.style.plain_share=1"],
    "higher contrast": ["data.style.min_contrast=0.15"],
    "shorter words": ["data.length_bias=3"],
}

LEARNING = {
    "unchanged": [],
    "learning rate 0.00125": ["optimizer.learning_rate=1.25e-3"],
    "learning rate 0.005": ["optimizer.learning_rate=5e-3"],
    "batches of 32": ["run.batch_size=32"],
    "batches of 128": ["run.batch_size=128"],
    "batches of 128, learning rate 0.005": ["run.batch_size=128", "optimizer.learning_rate=5e-3"],
    "constant learning rate": ["optimizer.final_factor=1"],
    "no warm-up": ["optimizer.warmup_steps=0"],
    "no average of the weights": ["optimizer.ema_decay=0"],
    "no weight decay": ["optimizer.weight_decay=0"],
    "weight decay 0.03": ["optimizer.weight_decay=0.03"],
    "no clipping": ["optimizer.clip_norm=0"],
    "AdaDelta at 1": ["optimizer.name=adadelta", "optimizer.learning_rate=1"],  # that of the CRNN paper
    "SGD at 0.03": ["optimizer.name=sgd", "optimizer.learning_rate=0.03"],
}

MODEL = {
    "unchanged": [],
    "both cases": ["model.charset=62"],
    "contrast normalised": ["model.normalise=contrast"],
    "contrast as it is": ["model.normalise=range"],
    "padded, not stretched": ["model.fit=pad"],
    "128 pixels wide": ["model.width=128"],
    "160 pixels wide": ["model.width=160"],
    "dropout 0.1": ["model.dropout=0.1"],
}

STUDIES = {"style": STYLE, "learning": LEARNING, "model": MODEL}


@tells(CheckpointError, ConfigError, DatasetError, ImageError, OSError)
def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--data", nargs="+", required=True, metavar="PATH", help="datasets that evaluate.py can read")
    parser.add_argument(
        "--part", choices=PARTS, default="all", help="all of each dataset, its fixed tenth, or the rest"
    )
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="variants to train (default: all of the study)")
    parser.add_argument("--config", default="tiny", metavar="NAME|PATH", help="name in experiments/configs/, or a path")
    add_overrides(parser, help="config fields to override in every run")
    parser.add_argument("--init", metavar="MODEL", help="start every run from the weights of this model")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the study (default: runs/STUDY_study)")
    args = parser.parse_args(argv)
    variants, out = STUDIES[args.study], args.out or Path(f"runs/{args.study}_study")
    chosen = args.variants or list(variants)
    unknown = [name for name in chosen if name not in variants]
    if unknown:
        parser.error(f"unknown {args.study} variant {unknown[0]!r}: expected any of {', '.join(variants)}")
    base = override(load_config(args.config), args.set)
    init = find_model(args.init) if args.init else None
    same = [name for name in chosen if variants[name] and override(base, variants[name]) == base]
    for name in same:  # not a variant of it
        print(f"{name}: same as {args.config}; left out", flush=True)
    chosen = [name for name in chosen if name not in same]
    if not chosen:
        raise ConfigError("no variant is left to train")
    # Make all configs before hours of work; all variants come before the next seed.
    runs = [
        (variant, seed, variant_config(base, variants[variant], steps=args.steps, seed=seed))
        for seed in args.seeds
        for variant in chosen
    ]
    parallel.leave_out_fusion_emitters()
    parallel.share_cpu(None, batch_size=math.gcd(*(config.run.batch_size for *_, config in runs)))
    for *_, config in runs:
        check_words(config)
    # May render, so only once JAX has its devices.
    datasets = open_datasets(args.data, base, part=args.part, taken=("variant", "seed", "steps"))
    with only_one(out):
        claim(out, base, args.init, {name: len(dataset) for name, dataset in datasets.items()})
        train_all(runs, out, datasets, init=init, steps=args.steps)
    rows = [row for row in read_rows(out / "results.jsonl") if row["steps"] == args.steps]
    print(table(rows, list(datasets), base=next(iter(variants))))
    done = {(row["variant"], row["seed"]) for row in rows}
    return 0 if all((variant, seed) in done for variant, seed, _ in runs) else 1


def train_all(runs: list[tuple], out: Path, datasets: dict, *, init: Path | None, steps: int) -> None:
    """Trains and measures the runs missing in OUT/results.jsonl. One that diverges is reported and has no row there.

    An interrupted run is saved, and is the last.
    """
    results = out / "results.jsonl"
    done = {(row["variant"], row["seed"], row["steps"]) for row in read_rows(results)}
    for variant, seed, config in runs:
        if (variant, seed, steps) in done:
            continue
        workdir = out / "runs" / f"{variant}-{steps}-{seed}"
        print(f"{variant}, seed {seed}", flush=True)
        try:
            if train(config, workdir, init=init)["step"] < config.run.steps:
                return
        except FloatingPointError as error:  # the others are still measured
            print(f"study.py: {variant}, seed {seed}: {error}", file=sys.stderr)
            continue
        add_rows(results, [{"variant": variant, "seed": seed, "steps": steps, **accuracies(workdir, datasets)}])


def variant_config(base: Config, changes: list[str], *, steps: int, seed: int) -> Config:
    """The base config with one thing changed, for a short run on as many images as `steps` batches of the base have."""
    config = override(base, changes)
    steps, rest = divmod(steps * base.run.batch_size, config.run.batch_size)
    dispatch = base.run.steps_per_dispatch
    if rest or steps % dispatch:
        raise ConfigError(f"--steps: expected a multiple of {dispatch}, the steps per dispatch, at every batch size")
    run = replace(config.run, steps=steps, seed=seed, eval_every=steps, checkpoint_every=steps, keep=1)
    return replace(config, run=run)


def accuracies(workdir: Path, datasets: dict) -> dict[str, float]:
    """Word accuracy in per cent on every dataset, and on all their words together."""
    reader, compiled = crnn_jax.load(workdir), set()
    evaluations = {
        name: read_words(reader, dataset_words(reader, dataset, name), compiled=compiled)
        for name, dataset in datasets.items()
    }
    everything = {"all": all_words(list(evaluations.values()))}
    return {name: evaluation.row()["word_accuracy"] for name, evaluation in (everything | evaluations).items()}


def table(rows: list[dict], datasets: list[str], *, base: str) -> str:
    """A Markdown table, the best variant first: mean and standard deviation over its seeds, difference from the base.

    The difference is the mean over the seeds that both have, with its standard deviation.
    """
    by_variant: dict[str, dict[int, dict]] = {}
    for row in rows:
        by_variant.setdefault(row["variant"], {})[row["seed"]] = row
    base_runs = by_variant.get(base, {})

    def cells(variant):
        runs = by_variant[variant]
        columns = [spread([run[name] for run in runs.values()]) for name in ["all", *datasets]]
        shared = [run["all"] - base_runs[seed]["all"] for seed, run in runs.items() if seed in base_runs]
        difference = spread(shared, sign="+") if shared and variant != base else ""
        return " | ".join([variant, str(len(runs)), *columns, difference])

    order = sorted(by_variant, key=lambda v: -statistics.mean(run["all"] for run in by_variant[v].values()))
    header = ["variant", "seeds", "all words", *datasets, f"against {base}"]
    lines = [" | ".join(header), "|".join("---" for _ in header), *(cells(variant) for variant in order)]
    return "\n".join(f"| {line} |" for line in lines)


def spread(values: list[float], sign: str = "") -> str:
    """Mean and standard deviation; only the mean for a single value."""
    mean = f"{statistics.mean(values):{sign}.2f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.2f}"


if __name__ == "__main__":
    run(main)
