"""Makes a model folder from a run: averaged weights, config, charset, a card of its measurements, its calibration.

    python experiments/calibrate.py --model WORKDIR --data FOLDER ...     # optional: WORKDIR/calibration.json
    python experiments/evaluate.py --model WORKDIR --data FOLDER ... rendered --json table.json
    python experiments/bundle.py WORKDIR --out crnn_jax/pretrained/NAME --table table.json --note "on what, how long"

`crnn_jax.load`, read.py and evaluate.py take the folder; one in `crnn_jax/pretrained/` ships with the package.
With `--average` the weights are the mean of several models. The mean of a run and the model that it started from, or of
runs with the same start, often reads better than any of them (Wortsman et al. 2022, "Model soups"). It is a different
model from the run: bundle it without a table, evaluate DIR, and bundle it again with that table.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from command import run, tells

from crnn_jax.calibration import calibration_place, load_calibration, save_calibration
from crnn_jax.config import Config
from crnn_jax.model import count_parameters
from crnn_jax.training.checkpoint import (
    CheckpointError,
    find_model,
    load_variables,
    save_inference,
    step_of,
    training_checkpoint,
)
from crnn_jax.training.start import images_seen


@tells(CheckpointError, OSError, ValueError)
def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path, metavar="WORKDIR", help="workdir of a run, or one of its checkpoints")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="model folder to write; replaced if it exists"
    )
    average_help = "models, runs or checkpoints of the same network to average these weights with"
    parser.add_argument("--average", nargs="+", default=[], metavar="MODEL", help=average_help)
    parser.add_argument("--table", type=Path, metavar="FILE", help="file that evaluate.py --json wrote for this model")
    parser.add_argument("--note", default="", help="what else to record: hardware, training time")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="precision of the stored weights"
    )
    args = parser.parse_args(argv)
    checkpoint = training_checkpoint(args.workdir.absolute())
    config, variables = load_variables(checkpoint)
    others = [find_model(name) for name in args.average]
    variables = average(variables, config, others)
    # Keep the names of datasets, not where they are on this machine.
    paths = {name: getattr(config.data, name) for name in ("real", "sources", "validation")}
    names = {name: short_names(of_kind) for name, of_kind in paths.items()}
    config = replace(config, data=replace(config.data, **names))
    measured = [args.out] if others else [args.out, args.workdir, checkpoint]
    source, compared, results = None, {}, {}
    if args.table:
        source, compared, results = read_table(args.table, measured, step_of(checkpoint))
    card = {
        "name": config.name,
        "parameters": count_parameters(variables),
        "steps": step_of(checkpoint),
        # Correct if the runs continue one another; otherwise less than they have seen together.
        "images_seen": max(map(images_seen, [checkpoint, *others])),
        "note": args.note,
        "compared": compared,
        "results": results,
    }
    before = load_calibration(args.out) if (args.out / "variables").is_dir() else None
    of_run = None if others else load_calibration(checkpoint)  # does not fit a mean
    of_model = before if before and same_weights(args.out, variables) else None
    calibration = (of_model or of_run) if source == args.out else (of_run or of_model)
    save_inference(args.out, config, variables, card, dtype=args.dtype)
    if calibration:
        save_calibration(args.out, calibration)
    elif (path := calibration_place(checkpoint)[0]).exists():
        print(f"{path} was fitted to other weights: it is left out")
    if before and before != calibration:
        print(f"{args.out}/calibration.json was fitted to the model there before: it is left out")
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {card['parameters']:,} parameters, step {card['steps']}, {size / 1e6:.1f} MB")
    return 0


def same_weights(folder: Path, variables: dict) -> bool:
    """Whether a model has these weights, in whatever precision they are stored."""
    stored = load_variables(folder)[1]
    if jax.tree.structure(stored) != jax.tree.structure(variables):
        return False
    pairs = zip(jax.tree.leaves(stored), jax.tree.leaves(variables), strict=True)
    return all(a.shape == b.shape and np.allclose(a, b, rtol=2**-7, atol=1e-6) for a, b in pairs)


def short_names(paths: tuple[str, ...]) -> tuple[str, ...]:
    """The last part of each path, or as many trailing parts as tell them apart."""
    parts = [Path(path).parts for path in paths]
    for count in range(1, max(map(len, parts), default=1) + 1):
        names = tuple("/".join(of_path[-count:]) for of_path in parts)
        if len(set(names)) == len(set(paths)):
            break
    return names


def average(variables: dict, config: Config, others: list[Path]) -> dict:
    """The mean of a model's variables and those of others. Raises CheckpointError for one with another network."""
    models = [variables]
    for folder in others:
        other_config, other = load_variables(folder)
        if other_config.model != config.model:
            raise CheckpointError(f"{folder}: its config has a different model, so it cannot be averaged")
        models.append(other)
    return jax.tree.map(lambda *leaves: np.mean(leaves, axis=0, dtype=np.float64).astype(np.float32), *models)


def read_table(path: Path, measured: list[Path], step: int) -> tuple[Path, dict, dict[str, dict]]:
    """What evaluate.py --json wrote: which of `measured` it is of, how words were compared, and the datasets' rows.

    The speed is left out: it is the machine's, not the model's. Raises ValueError if it is no such file, if it is of a
    model that is not in `measured` or of another step of its training, and if damaged words were left out of it.
    """
    try:
        told = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    table = told.get("datasets") if isinstance(told, dict) else None
    if not isinstance(table, dict) or not all(isinstance(row, dict) for row in table.values()):
        raise ValueError(f"{path}: expected one row per dataset, as evaluate.py --json writes them")
    model = str(told.get("model"))
    source = next((place for place in measured if place.resolve() == find_model(model).resolve()), None)
    if source is None:
        raise ValueError(f"{path}: measures {model}, another model: run evaluate.py --model {measured[0]}")
    if told.get("step", step) != step:
        raise ValueError(f"{path}: measures step {told['step']}, not {step}: run evaluate.py --model {measured[0]}")
    if told.get("left_out"):
        raise ValueError(
            f"{path}: {', '.join(told['left_out'])}: not fully measured, since damaged words were left out"
        )
    rows = {name: {k: v for k, v in row.items() if k != "images_per_second"} for name, row in table.items()}
    return source, told.get("compared", {}), rows


if __name__ == "__main__":
    run(main)
