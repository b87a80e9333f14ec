"""Many small networks trained at once by one program: vmap over seeds, and over settings that are numbers.

A population is a grid of networks of one architecture, settings x seeds: the leaves of its `TrainState`, and all its
metrics, begin with these two axes. The networks of one seed see the same words at every step and are initialised
alike, whatever their settings. All of it lives on one device.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

from crnn_jax.config import Config, ConfigError
from crnn_jax.model import CRNN, build
from crnn_jax.section import differences
from crnn_jax.synth.batch import Batch
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.state import TrainState, create_state, variables
from crnn_jax.training.step import eval_step, same_text, train_step
from crnn_jax.training.transfer import with_weights

# What the configs of one population may differ in.
NUMBERS = (
    "model.stn.bypass",
    "model.stn.disturbance",
    "model.stn.feature_gain",
    "optimizer.localisation_factor",
)

MakeBatch = Callable[[Array, PyTree], Batch]  # (key, source) -> words; hashable


def same_program(one: Config, other: Config) -> bool:
    """Whether two configs differ in nothing but NUMBERS, so that one program can train both."""
    return all(name in NUMBERS for name in differences(one, other))


def init_population(configs: Sequence[Config], seeds: Sequence[int]) -> TrainState:
    """The networks at step 0, a row per config. Raises ConfigError for configs that differ in more than NUMBERS."""
    others = [name for config in configs for name in differences(configs[0], config) if name not in NUMBERS]
    if others:
        raise ConfigError(
            f"one program cannot train configs that differ in {others[0]}: they may differ only in {', '.join(NUMBERS)}"
        )
    keys = jnp.stack([_keys(seed)[0] for seed in seeds])
    return _stack([_init_program(config)(keys) for config in configs])


@lru_cache
def _init_program(config: Config):
    model, tx = build(config.model), make_optimizer(config.optimizer, config.run.steps)
    return jax.jit(jax.vmap(lambda key: create_state(key, model, tx, config.model)))


def start_from(
    population: TrainState, config: Config, saved: tuple[Config, PyTree], *, name: str
) -> tuple[TrainState, str]:
    """All networks with the weights of one model (what it lacks stays as initialised), and a note: `with_weights`."""
    settings, seeds = population.step.shape

    def one(i: int, j: int) -> tuple[TrainState, str]:
        return with_weights(jax.tree.map(lambda leaf: leaf[i, j], population), config, saved, name=name)

    rows = [[one(i, j) for j in range(seeds)] for i in range(settings)]
    return _stack([_stack([state for state, _ in row]) for row in rows]), rows[0][0][1]


def make_train(
    configs: Sequence[Config], seeds: Sequence[int], make_batch: MakeBatch, *, length: int
) -> Callable[[TrainState, PyTree], tuple[TrainState, dict[str, Array]]]:
    """The compiled `(population, source) -> (population, metrics[length, settings, seeds])`: `length` steps of all.

    Args:
        configs: of the rows, see `init_population`.
        seeds: of the columns: the weights and the words are drawn from them.
        make_batch: draws the words of one seed's step.
        length: steps per dispatch.
    """
    run_keys = jnp.stack([_keys(seed)[1] for seed in seeds])
    # Compiled once for all populations of a kind and size: their numbers and keys are arguments.
    program, settings = _train_program(_without_numbers(configs[0]), make_batch, length), _settings(configs)
    factors = jnp.array([config.optimizer.localisation_factor for config in configs])
    return lambda population, source: program(population, source, run_keys, settings, factors)


@lru_cache
def _train_program(config: Config, make_batch: MakeBatch, length: int):
    model = build(config.model)

    def one(state: TrainState, batch: Batch, key: Array, settings: PyTree, factor: Float[Array, ""]):
        tx = make_optimizer(config.optimizer, config.run.steps, localisation_factor=factor)
        decay = config.optimizer.ema_decay
        return train_step(state, batch, key, model=model, tx=tx, ema_decay=decay, settings=settings)

    all_seeds = jax.vmap(one, in_axes=(0, 0, 0, None, None))
    all_settings = jax.vmap(all_seeds, in_axes=(0, None, None, 0, 0))  # all settings share a seed's words

    def run(population: TrainState, source: PyTree, run_keys: Array, settings: PyTree, factors: Array):
        def body(population, _):
            step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(run_keys, population.step[0, 0])
            batch_keys, step_keys = jnp.moveaxis(jax.vmap(jax.random.split)(step_keys), 1, 0)
            # One seed after another: rendering has its own way of mapping over a batch (`synth.render`).
            batches = lax.map(lambda key: make_batch(key, source), batch_keys)
            return all_settings(population, batches, step_keys, settings, factors)

        return lax.scan(body, population, length=length)

    return jax.jit(run, donate_argnums=0)


def make_eval(
    configs: Sequence[Config], make_batch: MakeBatch
) -> Callable[[TrainState, PyTree, Array], Bool[Array, "settings seeds B"]]:
    """The compiled `(population, source, key) -> right`: which words of one batch each network reads right."""
    return _of_all(_read_right, configs, make_batch)


def make_transform(
    configs: Sequence[Config], make_batch: MakeBatch
) -> Callable[[TrainState, PyTree, Array], Float[Array, "settings seeds B P"]]:
    """The compiled `(population, source, key) -> parameters` of what each network's STN does to one batch."""
    return _of_all(_transform, configs, make_batch)


def _read_right(model: CRNN, variables: PyTree, batch: Batch) -> Bool[Array, " B"]:
    ids = eval_step(variables, batch, model=model)[1]["ids"]
    return same_text(ids, jnp.sum(ids > 0, axis=1), batch.label, batch.label_length)


def _transform(model: CRNN, variables: PyTree, batch: Batch) -> Float[Array, "B P"]:
    return model.apply(variables, batch.image, method="transform")[1]


def _of_all(one: Callable, configs: Sequence[Config], make_batch: MakeBatch) -> Callable:
    """`one(model, variables, batch)` for all networks, on the same batch."""
    program, settings = _batch_program(one, _without_numbers(configs[0]), make_batch), _settings(configs)
    return lambda population, source, key: program(population, source, key, settings)


@lru_cache
def _batch_program(one: Callable, config: Config, make_batch: MakeBatch):
    model = build(config.model)

    def run(population: TrainState, source: PyTree, key: Array, settings: PyTree):
        batch = make_batch(key, source)
        all_seeds = jax.vmap(lambda s, own: one(model, variables(s) | {"settings": own}, batch), in_axes=(0, None))
        return jax.vmap(all_seeds)(population, settings)

    return jax.jit(run)


def _settings(configs: Sequence[Config]) -> PyTree:
    """The numbers that the model itself takes (`stn.SpatialTransformer`), one per row."""
    bypass, gain = (jnp.array([getattr(c.model.stn, name) for c in configs]) for name in ("bypass", "feature_gain"))
    return {"stn": {"bypass": bypass, "localisation": {"gain": gain}}}


def _stack(states: Sequence[TrainState]) -> TrainState:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def _without_numbers(config: Config) -> Config:
    """The config with NUMBERS set to fixed values: the same for all configs that one program can train."""
    stn = replace(config.model.stn, bypass=0.0, disturbance=0.0, feature_gain=1.0)
    return replace(
        config,
        model=replace(config.model, stn=stn),
        optimizer=replace(config.optimizer, localisation_factor=1.0),
    )


def _keys(seed: int) -> Array:
    """The keys of the weights and of the words, as in a run of that seed (`training.loop`)."""
    return jax.random.split(jax.random.key(seed))
