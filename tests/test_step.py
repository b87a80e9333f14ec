"""The training step on toy words: its numbers, its labels that do not fit, and its devices."""

import functools
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import ToyNet, toy_config, toy_source, toy_words

from crnn_jax.config import ModelConfig, OptimizerConfig, StnConfig
from crnn_jax.ctc import ctc_loss
from crnn_jax.model import build
from crnn_jax.training import parallel
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.state import create_state, variables
from crnn_jax.training.step import eval_step, mean_metrics, same_text, train_step

CONFIG = toy_config()
CRNN_CONFIG = ModelConfig(charset="0123456789", width=40, lstm_features=8, stn=StnConfig("affine", features=(4, 4)))


@functools.cache
def words(seed: int, size: int):
    make = jax.jit(partial(toy_words, batch_size=size, config=CONFIG))
    return make(jax.random.key(seed), toy_source(CONFIG))


def make(model, model_config=CONFIG.model, *, optimizer: OptimizerConfig = CONFIG.optimizer, steps: int = 100):
    tx = make_optimizer(optimizer, steps)
    return create_state(jax.random.key(0), model, tx, model_config), tx


@functools.cache
def toy(weight_decay: float = 1e-4, ema_decay: float = 0.75):
    """The toy network's first state, and its compiled step."""
    model = ToyNet()
    state, tx = make(model, optimizer=OptimizerConfig(warmup_steps=4, weight_decay=weight_decay))
    return state, jax.jit(partial(train_step, model=model, tx=tx, ema_decay=ema_decay))


def raw(state):
    """What the model takes, with the parameters as they are, not averaged."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def with_infeasible(batch, rows):
    """Labels of eight equal characters, which ten frames cannot spell."""
    label = jnp.pad(batch.label, ((0, 0), (0, 5)))
    label = label.at[rows].set(jnp.ones(8, jnp.int32)[None])
    return batch._replace(label=label, label_length=batch.label_length.at[rows].set(8))


GOLDEN = (
    {
        "step": 1,
        "loss": 18.114626,
        "accuracy": 0,
        "infeasible": 1,
        "gradient_norm": 118.366333,
        "parameter_norm": 42.59465,
        "update_norm": 0.432836,
        "stn_deviation": 0,
        "stn_outside": 0,
        "stn_contrast": 0.926821,
        "non_finite": 0,
    },
    {
        "step": 2,
        "loss": 16.132593,
        "accuracy": 0,
        "infeasible": 1,
        "gradient_norm": 146.495316,
        "parameter_norm": 42.605457,
        "update_norm": 0.67324,
        "stn_deviation": 0.00447493,
        "stn_outside": 0,
        "stn_contrast": 0.91963,
        "non_finite": 0,
    },
)


def test_golden_of_the_first_two_steps():
    """Every metric of two steps of the real network. A change here is a change of what is trained: be sure that it is
    meant, say so in the commit, and put the printed numbers in."""
    model = build(CRNN_CONFIG)
    state, tx = make(model, CRNN_CONFIG)
    batch = with_infeasible(words(1, 8), jnp.array([3]))
    step = jax.jit(partial(train_step, model=model, tx=tx, ema_decay=0.999))
    for golden in GOLDEN:
        state, metrics = step(state, batch, jax.random.key(2))
        got = {name: float(value) for name, value in metrics.items()}
        assert got == pytest.approx(golden, rel=1e-3), json.dumps(got)


def test_loss_is_the_mean_over_feasible_labels():
    state, step = toy()
    batch = with_infeasible(words(1, 8), jnp.array([0, 5, 6]))
    _, metrics = step(state, batch, jax.random.key(0))
    logits, _ = ToyNet().apply(raw(state), batch.image, train=True, mutable=["batch_stats"])
    losses, feasible = ctc_loss(logits, batch.label, batch.label_length)
    assert metrics["infeasible"] == 3
    assert metrics["loss"] == pytest.approx(float(losses[feasible].mean()), rel=1e-6)


def test_a_batch_without_a_feasible_label_moves_nothing():
    state, step = toy(weight_decay=0.0)
    batch = with_infeasible(words(1, 8), jnp.arange(8))
    after, metrics = step(state, batch, jax.random.key(0))
    assert metrics["infeasible"] == 8 and metrics["loss"] == 0 and metrics["gradient_norm"] == 0
    assert not metrics["non_finite"]
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_average_follows_the_parameters():
    state, step = toy()
    # Late in a run its decay is the limit, at the first step 1 / 10; with a limit of 0 it is the parameters.
    for steps, decay in ((1000, 0.75), (0, 0.1)):
        after, _ = step(state.replace(step=jnp.int32(steps)), words(1, 8), jax.random.key(0))
        expected = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * new, state.ema_params, after.params)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), after.ema_params, expected)
    _, step = toy(ema_decay=0.0)
    after, _ = step(state, words(1, 8), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, after.ema_params, after.params)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_non_finite_is_flagged(bad):
    state, step = toy()
    state = state.replace(params=jax.tree.map(lambda x: x.at[0].set(bad), state.params))
    _, metrics = step(state, words(1, 8), jax.random.key(0))
    assert metrics["non_finite"]


@pytest.mark.parametrize("network", ["toy", "crnn"])
def test_eight_devices_give_what_one_gives(network):
    """Also where the devices' feasible labels are unequal in number, and one device has none."""
    config = CONFIG.model if network == "toy" else CRNN_CONFIG
    # Plain gradient descent: Adam would amplify gradients that are nothing but rounding.
    sgd = OptimizerConfig(name="sgd", learning_rate=0.1, momentum=0.0, warmup_steps=0, clip_norm=0)
    batch = with_infeasible(words(1, 32), jnp.array([0, 1, 2, 3, 9, 17, 18]))
    results = []
    for axis_name in (None, parallel.AXIS):
        model = ToyNet(axis_name=axis_name) if network == "toy" else build(config, axis_name=axis_name)
        state, tx = make(model, config, optimizer=sgd)
        step = partial(train_step, model=model, tx=tx, ema_decay=0.9, axis_name=axis_name)
        if axis_name is None:
            results.append(jax.jit(step)(state, batch, jax.random.key(0)))
        else:
            split = jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), batch)
            spread = jax.pmap(step, axis_name, in_axes=(None, 0, None), out_axes=None)
            results.append(spread(state, split, jax.random.key(0)))
    (one, one_metrics), (eight, eight_metrics) = results
    assert one_metrics["infeasible"] == eight_metrics["infeasible"] == 7
    for name, value in one_metrics.items():
        np.testing.assert_allclose(eight_metrics[name], value, rtol=1e-4, err_msg=name)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, eight.params, one.params)
    jax.tree.map(close, eight.batch_stats, one.batch_stats)


def test_sums_of_masked_parts_are_those_of_the_whole():
    state, _ = toy()
    batch = with_infeasible(words(1, 16), jnp.array([2, 13]))
    evaluate = jax.jit(partial(eval_step, model=ToyNet()))
    whole, readings = evaluate(variables(state), batch)
    masks = jnp.arange(16) < 6, jnp.arange(16) >= 6
    parts = [evaluate(variables(state), batch, mask=mask)[0] for mask in masks]
    for name, value in whole.items():
        assert parts[0][name] + parts[1][name] == pytest.approx(float(value), rel=1e-5), name
    assert whole["count"] == 16 and parts[0]["count"] == 6 and whole["infeasible"] == 2
    assert readings["ids"].shape == (16, 10) and readings["confidence"].shape == (16,)


def test_mean_metrics():
    sums = {"count": 8.0, "correct": 6.0, "loss": 12.0, "infeasible": 2.0, "confidence": 4.0}
    assert mean_metrics(sums) == {"count": 8.0, "word_accuracy": 75.0, "loss": 2.0, "confidence": 0.5}


def test_an_evaluation_has_the_numbers_of_the_transformer():
    model = build(CRNN_CONFIG)
    state, _ = make(model, CRNN_CONFIG)
    mask = jnp.arange(8) < 5
    sums, _ = jax.jit(partial(eval_step, model=model))(variables(state), words(1, 8), mask=mask)
    metrics = mean_metrics(sums)
    assert metrics["count"] == 5 and metrics["stn_deviation"] == metrics["stn_outside"] == 0
    assert 0.8 < metrics["stn_contrast"] < 1.0


def test_same_text_wants_every_character():
    ids = jnp.array([[1, 2, 0, 0], [1, 2, 0, 0], [1, 2, 3, 0], [0, 0, 0, 0]])
    labels = jnp.array([[1, 2, 0], [1, 3, 0], [1, 2, 0], [0, 0, 0]])
    lengths, label_lengths = jnp.array([2, 2, 3, 0]), jnp.array([2, 2, 2, 0])
    assert same_text(ids, lengths, labels, label_lengths).tolist() == [True, False, False, True]


def test_eight_words_are_learnt_by_heart(optimised):
    model = build(CRNN_CONFIG)
    # With a falling rate: while weights still move, the running statistics lag behind, which costs a word or two.
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup_steps=10, final_factor=1e-4)
    state, tx = make(model, CRNN_CONFIG, optimizer=optimizer, steps=200)
    batch = words(3, 8)
    step = jax.jit(partial(train_step, model=model, tx=tx, ema_decay=0.999))
    for i in range(400):
        state, metrics = step(state, batch, jax.random.key(i))
    assert metrics["accuracy"] == 1.0
    sums, _ = jax.jit(partial(eval_step, model=model))(raw(state), batch)
    assert sums["correct"] == 8
