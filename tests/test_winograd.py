"""Winograd's convolution against the library's: values and gradients, odd sizes, batches of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crnn_jax.conv import convolve, library_conv
from crnn_jax.winograd import BACK, CHUNK, OF_KERNEL, OF_TILE, chunks, winograd_conv

ONE_PIXEL = {"strides": (1, 1), "padding": (1, 1)}


def outcome(convolution, *arrays):
    """Output and gradients of a loss that no formulation is made for."""

    def loss(x, kernel):
        y = convolution(x, kernel)
        return jnp.sum(jnp.sin(y)), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(*arrays)
    return y, *gradients


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 9), (2, 1), (3, 3)])
@pytest.mark.parametrize("batch", [1, CHUNK, 11, 3 * CHUNK])
def test_it_is_the_library_convolution(size, batch):
    x = jax.random.normal(jax.random.key(0), (batch, *size, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    theirs = outcome(lambda x, kernel: library_conv(x, kernel, **ONE_PIXEL), x, kernel)
    for mine, library in zip(outcome(winograd_conv, x, kernel), theirs, strict=True):
        assert mine.shape == library.shape and mine.dtype == library.dtype
        np.testing.assert_allclose(mine, library, atol=3e-5 * float(jnp.abs(library).max()))


def test_the_transforms_filter_one_row():
    """F(2, 3): two pixels of a filtered row from four, with four products."""
    row, kernel = np.array([3.0, -1.0, 4.0, 2.0]), np.array([2.0, 7.0, -5.0])
    expected = [row[:3] @ kernel, row[1:] @ kernel]
    np.testing.assert_allclose(BACK @ ((OF_TILE @ row) * (OF_KERNEL @ kernel)), expected)


@pytest.mark.parametrize(("batch", "size"), [(1, 1), (7, 7), (8, 8), (13, 13), (20, 10), (32, 8), (50, 10)])
def test_chunks_are_the_smallest_that_keep_the_products_large(batch, size):
    x = jnp.arange(batch)[:, None]
    assert chunks(x).shape == (batch // size, size, 1)
    np.testing.assert_array_equal(chunks(x).ravel(), np.arange(batch))


def test_it_is_mapped_over_networks():
    """As a population does, with a kernel each."""
    x = jax.random.normal(jax.random.key(0), (2, CHUNK, 4, 6, 3))
    kernel = jax.random.normal(jax.random.key(1), (2, 3, 3, 3, 5))
    for mapped, *alone in zip(jax.vmap(winograd_conv)(x, kernel), x, kernel, strict=True):
        np.testing.assert_allclose(mapped, winograd_conv(*alone), atol=1e-4)


@pytest.mark.parametrize(
    ("batch", "window", "channels", "dtype", "is_taken"),
    [
        (CHUNK, (3, 3), (16, 32), jnp.float32, True),
        (CHUNK - 1, (3, 3), (16, 32), jnp.float32, False),
        (CHUNK, (3, 3), (1, 32), jnp.float32, False),
        (CHUNK, (2, 3), (16, 32), jnp.float32, False),
        (CHUNK, (3, 3), (16, 32), jnp.bfloat16, False),
    ],
)
def test_the_cpu_takes_it_where_it_pays(batch, window, channels, dtype, is_taken):
    x, kernel = jnp.ones((batch, 4, 6, channels[0]), dtype), jnp.ones((*window, *channels), dtype)
    options = {"strides": (1, 1), "padding": (window[0] // 2, window[1] // 2)}
    taken = jax.make_jaxpr(lambda x, kernel: convolve(x, kernel, **options))(x, kernel)
    assert ("winograd_conv" in str(taken)) == is_taken
