"""The formulations for CPUs and GPUs against the library's operators: values and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from crnn_jax.cnn import CnnBlock
from crnn_jax.conv import PREPARED, Conv, convolve, library_conv, matmul_conv, max_pool, out_length, shallow_conv
from crnn_jax.stacks import ConvLayer, PoolLayer

pytestmark = pytest.mark.usefixtures("optimised")  # nearly the programs that users run

CASES = [
    ((3, 3), (1, 1), (1, 1)),
    ((2, 2), (1, 1), (0, 0)),
    ((1, 1), (1, 1), (0, 0)),
    ((3, 3), (2, 1), (1, 1)),
    ((2, 3), (1, 2), (0, 1)),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ours", [matmul_conv, lambda x, kernel, **options: shallow_conv(x, kernel, *options.values())])
@pytest.mark.parametrize(("window", "strides", "padding"), CASES)
def test_it_is_the_library_convolution(window, strides, padding, channels, ours):
    x = jax.random.normal(jax.random.key(0), (2, 6, 7, channels))
    kernel = jax.random.normal(jax.random.key(1), (*window, channels, 4))

    def run(convolve):
        def loss(x, kernel):
            y = convolve(x, kernel, strides=strides, padding=padding)
            return jnp.sum(jnp.sin(y)), y

        (_, y), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, kernel)
        return y, *gradients

    for mine, theirs in zip(run(ours), run(library_conv), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("window", "strides", "padding"), [((2, 2), (2, 2), (0, 0)), ((2, 2), (2, 1), (0, 1)), ((2, 1), (2, 1), (0, 0))]
)
def test_max_pool_is_the_library_pool(window, strides, padding):
    x = -1 - jax.random.uniform(jax.random.key(0), (2, 6, 7, 3))  # negative: padding must never win

    def ours(x):
        return max_pool(x, window, strides, padding=padding)

    def theirs(x):
        return nn.max_pool(x, window, strides, [(p, p) for p in padding])

    np.testing.assert_array_equal(ours(x), theirs(x))
    mine, library = (jax.jit(jax.grad(lambda x, f=f: jnp.sum(f(x) ** 2)))(x) for f in (ours, theirs))
    np.testing.assert_allclose(mine, library, rtol=1e-6)


@pytest.mark.parametrize("backend", ["gpu", "tpu"])
@pytest.mark.parametrize("channels", [1, 8])
def test_other_backends_have_the_same_convolution_and_pool(backend, channels, monkeypatch):
    """Each backend has its formulation: here all are compiled for the CPU, which supports them."""
    x = jax.random.normal(jax.random.key(0), (9, 6, 8, channels))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, 4))

    def run(x, kernel):
        y = convolve(x, kernel, strides=(1, 1), padding=(1, 1))
        return jnp.sum(jnp.sin(max_pool(y, (2, 2), (2, 1), padding=(0, 1))))

    here = jax.jit(jax.value_and_grad(run, (0, 1)))(x, kernel)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    program = jax.make_jaxpr(lambda x, kernel: run(x, kernel))(x, kernel)
    operations = {str(equation.primitive) for equation in program.eqns}
    assert ("conv_general_dilated" in operations) == (backend == "tpu" or channels == 8)
    assert any("reduce_window" in operation for operation in operations) == (backend == "tpu")
    there = jax.jit(jax.value_and_grad(lambda *args: run(*args), (0, 1)))(x, kernel)
    for mine, theirs in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-3)


def test_gradients_of_a_block_are_those_of_the_uncompiled_one():
    """XLA fuses a pool's input into its gradient: the maximum must be found there too."""
    block = CnnBlock((ConvLayer(8), PoolLayer()))
    x = jax.random.normal(jax.random.key(0), (4, 8, 12, 3))
    params = block.init(jax.random.key(1), x, train=True)["params"]

    def loss(params):
        y, _ = block.apply({"params": params}, x, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(3 * y))

    with jax.disable_jit():
        eager = jax.tree.leaves(jax.grad(loss)(params))
    for compiled, exact in zip(jax.tree.leaves(jax.jit(jax.grad(loss))(params)), eager, strict=True):
        np.testing.assert_allclose(compiled, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize(
    ("kernel", "channels", "is_prepared"), [((3, 3), 16, True), ((3, 3), 3, False), ((2, 3), 16, True)]
)
def test_a_kernel_is_prepared_once_for_many_calls(batch, kernel, channels, is_prepared):
    x = jax.random.normal(jax.random.key(0), (batch, 5, 6, channels))
    conv = Conv(16, kernel, use_bias=True)
    variables = jax.jit(conv.init)(jax.random.key(1), x)
    assert set(variables) == {"params"}
    prepared = jax.jit(partial(conv.apply, mutable=[PREPARED]))(variables, x[:1])[1]
    assert (PREPARED in prepared) == is_prepared
    apply = jax.jit(conv.apply)
    np.testing.assert_allclose(apply(variables | prepared, x), apply(variables, x), atol=1e-4)
    if is_prepared:  # and the kernel itself is no longer used
        variables["params"]["kernel"] = jnp.full_like(variables["params"]["kernel"], jnp.nan)
        assert jnp.isfinite(apply(variables | prepared, x)).all()


def test_padding_defaults_to_half_the_kernel_and_bias_is_added():
    layer = Conv(5, (3, 1), use_bias=True)
    variables = layer.init(jax.random.key(0), jnp.ones((1, 4, 6, 2)))
    variables["params"]["bias"] = jnp.arange(5.0)
    assert layer.apply(variables, jnp.ones((1, 4, 6, 2))).shape == (1, 4, 6, 5)
    np.testing.assert_array_equal(layer.apply(variables, jnp.zeros((1, 4, 6, 2)))[0, 0, 0], np.arange(5.0))


def test_out_length_counts_windows():
    for length, window, stride, padding in [(10, 3, 1, 1), (7, 2, 2, 0), (26, 2, 1, 0), (5, 2, 2, 1)]:
        places = range(-padding, length + padding - window + 1, stride)
        assert out_length(length, window, stride, padding) == len(places)
