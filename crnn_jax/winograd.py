"""The 3x3 convolution by Winograd's minimal filtering (Lavin and Gray 2016, section 4), for CPUs.

The image is cut into overlapping tiles; tiles and kernel are transformed, multiplied place by place (one matrix product
over all tiles for each place) and transformed back to a square of the output. F(4x4, 3x3) makes 4x4 pixels from a tile
of 6x6 with 36 products instead of 144. F(2x2, 3x3) makes 2x2 pixels from 4x4 with 16 instead of 36; its transformed
kernel is smaller to read, so it is the better one for a single small image. F(2, 3) along the width alone reads 12
numbers for a kernel's 9, where F(2x2) reads 16 and F(4x4) 36, and takes 12 products instead of 18 for two pixels, in
few and large matrix products, which several cores share well.

The transforms evaluate polynomials. F(4x4) does so at 0, +-sqrt(1/2), +-sqrt(2) and infinity instead of the paper's 0,
+-1, +-2 and infinity: as many operations, a fifth of the error (in float32 at most 4e-6 of the largest value, F(2x2)
1e-6). The inverses of these points are the same points, so the kernel rotated by 180 degrees, which the gradient of the
images takes, has the same transform in another order.
"""

from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from crnn_jax.cores import cores

Grid = list[Array]  # an array per column of a tile, the rows along its first axis

R, H = np.sqrt(2.0), np.sqrt(0.5)


class Filtering(NamedTuple):
    """F(step x step, 3x3): the transforms of a column of a tile, of the kernel, and back to `step` pixels."""

    step: int  # pixels along a side of a tile's output square, and from one tile to the next
    of_tile: Float[np.ndarray, "tile tile"]
    of_kernel: Float[np.ndarray, "tile 3"]
    back: Float[np.ndarray, "step tile"]
    order: tuple[int, ...]  # of the places in the transform of the rotated kernel

    @property
    def turned(self) -> "Filtering":
        """The filtering with the rotated kernel, given the transform of the kernel as it is."""
        return self._replace(of_tile=self.of_tile[list(self.order)], back=self.back[:, list(self.order)])


def _matrix(*rows) -> np.ndarray:
    return np.array(rows, np.float32)


F2 = Filtering(
    step=2,
    of_tile=_matrix((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    of_kernel=_matrix((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    back=_matrix((1, 1, 1, 0), (0, 1, -1, -1)),
    order=(3, 1, 2, 0),
)
# The kernel's row for the point a is (1/a, 1, a) / 3, which is the row for 1/a reversed.
F4 = Filtering(
    step=4,
    of_tile=_matrix(
        (1, 0, -5 / 2, 0, 1, 0),
        (0, 2, 2 * R, -1, -R, 0),
        (0, 2, -2 * R, -1, R, 0),
        (0, -1 / 2, -R / 4, 1, H, 0),
        (0, -1 / 2, R / 4, 1, -H, 0),
        (0, 1, 0, -5 / 2, 0, 1),
    ),
    of_kernel=_matrix(
        (1, 0, 0),
        (R / 3, 1 / 3, H / 3),
        (-R / 3, 1 / 3, -H / 3),
        (H / 3, 1 / 3, R / 3),
        (-H / 3, 1 / 3, -R / 3),
        (0, 0, 1),
    ),
    back=_matrix(
        (1, 1, 1, 1, 1, 0), (0, H, -H, R, -R, 0), (0, 1 / 2, 1 / 2, 2, 2, 0), (0, H / 2, -H / 2, 2 * R, -2 * R, 1)
    ),
    order=(5, 3, 4, 1, 2, 0),
)

FEW = 8  # tiles of F(4x4): for so few, reading its transformed kernel takes too long
FEW_OF_LARGE = 32  # the same for a large kernel
MANY = 200  # tiles at a time: with more the transforms leave the cache, with fewer the kernels are read too often


@jax.custom_vjp
def winograd_conv(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C F"]) -> Float[Array, "B H W F"]:
    """A convolution of stride 1 with one pixel of zero padding. Differentiable once, in reverse mode."""
    return _forward(x, kernel)[0]


def _forward(x, kernel):
    filtering = _filtering(x)
    transformed = transform_kernel(kernel, filtering)
    return _convolve(x, transformed, filtering), (x, transformed)


def _backward(residuals, dy):
    x, transformed = residuals
    filtering = _filtering(x)
    # The gradient of the images is a convolution too, with the rotated kernel and its channels exchanged.
    dx = _convolve(dy, [kernel.swapaxes(1, 2) for kernel in transformed], filtering.turned)

    def add_chunk(total, chunk):
        return jax.tree.map(jnp.add, total, _kernel_grid_gradient(*chunk, filtering)), None

    xs, dys = _chunks_of_tiles(x, filtering), _chunks_of_tiles(dy, filtering)
    total = _kernel_grid_gradient(xs[0], dys[0], filtering)
    if len(xs) > 1:
        total, _ = lax.scan(add_chunk, total, (xs[1:], dys[1:]))
    columns = _in_memory(jnp.stack(_combine(filtering.of_kernel.T, total), axis=1))  # tile, 3, C, F
    return dx, jnp.stack(_combine(filtering.of_kernel.T, list(columns)))


winograd_conv.defvjp(_forward, _backward)


@jax.jit  # for the same reason as below
def prepare_kernel(kernel: Float[Array, "3 3 C F"]) -> dict[str, Grid]:
    """The transforms of a kernel, made beforehand, for convolving any number of images of any size."""
    few = "few_of_large" if _is_large(kernel) else "few"
    of_few = transform_rows(kernel) if _is_large(kernel) else transform_kernel(kernel, F2)
    return {few: of_few, "many": transform_kernel(kernel, F4)}


@jax.jit  # layers of one shape are traced and lowered only once: a large network reads its first word sooner
def convolve_prepared(x: Float[Array, "B H W C"], prepared: dict[str, list]) -> Float[Array, "B H W F"]:
    """`winograd_conv` with a kernel that `prepare_kernel` has already transformed."""
    tiles = len(x) * _num_tiles(x, F4)
    if "few_of_large" in prepared and tiles <= FEW_OF_LARGE:
        return _convolve_rows(x, prepared["few_of_large"])
    if "few" in prepared and tiles <= FEW:
        return _convolve(x, prepared["few"], F2)
    return _convolve(x, prepared["many"], F4)


def _is_large(kernel) -> bool:
    """Whether F(2, 3) along the width is the best way for few tiles: if the kernel does not stay in the cache.

    On two cores, `crnn` reads one word in 0.85, `stn_crnn` in 0.77 to 0.87 of the time with it. On one core, which the
    many small products of F(4x4) suit better, it pays only for larger kernels.
    """
    return kernel.shape[2] * kernel.shape[3] >= (2**15 if cores() > 1 else 2**17)


def transform_rows(kernel: Float[Array, "3 3 C F"]) -> list[Float[Array, "F rows_of_C"]]:
    """The kernel as the products of F(2, 3) along the width take it: one matrix, of its three rows, for each place.

    These are the left operands: XLA copies a right operand to another order at every call, which takes as long as the
    product with a single word's pixels (0.7 of the time without the copy, at 512 channels).
    """
    places = _combine(F2.of_kernel, [kernel[:, j] for j in range(3)])
    return [place.reshape(-1, place.shape[-1]).T for place in places]


def _convolve_rows(x, transformed: list[Array]):
    """The convolution by F(2, 3) along the width, and directly along the height."""
    step, (_, height, width, _) = F2.step, x.shape
    across = -(-width // step)
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1 + -width % step), (0, 0)))
    places = _combine(F2.of_tile, [x[:, :, j : j + step * (across - 1) + 1 : step] for j in range(step + 2)])
    threes = [jnp.concatenate([place[:, i : i + height] for i in range(3)], axis=-1) for place in places]
    products = [jnp.einsum("fk,bhwk->bhwf", kernel, three) for kernel, three in zip(transformed, threes, strict=True)]
    y = jnp.stack(_combine(F2.back, products), axis=3)  # B, H, tiles, step, F
    return y.reshape(*y.shape[:2], -1, y.shape[-1])[:, :, :width]


def transform_kernel(kernel: Float[Array, "3 3 C F"], filtering: Filtering) -> Grid:
    """The kernel as the products take it, `tile C F` per column."""
    rows = _in_memory(jnp.stack(_combine(filtering.of_kernel, list(kernel))))  # tile, 3, C, F
    return _combine(filtering.of_kernel, [rows[:, j] for j in range(3)])


def _filtering(x) -> Filtering:
    return F2 if len(x) * _num_tiles(x, F4) <= FEW else F4


def _num_tiles(x, filtering: Filtering) -> int:
    """The tiles of one image."""
    return -(-x.shape[1] // filtering.step) * -(-x.shape[2] // filtering.step)


def _convolve(x, transformed: Grid, filtering: Filtering):
    y = lax.map(lambda images: _convolve_few(images, transformed, filtering), _chunks_of_tiles(x, filtering))
    return y.reshape(*x.shape[:3], y.shape[-1])


def _convolve_few(x, transformed: Grid, filtering: Filtering):
    """The convolution of a few images, whose tiles stay in the cache."""
    batch, height, width, _ = x.shape
    tiles = [
        jnp.einsum("pbhwc,pcf->pbhwf", column, kernel)
        for column, kernel in zip(_image_grid(x, filtering), transformed, strict=True)
    ]
    rows = jnp.stack(_combine(filtering.back, tiles), axis=4)  # tile, B, tiles, tiles, step, F
    rows = _in_memory(rows.reshape(*rows.shape[:3], -1, rows.shape[-1])[:, :, :, :width])
    y = jnp.stack(_combine(filtering.back, list(rows)), axis=2)  # B, tiles, step, width, F
    return y.reshape(batch, -1, *y.shape[3:])[:, :height]


def _kernel_grid_gradient(x, dy, filtering: Filtering) -> Grid:
    """What a few images add to the gradient of the transformed kernel."""
    step, (_, height, width, _) = filtering.step, dy.shape
    dy = jnp.pad(dy, ((0, 0), (0, -height % step), (0, -width % step), (0, 0)))
    rows = _in_memory(jnp.stack(_combine(filtering.back.T, [dy[:, i::step] for i in range(step)])))
    squares = _combine(filtering.back.T, [rows[:, :, :, j::step] for j in range(step)])

    def over_tiles(column, square):
        # Over one axis: to sum over three of them, XLA would first rearrange the data.
        flat = [array.reshape(len(array), -1, array.shape[-1]) for array in (column, square)]
        return jnp.einsum("prc,prf->pcf", *flat)

    return [over_tiles(*columns) for columns in zip(_image_grid(x, filtering), squares, strict=True)]


def _image_grid(x, filtering: Filtering) -> Grid:
    """The transformed tiles, `tile B tiles tiles C` per column."""
    step, (_, height, width, _) = filtering.step, x.shape
    down, across = -(-height // step), -(-width // step)
    x = jnp.pad(x, ((0, 0), (1, 1 + -height % step), (1, 1 + -width % step), (0, 0)))
    places = range(step + 2)
    rows = [x[:, i : i + step * (down - 1) + 1 : step] for i in places]
    rows = _in_memory(jnp.stack(_combine(filtering.of_tile, rows)))
    return _combine(filtering.of_tile, [rows[:, :, :, j : j + step * (across - 1) + 1 : step] for j in places])


def _in_memory(array):
    """The same array, not fused with what follows: XLA would recompute it for each of the arrays made from it.

    For F(4x4) that takes as long as all the rest of the convolution.
    """
    return lax.optimization_barrier(array)


def _combine(matrix, arrays) -> list[Array]:
    """`matrix` times a vector of arrays, with as few operations as its zeros and ones allow.

    They are a third of a network's operations, so they are lax's: jnp's take much longer to trace and lower.
    """
    terms = ([_times(*pair) for pair in zip(row, arrays, strict=True) if pair[0]] for row in matrix)
    return [reduce(lax.add, of_row) for of_row in terms]


def _times(factor, array):
    """Their product, without multiplying by 1 or -1: that costs a pass over memory unless XLA fuses it away."""
    if factor == 1:
        return array
    return lax.neg(array) if factor == -1 else lax.mul(array, factor.astype(array.dtype))


def _chunks_of_tiles(x, filtering: Filtering):
    return chunks(x, at_least=-(-MANY // _num_tiles(x, filtering)))


def chunks(x: Shaped[Array, "B ..."], at_least: int) -> Shaped[Array, "n b ..."]:
    """A batch cut into chunks of b, the smallest divisor of B that is at least `at_least`, or else B itself."""
    batch = x.shape[0]
    size = next((size for size in range(max(1, min(at_least, batch)), batch + 1) if batch % size == 0), 1)
    return x.reshape(batch // size, size, *x.shape[1:])  # an empty batch has no chunks
