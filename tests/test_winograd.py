"""Winograd's convolution against the library's: values and gradients, odd sizes, batches of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crnn_jax import winograd
from crnn_jax.conv import FEW as FEW_IMAGES
from crnn_jax.conv import convolve, library_conv
from crnn_jax.winograd import F2, F4, FEW, FEW_OF_LARGE, chunks, convolve_prepared, prepare_kernel, winograd_conv

pytestmark = pytest.mark.usefixtures("optimised")  # nearly the programs that users run

ONE_PIXEL = {"strides": (1, 1), "padding": (1, 1)}


def outcome(convolution, *arrays):
    """Output and gradients of a loss that suits no formulation in particular."""

    def loss(x, kernel):
        y = convolution(x, kernel)
        return jnp.sum(jnp.sin(y)), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(*arrays)
    return y, *gradients


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 9), (2, 1), (3, 3), (8, 4), (16, 50)])
@pytest.mark.parametrize("batch", [1, 11, 24])
def test_it_is_the_library_convolution(size, batch):
    """Few tiles by F(2x2), more by F(4x4), and the largest in several chunks."""
    x = jax.random.normal(jax.random.key(0), (batch, *size, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    theirs = outcome(lambda x, kernel: library_conv(x, kernel, **ONE_PIXEL), x, kernel)
    for mine, library in zip(outcome(winograd_conv, x, kernel), theirs, strict=True):
        assert mine.shape == library.shape and mine.dtype == library.dtype
        np.testing.assert_allclose(mine, library, atol=3e-5 * float(jnp.abs(library).max()))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_prepared_kernel_does_for_few_tiles_and_for_many(batch):
    x = jax.random.normal(jax.random.key(0), (batch, 4, 4 * FEW, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    prepared = prepare_kernel(kernel)
    np.testing.assert_allclose(convolve_prepared(x, prepared), winograd_conv(x, kernel), atol=5e-5)
    # Only one of the two transforms is used.
    other = prepared | {"many" if batch == 1 else "few": []}
    np.testing.assert_array_equal(convolve_prepared(x, other), convolve_prepared(x, prepared))


@pytest.mark.parametrize("num_cores", [1, 2])
@pytest.mark.parametrize("width", [1, 2, 7, FEW_OF_LARGE * 2, FEW_OF_LARGE * 4 + 1])
def test_few_tiles_of_a_large_kernel_go_along_the_rows(width, num_cores, monkeypatch):
    """On several cores; on one, only a larger kernel counts as large."""
    monkeypatch.setattr(winograd, "cores", lambda: num_cores)
    x = jax.random.normal(jax.random.key(0), (1, 4, width, 128))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 128, 256)) / 32
    prepared = prepare_kernel.__wrapped__(kernel)
    assert ("few_of_large" in prepared) == (num_cores == 2)
    theirs = library_conv(x, kernel, **ONE_PIXEL)
    np.testing.assert_allclose(convolve_prepared(x, prepared), theirs, atol=1e-4)
    if num_cores == 2 and width <= FEW_OF_LARGE * 4:
        np.testing.assert_allclose(convolve_prepared(x, prepared | {"many": []}), theirs, atol=1e-4)


@pytest.mark.parametrize("filtering", [F2, F4])
def test_the_transforms_filter_one_row(filtering):
    """Two pixels of a filtered row from four, with four products, or four from six with six."""
    row, kernel = np.array([3.0, -1.0, 4.0, 2.0, -6.0, 5.0])[: filtering.step + 2], np.array([2.0, 7.0, -5.0])

    def filtered(filtering, kernel):
        return filtering.back @ ((filtering.of_tile @ row) * kernel)

    transformed = filtering.of_kernel @ kernel
    np.testing.assert_allclose(filtered(filtering, transformed), np.correlate(row, kernel), rtol=1e-5, atol=1e-5)
    turned = filtered(filtering.turned, transformed)
    np.testing.assert_allclose(turned, np.correlate(row, kernel[::-1]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("filtering", [F2, F4])
def test_rounding_is_that_of_float32(filtering):
    """A hundred sums of 144 products in float32 and in float64."""
    rng = np.random.default_rng(0)
    rows, kernels = rng.normal(size=(100, 48, filtering.step + 2)), rng.normal(size=(100, 48, 3))
    transforms = [matrix.astype(np.float64) for matrix in (filtering.of_tile, filtering.of_kernel, filtering.back)]

    def filtered(dtype):
        of_tile, of_kernel, back = (matrix.astype(dtype) for matrix in transforms)
        products = (rows.astype(dtype) @ of_tile.T) * (kernels.astype(dtype) @ of_kernel.T)
        return products.sum(1, dtype=dtype) @ back.T

    exact = np.stack([sum(map(np.correlate, row, kernel)) for row, kernel in zip(rows, kernels, strict=True)])
    assert np.abs(filtered(np.float32) - exact).max() < 1e-6 * np.abs(exact).max()


@pytest.mark.parametrize(("batch", "size"), [(0, 1), (1, 1), (7, 7), (8, 8), (13, 13), (20, 10), (32, 8), (50, 10)])
def test_chunks_are_the_smallest_that_keep_the_products_large(batch, size):
    x = jnp.arange(batch)[:, None]
    assert chunks(x, at_least=8).shape == (batch // size, size, 1)
    np.testing.assert_array_equal(chunks(x, at_least=8).ravel(), np.arange(batch))


def test_it_is_mapped_over_networks():
    """As in a population, where each network has its kernel."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 4, 6, 3))
    kernel = jax.random.normal(jax.random.key(1), (2, 3, 3, 3, 5))
    for mapped, *alone in zip(jax.vmap(winograd_conv)(x, kernel), x, kernel, strict=True):
        np.testing.assert_allclose(mapped, winograd_conv(*alone), atol=1e-4)


@pytest.mark.parametrize(
    ("batch", "window", "channels", "dtype", "is_taken"),
    [
        (FEW_IMAGES, (3, 3), (16, 32), jnp.float32, True),
        (FEW_IMAGES - 1, (3, 3), (16, 32), jnp.float32, False),
        (FEW_IMAGES, (3, 3), (1, 32), jnp.float32, False),
        (FEW_IMAGES, (2, 3), (16, 32), jnp.float32, False),
        (FEW_IMAGES, (3, 3), (16, 32), jnp.bfloat16, False),
    ],
)
def test_the_cpu_takes_it_where_it_pays(batch, window, channels, dtype, is_taken):
    x, kernel = jnp.ones((batch, 4, 6, channels[0]), dtype), jnp.ones((*window, *channels), dtype)
    options = {"strides": (1, 1), "padding": (window[0] // 2, window[1] // 2)}
    taken = jax.make_jaxpr(lambda x, kernel: convolve(x, kernel, **options))(x, kernel)
    assert ("winograd_conv" in str(taken)) == is_taken
