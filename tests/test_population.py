"""A population gives what its networks give when trained one by one: seeds and numbers only share a program."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import toy_config, toy_source, toy_words

from crnn_jax.config import ConfigError, StnConfig, override
from crnn_jax.ctc import greedy_decode
from crnn_jax.synth.batch import Batch
from crnn_jax.training import population as populations
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.population import init_population, make_eval, make_train, make_transform, same_program
from crnn_jax.training.state import create_state, variables
from crnn_jax.training.step import train_step

CONFIG = toy_config()
CONFIG = replace(
    CONFIG,
    model=replace(CONFIG.model, stn=StnConfig(kind="affine", oversample=1, features=(4,), start="disturbed")),
    optimizer=replace(CONFIG.optimizer, learning_rate=0.003),
)
SOURCE = toy_source(CONFIG)
SEEDS = [3, 5]


@jax.jit
def words(key, source):
    return toy_words(key, source, batch_size=8, config=CONFIG)


def variants(*changes):
    return [override(CONFIG, change.split()) for change in changes]


@pytest.fixture(scope="module")
def trained():
    """Settings x seeds after two dispatches of two steps, with what they measured; and their configs."""
    configs = variants(
        "model.stn.feature_gain=0.1 optimizer.localisation_factor=0",
        "model.stn.feature_gain=1 optimizer.localisation_factor=1",
        "model.stn.disturbance=0 model.stn.bypass=0.5",
    )
    train = make_train(configs, SEEDS, words, length=2)
    population, first = train(init_population(configs, SEEDS), SOURCE)
    population, second = train(population, SOURCE)
    return configs, population, jax.tree.map(lambda *x: np.concatenate(x), first, second)


def test_every_network_is_the_one_that_is_trained_alone(trained):
    configs, population, metrics = trained
    for i, j in ((1, 0), (2, 1)):
        model = populations.build(configs[i].model)
        tx = make_optimizer(configs[i].optimizer, CONFIG.run.steps)
        init_key, run_key = jax.random.split(jax.random.key(SEEDS[j]))
        state = create_state(init_key, model, tx, configs[i].model)
        step = jax.jit(partial(train_step, model=model, tx=tx, ema_decay=CONFIG.optimizer.ema_decay))
        for number in range(4):
            batch_key, step_key = jax.random.split(jax.random.fold_in(run_key, number))
            state, alone = step(state, words(batch_key, SOURCE), step_key)
            # Adam's first steps have the size of the learning rate, however small the gradient whose sign they take.
            np.testing.assert_allclose(metrics["loss"][number, i, j], alone["loss"], rtol=0.02 if number else 1e-5)
        of_network = jax.tree.map(lambda leaf, i=i, j=j: leaf[i, j], population)
        assert int(of_network.step) == 4
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=0.02), of_network.batch_stats, state.batch_stats
        )


def test_numbers_and_seeds_reach_their_networks(trained):
    _, population, metrics = trained
    last = population.params["stn"]["localisation"]["last"]
    start = np.array([1, 0, 0, -0.1, 0.9, 0], np.float32)
    np.testing.assert_array_equal(last["bias"][0], np.stack([start] * 2))  # a factor of 0 leaves the net as it was
    assert np.abs(last["bias"][1] - start[None]).max() > 1e-3
    assert np.abs(last["bias"][2] - np.array([1, 0, 0, 0, 1, 0], np.float32)[None]).max() < 0.05
    assert len(np.unique(metrics["loss"][0])) > len(SEEDS)
    assert metrics["stn_deviation"].shape == (4, 3, 2)


def test_what_each_network_does_to_a_batch(trained):
    configs, population, _ = trained
    parameters = make_transform(configs, words)(population, SOURCE, jax.random.key(0))
    assert parameters.shape == (3, 2, 8, 6)
    network = jax.tree.map(lambda leaf: leaf[1, 1], population)
    images = words(jax.random.key(0), SOURCE).image
    transform = jax.jit(partial(populations.build(configs[1].model).apply, method="transform"))
    _, alone = transform(variables(network), images)
    np.testing.assert_allclose(parameters[1, 1], alone, atol=1e-4)
    assert np.ptp(parameters[0], axis=1).max() == 0  # its localisation net has not learnt


def test_what_each_network_reads_of_a_batch(trained):
    configs, population, _ = trained
    evaluate = make_eval(configs, words)
    right = np.asarray(evaluate(population, SOURCE, jax.random.key(0)))
    assert right.shape == (3, 2, 8) and right.mean() < 0.1  # hardly trained
    # A head with the same output at every frame reads one character: right if that is the word.
    head = jax.tree.map(jnp.zeros_like, population.params["head"])
    head["bias"] = head["bias"].at[..., 4].set(1.0)
    params = population.params | {"head": head}
    right = evaluate(population.replace(ema_params=params), SOURCE, jax.random.key(0))
    batch = words(jax.random.key(0), SOURCE)
    expected = (batch.label_length == 1) & (batch.label[:, 0] == 4)
    np.testing.assert_array_equal(right, np.broadcast_to(expected, right.shape))


def test_each_network_reads_with_its_own_gain(trained):
    """The gain is not a weight, but what a network reads depends on it."""
    configs = trained[0]
    population, key, rng = init_population(configs, SEEDS), jax.random.key(0), np.random.default_rng(0)

    def noisy(path, leaf):  # reads something else wherever it looks, and looks elsewhere with another gain
        loud = [entry.key for entry in path][-2:] in (["head", "kernel"], ["last", "kernel"])
        return jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) if loud else leaf

    population = population.replace(ema_params=jax.tree_util.tree_map_with_path(noisy, population.ema_params))
    network = jax.tree.map(lambda leaf: leaf[1, 0], population)
    images = words(key, SOURCE).image
    logits = jax.jit(populations.build(configs[1].model).apply)(variables(network), images)
    ids, lengths, _ = jax.jit(jax.vmap(greedy_decode))(logits)
    assert np.all(lengths > 0)

    def read_words(key, source):
        return Batch(images, ids, lengths)

    assert make_eval(configs, read_words)(population, SOURCE, key)[1, 0].all()
    others_gain = [configs[1], configs[0], configs[2]]
    assert not make_eval(others_gain, read_words)(population, SOURCE, key)[1, 0].any()


def test_one_program_trains_what_differs_in_numbers_alone():
    one, other, third = variants("model.stn.bypass=0.25", "model.stn.disturbance=0.2", "model.stn.kind=tps")
    assert same_program(one, other) and not same_program(one, third)
    with pytest.raises(ConfigError, match="differ in model.stn.kind: they may differ only in model.stn.bypass, "):
        init_population([one, third], SEEDS)
