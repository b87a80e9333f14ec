"""Many small networks trained at once, by one program: vmap over seeds, and over every setting that is a number.

A population is a grid of networks of one architecture, settings x seeds: the leaves of its `TrainState`, and all its
metrics, begin with these two axes. The networks of one seed see the same words at every step, and are initialised
alike, whatever their settings.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from crnn_jax.config import Config, ConfigError
from crnn_jax.model import build
from crnn_jax.section import differences
from crnn_jax.synth.batch import Batch
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.state import TrainState, create_state, variables
from crnn_jax.training.step import eval_step, train_step

NUMBERS = (
    "model.stn.bypass",
    "model.stn.disturbance",
    "model.stn.feature_gain",
    "optimizer.localisation_factor",
)  # what the configs of one population may differ in

# make_batch(key, source) -> Batch
MakeBatch = Callable[[Array, PyTree], Batch]


def same_program(one: Config, other: Config) -> bool:
    """Whether two configs differ in nothing but NUMBERS, and can be trained by one program."""
    return all(name in NUMBERS for name in differences(one, other))


def init_population(configs: Sequence[Config], seeds: Sequence[int]) -> TrainState:
    """The networks at step 0. Raises ConfigError for configs that differ in more than NUMBERS."""
    others = [name for config in configs for name in differences(configs[0], config) if name not in NUMBERS]
    if others:
        raise ConfigError(f"one program cannot train configs that differ in {others[0]}: in {', '.join(NUMBERS)} alone")
    keys = jnp.stack([_keys(seed)[0] for seed in seeds])

    def of(config: Config) -> TrainState:
        model, tx = build(config.model), make_optimizer(config.optimizer, config.run.steps)
        return jax.jit(jax.vmap(lambda key: create_state(key, model, tx, config.model)))(keys)

    return jax.tree.map(lambda *rows: jnp.stack(rows), *[of(config) for config in configs])


def make_train(
    configs: Sequence[Config], seeds: Sequence[int], make_batch: MakeBatch, *, length: int
) -> Callable[[TrainState, PyTree], tuple[TrainState, dict[str, Array]]]:
    """The compiled `(population, source) -> (population, metrics[length, settings, seeds])`: `length` steps of all.

    Args:
        configs: a row of the population each, see `init_population`.
        seeds: a column each: of the weights and of the words.
        make_batch: the words of one seed's step.
        length: steps a dispatch.
    """
    config = configs[0]
    model = build(config.model)
    run_keys = jnp.stack([_keys(seed)[1] for seed in seeds])
    numbers = {
        "bypass": jnp.array([c.model.stn.bypass for c in configs]),
        "gain": jnp.array([c.model.stn.feature_gain for c in configs]),
        "localisation_factor": jnp.array([c.optimizer.localisation_factor for c in configs]),
    }

    def one(state: TrainState, batch: Batch, key: Array, numbers: dict[str, Float[Array, ""]]):
        factor = numbers["localisation_factor"]
        tx = make_optimizer(config.optimizer, config.run.steps, localisation_factor=factor)
        settings = {"stn": {"bypass": numbers["bypass"], "localisation": {"gain": numbers["gain"]}}}
        return train_step(
            state, batch, key, model=model, tx=tx, ema_decay=config.optimizer.ema_decay, settings=settings
        )

    all_seeds = jax.vmap(one, in_axes=(0, 0, 0, None))
    all_settings = jax.vmap(all_seeds, in_axes=(0, None, None, 0))  # words are rendered once a seed

    def run(population: TrainState, source: PyTree):
        def body(population, _):
            step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(run_keys, population.step[0, 0])
            batch_keys, step_keys = jnp.moveaxis(jax.vmap(jax.random.split)(step_keys), 1, 0)
            # One seed after the other: a batch is small work, and rendering has its own ways over a batch.
            batches = lax.map(lambda key: make_batch(key, source), batch_keys)
            return all_settings(population, batches, step_keys, numbers)

        return lax.scan(body, population, length=length)

    return jax.jit(run, donate_argnums=0)


def make_eval(config: Config, make_batch: MakeBatch) -> Callable[[TrainState, PyTree, Array], dict[str, Array]]:
    """The compiled `(population, source, key) -> sums[settings, seeds]`: what all read of one batch (`eval_step`)."""
    model = build(config.model)

    def one(state: TrainState, batch: Batch):
        return eval_step(variables(state), batch, model=model)[0]

    def run(population: TrainState, source: PyTree, key: Array):
        batch = make_batch(key, source)
        return jax.vmap(jax.vmap(one, in_axes=(0, None)), in_axes=(0, None))(population, batch)

    return jax.jit(run)


def member(population: TrainState, setting: int, seed: int) -> TrainState:
    """One network of a population, by its row and column."""
    return jax.tree.map(lambda leaf: leaf[setting, seed], population)


def with_numbers(config: Config, like: Config) -> Config:
    """`config` with the NUMBERS of another: equal for all configs of one program."""
    stn = replace(
        config.model.stn,
        bypass=like.model.stn.bypass,
        disturbance=like.model.stn.disturbance,
        feature_gain=like.model.stn.feature_gain,
    )
    factor = like.optimizer.localisation_factor
    return replace(
        config,
        model=replace(config.model, stn=stn),
        optimizer=replace(config.optimizer, localisation_factor=factor),
    )


def _keys(seed: int) -> Array:
    """Of the initialisation and of the words, as in a run of that seed (`training.loop`)."""
    return jax.random.split(jax.random.key(seed))
