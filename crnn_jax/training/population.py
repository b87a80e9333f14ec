"""Many small networks trained at once, by one program: vmap over seeds, and over every setting that is a number.

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

from crnn_jax.charset import Charset
from crnn_jax.config import Config, ConfigError
from crnn_jax.model import build
from crnn_jax.section import differences
from crnn_jax.synth.batch import Batch
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.state import TrainState, create_state, variables
from crnn_jax.training.step import eval_step, same_text, train_step
from crnn_jax.training.transfer import transfer

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
    """The networks at step 0, a row a config. Raises ConfigError for configs that differ in more than NUMBERS."""
    others = [name for config in configs for name in differences(configs[0], config) if name not in NUMBERS]
    if others:
        raise ConfigError(f"one program cannot train configs that differ in {others[0]}: only in {', '.join(NUMBERS)}")
    keys = jnp.stack([_keys(seed)[0] for seed in seeds])

    def row(config: Config) -> TrainState:
        model, tx = build(config.model), make_optimizer(config.optimizer, config.run.steps)
        return jax.jit(jax.vmap(lambda key: create_state(key, model, tx, config.model)))(keys)

    return jax.tree.map(lambda *rows: jnp.stack(rows), *[row(config) for config in configs])


def with_weights(population: TrainState, config: Config, loaded: PyTree, loaded_config: Config) -> TrainState:
    """All networks with the weights of one model (`training.transfer`); what that lacks stays as it was drawn.

    Args:
        population: at step 0.
        config: of any of its networks.
        loaded, loaded_config: as `load_variables` gives them.

    Raises ConfigError where layers of that model have no place in these networks.
    """
    charsets = {"charset": Charset.of(config.model.charset), "loaded_charset": Charset.of(loaded_config.model.charset)}
    settings, seeds = population.step.shape

    def one(i: int, j: int) -> TrainState:
        state = jax.tree.map(lambda leaf: leaf[i, j], population)
        taken, _, lost = transfer(variables(state), loaded, **charsets)
        if lost:
            raise ConfigError(f"these networks have no place for layers of that model: {', '.join(lost[:4])}")
        return state.replace(params=taken["params"], ema_params=taken["params"], batch_stats=taken["batch_stats"])

    rows = [[one(i, j) for j in range(seeds)] for i in range(settings)]
    columns = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *row) for row in rows]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *columns)


def make_train(
    configs: Sequence[Config], seeds: Sequence[int], make_batch: MakeBatch, *, length: int
) -> Callable[[TrainState, PyTree], tuple[TrainState, dict[str, Array]]]:
    """The compiled `(population, source) -> (population, metrics[length, settings, seeds])`: `length` steps of all.

    Args:
        configs: of the rows, see `init_population`.
        seeds: of the columns: they draw the weights and the words.
        make_batch: draws the words of one seed's step.
        length: steps a dispatch.
    """
    run_keys = jnp.stack([_keys(seed)[1] for seed in seeds])
    numbers = {
        "bypass": jnp.array([config.model.stn.bypass for config in configs]),
        "gain": jnp.array([config.model.stn.feature_gain for config in configs]),
        "localisation_factor": jnp.array([config.optimizer.localisation_factor for config in configs]),
    }
    # Compiled once for all populations of a kind and size: their numbers and keys are arguments.
    program = _train_program(_without_numbers(configs[0]), make_batch, length)
    return lambda population, source: program(population, source, run_keys, numbers)


@lru_cache
def _train_program(config: Config, make_batch: MakeBatch, length: int):
    model = build(config.model)

    def one(state: TrainState, batch: Batch, key: Array, numbers: dict[str, Float[Array, ""]]):
        factor = numbers["localisation_factor"]
        tx = make_optimizer(config.optimizer, config.run.steps, localisation_factor=factor)
        stn = {"bypass": numbers["bypass"], "localisation": {"gain": numbers["gain"]}}
        decay = config.optimizer.ema_decay
        return train_step(state, batch, key, model=model, tx=tx, ema_decay=decay, settings={"stn": stn})

    all_seeds = jax.vmap(one, in_axes=(0, 0, 0, None))
    all_settings = jax.vmap(all_seeds, in_axes=(0, None, None, 0))  # a seed's words are rendered once for all of them

    def run(population: TrainState, source: PyTree, run_keys: Array, numbers: dict[str, Array]):
        def body(population, _):
            step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(run_keys, population.step[0, 0])
            batch_keys, step_keys = jnp.moveaxis(jax.vmap(jax.random.split)(step_keys), 1, 0)
            # A seed's after another's: rendering maps over a batch in its own way (`synth.render`).
            batches = lax.map(lambda key: make_batch(key, source), batch_keys)
            return all_settings(population, batches, step_keys, numbers)

        return lax.scan(body, population, length=length)

    return jax.jit(run, donate_argnums=0)


@lru_cache
def make_eval(
    config: Config, make_batch: MakeBatch
) -> Callable[[TrainState, PyTree, Array], Bool[Array, "settings seeds B"]]:
    """The compiled `(population, source, key) -> right`: which words of one batch each network reads right."""
    model = build(config.model)

    def one(state: TrainState, batch: Batch):
        ids = eval_step(variables(state), batch, model=model)[1]["ids"]
        return same_text(ids, jnp.sum(ids > 0, axis=1), batch.label, batch.label_length)

    def run(population: TrainState, source: PyTree, key: Array):
        batch = make_batch(key, source)
        return jax.vmap(jax.vmap(one, in_axes=(0, None)), in_axes=(0, None))(population, batch)

    return jax.jit(run)


def _without_numbers(config: Config) -> Config:
    """The config with defaults for NUMBERS: the same for all that one program can train."""
    stn = replace(config.model.stn, bypass=0.0, disturbance=0.0, feature_gain=1.0)
    return replace(
        config,
        model=replace(config.model, stn=stn),
        optimizer=replace(config.optimizer, localisation_factor=1.0),
    )


def _keys(seed: int) -> Array:
    """Of the weights and of the words, as in a run of that seed (`training.loop`)."""
    return jax.random.split(jax.random.key(seed))
