"""Weights of one model for another: what fits is taken, what is new stays as initialised."""

from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from crnn_jax.charset import Charset
from crnn_jax.config import Config
from crnn_jax.training.checkpoint import CheckpointError
from crnn_jax.training.state import TrainState, variables


def with_weights(
    state: TrainState, config: Config, saved: tuple[Config, PyTree], *, name: Path | str
) -> tuple[TrainState, str]:
    """A state at step 0 with the weights of a saved model, and a note of what is new.

    Args:
        state: freshly initialised.
        config: of the run.
        saved: the other model's config and variables, as `load_variables` gives them.
        name: what that model is called.

    A saved model that has all of this one's layers and more can start it too: with a residual layer less, a network
    only reads worse at first. Raises CheckpointError if each has layers that the other lacks.
    """
    loaded_config, loaded = saved
    charset, loaded_charset = Charset.of(config.model.charset), Charset.of(loaded_config.model.charset)
    taken, new, lost = transfer(variables(state), loaded, charset=charset, loaded_charset=loaded_charset)
    if lost and new:
        raise CheckpointError(
            f"{name} has different layers from this config's model ({', '.join(lost[:4])}): it cannot start this run"
        )
    added = {c for c in charset.characters if not _known(c, loaded_charset)}
    notes = [f"starts from the weights of {name}"]
    notes += [f"new layers: {', '.join(new)}"] if new else []
    notes += [f"layers left out: {', '.join(lost)}"] if lost else []
    notes += [f"{len(added)} characters new to the head: {''.join(sorted(added))}"] if added else []
    for field in ("normalise", "fit", "height", "width"):  # what the model sees
        here, there = getattr(config.model, field), getattr(loaded_config.model, field)
        if here != there:
            notes.append(f"model.{field} is {here}, but these weights were trained with {there}")
    params, ema_params = taken["params"], jax.tree.map(np.copy, taken["params"])  # no buffer twice: they are donated
    state = state.replace(params=params, ema_params=ema_params, batch_stats=taken["batch_stats"])
    return state, "; ".join(notes)


def transfer(
    fresh: PyTree, loaded: PyTree, *, charset: Charset, loaded_charset: Charset
) -> tuple[PyTree, list[str], list[str]]:
    """`fresh` with the weights of `loaded`, for fine-tuning, another charset, or a model with layers added.

    A residual layer starts as the identity (`crnn_jax.stacks`), so a model that has only gained such layers at first
    computes what the loaded one does (Chen et al. 2016, "Net2Net", section 2.3), and one that has gained a transformer
    nearly so. In the head, the blank and the characters that both charsets have keep their weights; a letter known
    only in its other case starts with that one's, and the two are equally likely until training tells them apart.

    Args:
        fresh: params and batch_stats of the model that is to start, as NumPy or JAX arrays.
        loaded: those of the other model.
        charset, loaded_charset: of the two models.

    Returns:
        The variables as NumPy arrays; the layers that are new; and those of `loaded` that were not taken.
    """
    fresh, loaded = ({path: np.asarray(leaf) for path, leaf in flatten_dict(tree).items()} for tree in (fresh, loaded))
    for path in fresh.keys() & loaded.keys():
        if path[:2] == ("params", "head") and loaded_charset != charset:
            loaded[path] = _same_characters(fresh[path], loaded[path], charset, loaded_charset)
    taken = {path for path in fresh if path in loaded and loaded[path].shape == fresh[path].shape}
    merged = {path: loaded[path] if path in taken else value for path, value in fresh.items()}
    new, lost = _layers(fresh.keys() - taken), _layers(loaded.keys() - taken)
    return unflatten_dict(merged), new, lost


def _same_characters(fresh: np.ndarray, loaded: np.ndarray, charset: Charset, loaded_charset: Charset) -> np.ndarray:
    """The head's kernel `D K` or bias `K`: the columns of known characters from `loaded`, the others from `fresh`."""
    if fresh.shape[:-1] != loaded.shape[:-1]:
        return loaded  # of another width: it does not fit, which is reported
    result = np.array(fresh)
    result[..., 0] = loaded[..., 0]
    for here, character in enumerate(charset.characters, start=1):
        if known := _known(character, loaded_charset):
            (there,) = loaded_charset.encode(known)
            result[..., here] = loaded[..., there]
    return result


def _known(character: str, charset: Charset) -> str:
    """The character as a charset has it: itself, or in its other case; empty if it has neither."""
    return next((c for c in (character, character.swapcase()) if c in set(charset.characters)), "")


def _layers(paths) -> list[str]:
    """The layers of leaves such as ("params", "block2", "Conv_1", "kernel"), each once: "block2/Conv_1"."""
    return sorted({"/".join(path[1:-1]) for path in paths})
