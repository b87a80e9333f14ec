"""Checkpoints of a run (Orbax, the last ones and the best), and models alone (as in `pretrained/`).

    WORKDIR/config.json                 the run's configuration
    WORKDIR/start.json                  the model whose weights it started from, and how many images that had seen
    WORKDIR/checkpoints/STEP/state      the TrainState
    WORKDIR/checkpoints/STEP/meta       config, charset, data position, metrics
    MODEL/{variables/,config.json,charset.txt,card.json}    averaged parameters and batch statistics
    {MODEL,WORKDIR}/calibration.json    the temperature of its confidence, if one was fitted (calibration.py)

Arrays are saved as NumPy arrays, so that a checkpoint of eight devices opens on one, and vice versa.
"""

import json
import os
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import preservation_policy

from crnn_jax.charset import Charset
from crnn_jax.config import RENDERED, Config, ConfigError, from_json, to_json
from crnn_jax.data.whole import whole_folder
from crnn_jax.section import differences
from crnn_jax.training.stored import (
    CheckpointError,
    quietly,
    read_json,
    read_parts,
    read_text,
    read_tree,
    unreadable,
    write_errors,
)

# Fields that a resumed run may change: none of them affects what is learnt.
FREE_FIELDS = {
    "data.max_damaged",
    *("run.steps_per_dispatch", "run.log_every", "run.eval_every", "run.checkpoint_every", "run.keep"),
    *("run.read_threads", "run.read_processes"),
}
# Paths that may differ in a resumed run, if the checkpoint has a checksum of their words.
MOVABLE = {"data.real": "real words", "data.validation": "words to validate on", "data.sources": "words of {}"}


class Checkpoints:
    """The checkpoints of a run under `workdir`: the last `config.run.keep`, and the best by held-out word accuracy.

    `words` holds, by name, counts and checksums of the run's words (`training.words.fingerprint`).
    """

    def __init__(self, workdir: Path, config: Config, *, words: dict[str, int | str] | None = None):
        self.folder = Path(workdir).absolute() / "checkpoints"
        self.config = config
        self.words = words or {}
        self._manager = _manager(self.folder, config.run.keep)

    @property
    def latest(self) -> int | None:
        """The step of the last checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: PyTree, metrics: dict[str, float] | None) -> None:
        """Saves `state` (NumPy arrays); `metrics` of the held-out words at this step, None if not measured."""
        meta = {
            "config": json.loads(to_json(self.config)),
            "charset": Charset.of(self.config.model.charset).characters,
            # Given the same words to choose from, those of a batch depend on the seed and the step alone.
            "position": {"step": step, "words": self.words},
            "metrics": metrics,
        }
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        with write_errors(self.folder / str(step)):
            self._manager.save(step, args=args, metrics=metrics, force=True)
            self._manager.wait_until_finished()

    def restore(self, like: PyTree) -> PyTree:
        """The last checkpoint as NumPy arrays, in the structure of `like`.

        Raises CheckpointError if it is incomplete, if its configuration, charset or words were others, or if from its
        step this configuration's dispatches would step over the end of the run.
        """
        folder = self.folder / str(self.latest)
        meta = read_meta(folder)
        _refuse_other_run(folder, meta, self.config)
        dispatch = self.config.run.steps_per_dispatch
        if self.latest % dispatch:  # an interrupted run stops after any of its own dispatches
            raise CheckpointError(f"{folder}: its step is not a multiple of run.steps_per_dispatch = {dispatch}")
        before = meta["position"].get("words", self.words)  # not recorded by earlier versions
        words_of = MOVABLE["data.sources"].format
        lay = zip(config_of(folder, meta).data.sources, self.config.data.sources, strict=True)
        moved = {words_of(there): words_of(here) for there, here in lay}
        before = {moved.get(name, name): value for name, value in before.items()}
        for name in sorted(before.keys() | self.words):
            there, here = before.get(name), self.words.get(name)
            # Earlier versions recorded only the number of some words, and nothing about others.
            told_less = there is None or isinstance(there, int) and str(here).split()[0] == str(there)
            if there != here and not told_less:
                raise CheckpointError(
                    f"{folder}: {name}: {there} before, {here} now: "
                    "resume with the same files and as many devices as before (train.py --cpu_devices N)"
                )
        like = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        return read_tree(folder / "state", like)

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.close()


def save_inference(path: Path, config: Config, variables: dict, card: dict, *, dtype: str = "float32") -> None:
    """Writes a model without its training state: variables, config, charset, and a card that describes it.

    Args:
        path: a folder; a model in it is replaced once the new one is complete.
        config: of the run that trained it.
        variables: params and batch_stats, as `state.variables` or `load_variables` give them.
        card: training data, time, measured accuracies: anything JSON holds.
        dtype: float32, or bfloat16 for half the size: floating arrays are cast for storage and cast back when loaded.

    Raises CheckpointError if the folder holds anything but a model, or cannot be written.
    """
    path = Path(path).absolute()
    is_model = (path / "variables").is_dir() and (path / "config.json").is_file()
    if path.exists() and not is_model and not (path.is_dir() and not any(path.iterdir())):
        raise CheckpointError(f"{path}: exists but is not a model, so it is not replaced: name another folder")
    foreign = sorted({file.name for file in path.glob("[!.]*")} - PARTS) if is_model else []
    if foreign:
        raise CheckpointError(f"{path}: holds {', '.join(foreign)} besides a model: move that elsewhere first")
    stored = jax.tree.map(lambda x: np.asarray(jnp.asarray(x, dtype)), {k: variables[k] for k in INFERENCE})
    with write_errors(path), whole_folder(path, replaces=is_model) as partial:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(partial / "variables", stored)
        (partial / "config.json").write_text(to_json(config) + "\n")
        (partial / "charset.txt").write_text(Charset.of(config.model.charset).characters + "\n", encoding="utf-8")
        (partial / "card.json").write_text(json.dumps(card, indent=2) + "\n")


INFERENCE = ("params", "batch_stats")
PARTS = {"variables", "config.json", "charset.txt", "card.json", "calibration.json"}  # of a model's folder


def bundled_models() -> dict[str, Path]:
    """The folders of the models that ship with the package, by their names, sorted."""
    folder = Path(str(resources.files("crnn_jax"))) / "pretrained"
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/config.json"))}


def find_model(name: str | Path) -> Path:
    """The folder of the bundled model of that name, or else at that path; a Path or "./tiny" is always a path.

    Raises CheckpointError, which lists the bundled models.
    """
    bundled = bundled_models()
    if isinstance(name, str) and name in bundled:
        return bundled[name]
    folder = Path(os.path.expanduser(name))
    if folder.is_dir():
        return folder
    if folder.name in bundled and not folder.is_absolute() and len(folder.parts) == 1:
        raise CheckpointError(f"there is no folder {name!r}; for the bundled model, use its name, {folder.name!r}")
    raise CheckpointError(f"{name} is neither a folder nor a bundled model ({', '.join(bundled) or 'there is none'})")


def weights_folder(model: str | Path) -> Path:
    """The folder with a model's weights: that of `find_model` or, for a run, its best checkpoint so far.

    Call it once and keep the result: while a run goes on, its best checkpoint may change. Raises CheckpointError.
    """
    folder = find_model(model)
    return folder if (folder / "variables").is_dir() else training_checkpoint(folder.absolute())


def step_of(folder: Path) -> int | None:
    """The training step of the weights in a `weights_folder`; None if a model has no card that gives it."""
    if (folder / "variables").is_dir():
        return read_json(folder / "card.json").get("steps") if (folder / "card.json").is_file() else None
    return read_meta(folder)["position"]["step"]


def load_variables(path: Path | str) -> tuple[Config, dict]:
    """The config and inference variables of a model, of a run (its best checkpoint), or of one checkpoint of a run.

    Args:
        path: the name of a bundled model, a folder that `save_inference` wrote, a workdir, or WORKDIR/checkpoints/STEP.

    Returns:
        The config, and {"params", "batch_stats"} as float32 NumPy arrays, the parameters being the averaged ones.

    Raises:
        CheckpointError: in one line, if the folder is none of these, or is incomplete.
    """
    path = find_model(path).absolute()
    if (path / "variables").is_dir():
        charset = read_text(path / "charset.txt").removesuffix("\n")
        meta = {"config": read_json(path / "config.json"), "charset": charset}
        stored = read_parts(path / "variables", INFERENCE)
    else:
        folder = training_checkpoint(path)
        meta = read_meta(folder)
        stored = read_parts(folder / "state", ("ema_params", "batch_stats"))
        stored = {"params": stored["ema_params"], "batch_stats": stored["batch_stats"]}
    config = config_of(path, meta)
    return config, jax.tree.map(lambda x: np.asarray(x, np.float32), stored)


def _manager(folder: Path, keep: int, *, read_only: bool = False) -> ocp.CheckpointManager:
    def accuracy(metrics):
        return metrics["word_accuracy"]

    policies = [
        preservation_policy.LatestN(keep),
        preservation_policy.BestN(get_metric_fn=accuracy, n=1, keep_checkpoints_without_metrics=False),
    ]
    options = ocp.CheckpointManagerOptions(
        best_fn=accuracy,  # besides the policy: without it, the best step is the latest
        preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
        enable_async_checkpointing=False,  # a saved state is donated to the next dispatch
        cleanup_tmp_directories=not read_only,  # left by a kill in the middle of a save
        read_only=read_only,
    )
    return ocp.CheckpointManager(folder, options=options)


def training_checkpoint(path: Path) -> Path:
    """The folder of a training checkpoint, named by its step: `path` itself, or the best of the run at `path`.

    Raises CheckpointError if there is none.
    """
    if (path / "state").is_dir():
        return path
    if (path / "checkpoints").is_dir():
        with quietly():
            manager = _manager(path / "checkpoints", 1, read_only=True)
            step = manager.best_step()
            step = manager.latest_step() if step is None else step  # no evaluation yet
            manager.close()
        if step is not None:
            return path / "checkpoints" / str(step)
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a folder")
    raise CheckpointError(f"{path} holds no checkpoint")


def workdir_of(checkpoint: Path) -> Path | None:
    """The workdir of a training checkpoint; None for one that was copied out of its run."""
    is_there = checkpoint.name.isdigit() and checkpoint.parent.name == "checkpoints"
    return checkpoint.parent.parent if is_there else None


def read_meta(folder: Path) -> dict:
    """What a training checkpoint records of its run: config, charset, data position, metrics."""
    return read_json(folder / "meta" / "metadata")


def config_of(path: Path, meta: dict) -> Config:
    """The config of a checkpoint, after a check that its charset still means the same characters."""
    try:
        config = from_json(json.dumps(meta["config"]))
    except KeyError as error:
        raise unreadable(path, error) from error
    except ConfigError as error:  # such as one of a newer version
        raise CheckpointError(f"{path}: this version cannot read its configuration: {error}") from error
    characters = Charset.of(config.model.charset).characters
    if characters != meta.get("charset"):
        raise CheckpointError(
            f"{path} was trained on the charset {meta.get('charset')!r}, but its config says {characters!r}"
        )
    return config


def refuse_other_run(workdir: Path, config: Config) -> None:
    """Raises CheckpointError, naming the fields, if the workdir has checkpoints of another configuration."""
    steps = [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
    if steps:
        last = workdir / "checkpoints" / str(max(steps))
        _refuse_other_run(last, read_meta(last), config)


def _refuse_other_run(folder: Path, meta: dict, config: Config) -> None:
    before, words = config_of(folder, meta), meta["position"].get("words", {})
    changed = {name: both for name, both in differences(before, config).items() if name not in FREE_FIELDS}
    for name in MOVABLE.keys() & changed:
        there, here = changed[name]
        kinds = {MOVABLE[name].format(path) for path in there if path != RENDERED}
        is_alike = name != "data.sources" or [p == RENDERED for p in there] == [p == RENDERED for p in here]
        if there and here and is_alike and all(isinstance(words.get(kind), str) for kind in kinds):
            del changed[name]
    if changed:
        told = [f"{name} was {there!r}, now {here!r}" for name, (there, here) in changed.items()]
        shown = ", ".join(told[:4]) + (f", and {len(told) - 4} more" if len(told) > 4 else "")
        workdir = folder.parent.parent
        raise CheckpointError(
            f"{workdir} holds a run with another configuration: {shown}; use another --workdir, "
            f"which can start from this one's weights with --init {workdir}"
        )
