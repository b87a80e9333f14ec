"""BiLSTM against flax's cells, on time reversed, and in bfloat16."""

import subprocess
import sys
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crnn_jax.conv import PREPARED
from crnn_jax.lstm import BiLSTM

pytestmark = pytest.mark.usefixtures("optimised")  # nearly the programs that users run

B, T, D, H = 3, 7, 5, 4


@pytest.fixture(scope="module")
def case():
    model = BiLSTM(H)
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    bias = 0.3 * jax.random.normal(jax.random.key(2), (8 * H,))  # the initial zeros would hide a misplaced bias
    return model, {"params": variables["params"] | {"bias": bias}}, x


def cell_params(params, direction):
    """The parameters of one direction in the tree that flax.linen's LSTMCell and OptimizedLSTMCell share."""
    columns = slice(4 * H * direction, 4 * H * (direction + 1))
    inputs = jnp.split(params["input_kernel"][:, columns], 4, axis=-1)
    recurrent = jnp.split(params["recurrent_kernel"][direction], 4, axis=-1)
    biases = jnp.split(params["bias"][columns], 4)
    tree = {f"i{gate}": {"kernel": kernel} for gate, kernel in zip("ifgo", inputs, strict=True)}
    for gate, kernel, bias in zip("ifgo", recurrent, biases, strict=True):
        tree[f"h{gate}"] = {"kernel": kernel, "bias": bias}
    return {"params": {"cell": tree}}


def by_flax(params, x):
    rnn = nn.RNN(nn.OptimizedLSTMCell(H))
    forward = rnn.apply(cell_params(params, 0), x)
    backward = rnn.apply(cell_params(params, 1), x[:, ::-1])[:, ::-1]
    return jnp.concatenate([forward, backward], axis=-1)


def test_equals_flax_cell_and_its_gradients(case):
    _, variables, x = case
    weight = jax.random.normal(jax.random.key(3), (B, T, 2 * H))

    def output_and_gradients(apply):
        def loss(params, x):
            y = apply(params, x)
            return jnp.sum(weight * y), y

        (_, y), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(variables["params"], x)
        return y, grads

    flax = output_and_gradients(by_flax)
    ours = output_and_gradients(lambda params, x: BiLSTM(H).apply({"params": params}, x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-6), ours, flax)


def test_each_half_sees_its_own_side_of_time(case):
    model, variables, x = case
    apply = jax.jit(model.apply)
    changed = np.asarray(apply(variables, x.at[:, 3].add(1.0)) != apply(variables, x))
    touched = changed.reshape(B, T, 2, H).any(axis=(0, 3))
    assert touched[:, 0].tolist() == [False, False, False, True, True, True, True]
    assert touched[:, 1].tolist() == [True, True, True, True, False, False, False]


def test_jit_and_unroll_change_nothing(case):
    model, variables, x = case
    eager = model.apply(variables, x)
    np.testing.assert_allclose(jax.jit(model.apply)(variables, x), eager, atol=1e-6)
    np.testing.assert_allclose(jax.jit(BiLSTM(H, unroll=3).apply)(variables, x), eager, atol=1e-6)


def test_bfloat16_stays_near_float32(case):
    model, variables, x = case
    half = BiLSTM(H, dtype=jnp.bfloat16)
    y = jax.jit(half.apply)(variables, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), jax.jit(model.apply)(variables, x), atol=0.03)
    grads = jax.jit(jax.grad(lambda v: half.apply(v, x).astype(jnp.float32).sum()))(variables)
    assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype(jnp.float32)}


def test_what_is_prepared_does_for_the_input_kernel(case):
    model, variables, x = case
    prepared = jax.jit(partial(model.apply, mutable=[PREPARED]))(variables, x[:1])[1]
    apply = jax.jit(model.apply)
    expected = apply(variables, x)
    without = {"params": variables["params"] | {"input_kernel": jnp.full((D, 8 * H), jnp.nan)}}
    np.testing.assert_allclose(apply(without | prepared, x), expected, atol=1e-6)


def test_bfloat16_keeps_the_cell_state_in_float32():
    # Input, forget and output gates open, the cell gate at 0.0005: a sum that bfloat16 would stop adding to at 0.25.
    params = {
        "input_kernel": jnp.array([[20.0, 20.0, 0.0005, 20.0] * 2]),
        "recurrent_kernel": jnp.zeros((2, 1, 4)),
        "bias": jnp.zeros(8),
    }
    y = jax.jit(BiLSTM(1, dtype=jnp.bfloat16).apply)({"params": params}, jnp.ones((1, 1000, 1)))
    np.testing.assert_allclose(y[0, [-1, 0], [0, 1]].astype(jnp.float32), np.tanh(0.5), atol=0.005)


def test_initial_weights_have_the_distributions_of_flax():
    params = jax.jit(BiLSTM(32).init)(jax.random.key(0), jnp.zeros((1, 2, 200)))["params"]
    params = jax.tree.map(np.asarray, params)
    np.testing.assert_allclose(params["input_kernel"].std(), 200**-0.5, rtol=0.02)  # 51200 draws: 0.3 % of error
    gates = params["recurrent_kernel"].reshape(2, 32, 4, 32).transpose(0, 2, 1, 3)
    identity = np.broadcast_to(np.eye(32), gates.shape)
    np.testing.assert_allclose(np.einsum("dgij,dgik->dgjk", gates, gates), identity, atol=1e-5)
    assert len({float(g[0, 0]) for g in gates.reshape(8, 32, 32)}) == 8  # not one block repeated
    assert not params["bias"].any()


def test_two_layers_can_be_drawn_under_jit():
    # Batched QR decompositions of two layers block XLA's pool for ever where it has two threads.
    program = (
        "import jax, jax.numpy as jnp; from crnn_jax.config import ModelConfig; from crnn_jax.model import build;"
        "model = build(ModelConfig(cnn='tiny', lstm_features=256, lstm_layers=2));"
        "images = jnp.zeros((1, 32, 100), jnp.uint8);"
        "print(len(jax.block_until_ready(jax.jit(model.init)(jax.random.key(0), images))))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert run.stdout == "2\n", run.stderr
