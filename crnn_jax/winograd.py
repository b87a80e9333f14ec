"""The 3x3 convolution by Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray 2016, section 4.1), for CPUs.

Four pixels of the output cost sixteen products in place of thirty-six. The image is cut into tiles of 4x4 pixels, two
apart; tiles and kernel are transformed, multiplied place by place (one matrix product over all tiles for each of the
sixteen places) and transformed back to 2x2 pixels each. The transforms are sums and halves, so float32 keeps its
precision: about 1e-6 of the largest value.

Tiles take four times the memory of their image. A few images at a time, they stay in the processor's cache.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

TILE, STEP = 4, 2  # pixels of a side of the tiles, and from one to the next
CHUNK = 8  # images at a time: fewer, and the products are small; all 64 of a batch took two to three times as long

# The three transforms of F(2, 3) there: of a column of a tile, of the kernel, and back.
OF_TILE = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float32)
OF_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
BACK = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32)

Grid = list[list[Array]]  # an array for each place of a tile


@jax.custom_vjp
def winograd_conv(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C F"]) -> Float[Array, "B H W F"]:
    """A convolution of stride 1 with one pixel of zeros around the images. Differentiable once, in reverse."""
    return convolve_transformed(x, transform_kernel(kernel))


def _forward(x, kernel):
    transformed = transform_kernel(kernel)
    return convolve_transformed(x, transformed), (x, transformed)


def _backward(residuals, dy):
    x, transformed = residuals
    # The gradient of the images is a convolution, too, by the kernel turned round, its channels exchanged. Turned
    # round, its transform has the first place of each axis for the last, and the two between are as they were.
    turned = [[transformed[i][j] for j in (3, 1, 2, 0)] for i in (3, 1, 2, 0)]
    dx = _convolve(dy, turned, lambda tile, kernel: tile @ kernel.T)

    def add_chunk(total, chunk):
        return jax.tree.map(jnp.add, total, _kernel_grid_gradient(*chunk)), None

    zeros = jax.tree.map(jnp.zeros_like, transformed)
    total, _ = jax.lax.scan(add_chunk, zeros, (chunks(x), chunks(dy)))
    return dx, jnp.stack([jnp.stack(row) for row in _both_ways(OF_KERNEL.T, total)])


winograd_conv.defvjp(_forward, _backward)


def transform_kernel(kernel: Float[Array, "3 3 C F"]) -> Grid:
    """The kernel as the products take it, `C F` a place: made once for a kernel that stays."""
    return _both_ways(OF_KERNEL, [[kernel[i, j] for j in range(3)] for i in range(3)])


def convolve_transformed(x: Float[Array, "B H W C"], transformed: Grid) -> Float[Array, "B H W F"]:
    """`winograd_conv` by a kernel that is transformed already."""
    return _convolve(x, transformed, jnp.matmul)


def _convolve(x, transformed: Grid, multiply):
    y = jax.lax.map(lambda images: _convolve_few(images, transformed, multiply), chunks(x))
    return y.reshape(*x.shape[:3], y.shape[-1])


def _convolve_few(x, transformed: Grid, multiply):
    """The convolution of a few images, whose tiles stay in the cache."""
    batch, height, width, _ = x.shape
    tiles = _products(multiply, _image_grid(x), transformed)
    rows = [jnp.stack(row, axis=3) for row in _both_ways(BACK, tiles)]
    y = jnp.stack(rows, axis=2)  # B, tiles, 2, tiles, 2, F
    y = y.reshape(batch, y.shape[1] * STEP, y.shape[3] * STEP, -1)
    return y[:, :height, :width]


def _kernel_grid_gradient(x, dy) -> Grid:
    """What a few images add to the gradient of the transformed kernel."""
    _, height, width, _ = dy.shape
    dy = jnp.pad(dy, ((0, 0), (0, -height % STEP), (0, -width % STEP), (0, 0)))
    squares = [[dy[:, i::STEP, j::STEP] for j in range(STEP)] for i in range(STEP)]

    def over_tiles(a, b):
        return a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1])

    return _products(over_tiles, _image_grid(x), _both_ways(BACK.T, squares))


def _image_grid(x) -> Grid:
    """The transformed tiles, `B tiles tiles C` a place."""
    _, height, width, _ = x.shape
    rows, columns = -(-height // STEP), -(-width // STEP)
    x = jnp.pad(x, ((0, 0), (1, 1 + height % STEP), (1, 1 + width % STEP), (0, 0)))

    def place(i, j):
        return x[:, i : i + STEP * (rows - 1) + 1 : STEP, j : j + STEP * (columns - 1) + 1 : STEP]

    return _both_ways(OF_TILE, [[place(i, j) for j in range(TILE)] for i in range(TILE)])


def _both_ways(matrix, grid: Grid) -> Grid:
    """`matrix` times the grid times `matrix` transposed, of a grid whose entries are arrays."""
    columns = [_combine(matrix, column) for column in zip(*grid, strict=True)]
    return [_combine(matrix, row) for row in zip(*columns, strict=True)]


def _combine(matrix, arrays) -> list[Array]:
    """`matrix` times a vector of arrays, by as few operations as its zeros and ones allow."""
    results = []
    for row in matrix:
        total = None
        for factor, array in zip(row, arrays, strict=True):
            if factor:
                # Not a product with 1 or -1, which would cost a pass over memory where XLA does not fuse it away.
                term = array if factor == 1 else -array if factor == -1 else array * factor.astype(array.dtype)
                total = term if total is None else total + term
        results.append(total)
    return results


def _products(multiply, one: Grid, other: Grid) -> Grid:
    return [[multiply(a, b) for a, b in zip(*rows, strict=True)] for rows in zip(one, other, strict=True)]


def chunks(x: Shaped[Array, "B ..."]) -> Shaped[Array, "n b ..."]:
    """A batch cut up, b the smallest divisor of B that is no less than CHUNK, if need be B itself."""
    batch = x.shape[0]
    size = next(size for size in range(min(CHUNK, batch), batch + 1) if batch % size == 0)
    return x.reshape(batch // size, size, *x.shape[1:])
