"""Reads and writes the arrays and JSON of a checkpoint; any failure is a one-line CheckpointError."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from jaxtyping import PyTree


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit: its message is one line for the user."""


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Shortens what Orbax raises if it cannot write to one line: a full disk is a ValueError of many lines."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be written: {' '.join(str(error).split())[:200]}") from error


@contextmanager
def quietly() -> Iterator[None]:
    """Suppresses Orbax's warnings that a folder is read-only, or lacks what it looks for first."""
    logger = logging.getLogger("absl")

    def is_error(record: logging.LogRecord) -> bool:  # a filter per call: threads remove them in any order
        return record.levelno >= logging.ERROR

    logger.addFilter(is_error)
    try:
        yield
    finally:
        logger.removeFilter(is_error)


def read_tree(folder: Path, like: PyTree) -> PyTree:
    """Restores the whole of a folder in the structure of `like`."""
    try:
        _read_values(folder)
        with quietly(), ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(folder, like)
    except Exception as error:  # Orbax and TensorStore raise many kinds for one cause: incomplete files
        raise unreadable(folder, error) from error


def read_parts(folder: Path, names: tuple[str, ...]) -> dict:
    """Restores some of the top-level entries of a folder as NumPy arrays, whatever shape they were saved in."""
    try:
        _read_values(folder)
        with quietly(), ocp.PyTreeCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(folder).item_metadata
            if metadata is None:
                raise ValueError("its file _METADATA is missing or cut short")
            tree = metadata.tree
            like = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), {name: tree[name] for name in names})
            return checkpointer.restore(folder, args=ocp.args.PyTreeRestore(item=like, partial_restore=True))
    except Exception as error:
        raise unreadable(folder, error) from error


def _read_values(folder: Path) -> None:
    """Reads every stored value and discards it; raises if one is damaged.

    Orbax reads them concurrently: if one fails, it abandons the others, and Python prints a traceback of each to
    stderr, below the one line meant for the user.
    """
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{folder}/"}).result()
    keys = store.list().result()
    missing = [key.decode() for key in keys if not store.read(key).result().value]
    if missing or not keys:
        raise ValueError(f"the values of {missing[0] if missing else 'all its arrays'} are missing")


def read_json(path: Path) -> dict:
    """The object in a JSON file."""
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise unreadable(path, error) from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return found


def read_text(path: Path) -> str:
    """The text of a file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """The error for an incomplete file, made from the one raised when reading it."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    return CheckpointError(f"{path} is not a checkpoint, or was cut short: {reason}")
