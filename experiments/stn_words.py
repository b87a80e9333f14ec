"""The words of stn_study.py: what its networks are trained on, and what they read in the end."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from configs.stn_study import CURVED, STRAIGHT

from crnn_jax.config import Config, ConfigError
from crnn_jax.data.dataset import share_words
from crnn_jax.data.real import load_validation, take
from crnn_jax.data.sample import DatasetError
from crnn_jax.evaluation import name_of
from crnn_jax.stn import spread
from crnn_jax.synth.batch import Batch, Source, synth_batch
from crnn_jax.synth.style import Style
from crnn_jax.training.population import make_eval, make_transform
from crnn_jax.training.state import TrainState

HELD_OUT_SEED = 1_000_003  # the results in experiments/studies were measured on its words
HELD_OUT_BATCH = 128  # words of each kind
KINDS = {
    "straight": STRAIGHT,
    "rotated": replace(STRAIGHT, turn=45.0),
    "perspective": replace(STRAIGHT, tilt_std=0.003),
    "curved": CURVED,
}

MakeBatch = Callable[[jax.Array, Source], Batch]
Measured = dict[str, np.ndarray]  # by name, for every network: `[settings, seeds]`


def make_words(config: Config, kinds: dict[str, Style], size: int, *, held_out: bool = False) -> MakeBatch:
    """A function that draws batches of `size` words, the same number of each kind, one kind after the other.

    Held-out words and their fonts are the same in all kinds.
    """
    if size % (4 * len(kinds)):
        raise ConfigError(
            f"run.batch_size = {size}: expected a multiple of {4 * len(kinds)}, for a multiple of 4 of each kind"
        )
    styled = [replace(config, data=replace(config.data, style=style)) for style in kinds.values()]

    def draw(key, source):
        batch_keys = [key if held_out else jax.random.fold_in(key, i) for i in range(len(kinds))]
        parts = [
            synth_batch(key, source, batch_size=size // len(kinds), config=of_kind, held_out=held_out)
            for key, of_kind in zip(batch_keys, styled, strict=True)
        ]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

    return draw


def read_held_out(
    configs: list[Config], population: TrainState, source: Source, draw: MakeBatch, kinds: list[str], count: int
) -> Measured:
    """Word accuracy in per cent on `count` held-out words of each kind."""
    evaluate = make_eval(configs, draw)
    keys = [jax.random.fold_in(jax.random.key(HELD_OUT_SEED), i) for i in range(count // HELD_OUT_BATCH)]
    right = np.stack([np.asarray(evaluate(population, source, key)) for key in keys])
    right = right.reshape(*right.shape[:3], len(kinds), HELD_OUT_BATCH)
    return {kind: 100 * right[:, :, :, i].mean(axis=(0, 3)) for i, kind in enumerate(kinds)}


def load_datasets(paths: Sequence[str], config: Config, *, taken: Sequence[str] = ()) -> dict[str, Batch]:
    """Labelled words that fit the networks, by the names of their datasets, none of which is in `taken`.

    Prints what was kept of each.

    Raises DatasetError.
    """
    datasets = {}
    for i, path in enumerate(paths):
        if share_words(path, paths[:i]):
            raise DatasetError(f"{path}: given twice")
        whole = replace(config, data=replace(config.data, validation=(path,), held_out_words=10**9))
        name = name_of(path, {*datasets, *taken})
        datasets[name], report = load_validation(whole)
        print(f"{name}: {report}", flush=True)
    return datasets


def read_datasets(configs: list[Config], population: TrainState, datasets: dict[str, Batch]) -> Measured:
    """Word accuracy in per cent on labelled words."""
    evaluate, measured = make_eval(configs, partial(take, size=HELD_OUT_BATCH)), {}
    for name, words in datasets.items():
        count = words.label.shape[0]
        starts = range(0, count, HELD_OUT_BATCH)
        right = [np.asarray(evaluate(population, words, jnp.array(start))) for start in starts]
        measured[name] = 100 * np.concatenate(right, axis=-1)[..., :count].mean(axis=-1)
    return measured


def look(configs: list[Config], population: TrainState, source: Source, draw: MakeBatch, kinds: list[str]) -> Measured:
    """How differently each STN transforms held-out words of one kind (`stn.spread`), averaged over the kinds."""
    kind = configs[0].model.stn.kind
    if kind == "none":
        return {}
    parameters = make_transform(configs, draw)(population, source, jax.random.key(HELD_OUT_SEED))
    parameters = parameters.reshape(*parameters.shape[:2], len(kinds), HELD_OUT_BATCH, -1)
    of_kind = partial(spread, kind=kind)
    return {"stn_spread": np.asarray(jax.vmap(jax.vmap(jax.vmap(of_kind)))(parameters).mean(axis=-1))}
