"""Where weights come from: the model that a run started from, and how many images they have seen in all."""

import json
from pathlib import Path

from crnn_jax.data.whole import write_whole
from crnn_jax.training.checkpoint import config_of, find_model, read_meta, training_checkpoint, workdir_of
from crnn_jax.training.stored import CheckpointError, read_json

START = "start.json"  # in a workdir


def images_seen(path: Path | str) -> int:
    """How many images the weights of a model, or of a run's best checkpoint, were trained on.

    Those of the model that a run started from count too. 0 if a model has no card that gives it. `path` is that of
    `load_variables`. Raises CheckpointError.
    """
    path = find_model(path).absolute()
    if (path / "card.json").is_file():
        return _told_images_seen(path / "card.json")
    if (path / "variables").is_dir():
        return 0
    checkpoint = training_checkpoint(path)
    workdir, meta = workdir_of(checkpoint), read_meta(checkpoint)
    before = _told_images_seen(workdir / START) if workdir and (workdir / START).is_file() else 0
    return before + meta["position"]["step"] * config_of(checkpoint, meta).run.batch_size


def _told_images_seen(path: Path) -> int:
    count = read_json(path).get("images_seen", 0)
    if not isinstance(count, int):
        raise CheckpointError(f"{path}: images_seen = {count!r}: expected a number")
    return count


def save_start(workdir: Path, init: Path | None) -> None:
    """Records in a workdir which model its weights are from (START); None for fresh ones."""
    if init is None:
        (workdir / START).unlink(missing_ok=True)  # left by a start that reached no checkpoint
        return
    start = {"model": str(Path(init).absolute()), "images_seen": images_seen(init)}
    write_whole(workdir / START, (json.dumps(start, indent=2) + "\n").encode())


def started_from(workdir: Path) -> str | None:
    """The model that a workdir's weights are from, as `save_start` recorded it; None for fresh ones."""
    path = workdir / START
    return str(read_json(path).get("model")) if path.is_file() else None
