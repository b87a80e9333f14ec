"""The differentiable half of a spatial transformer: where to look (grids) and what is there (bilinear sampling).

Pure functions on ONE image; the caller vmaps. Two kinds of coordinates, x before y in both:

- normalised, for what a network predicts: x to the right, y down, -1 and 1 at the centres of the first and the last
  pixel (torch's align_corners=True);
- pixels, for what is sampled: x to the right, y down, pixel centres at the integers.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Pair = tuple[int, int]


def affine_grid(theta: Float[Array, "2 3"], *, out_size: Pair, in_size: Pair) -> Float[Array, "h w 2"]:
    """Where each pixel of an output of `out_size` (h, w) looks in an input of `in_size` (H, W), in pixels.

    `theta` maps normalised output to normalised input coordinates: (x, y)_in = theta @ (x, y, 1)_out (Jaderberg et al.
    2015, eq. 1). At the identity [[1, 0, 0], [0, 1, 0]] and equal sizes the grid is exactly the integers.

    Raises ValueError for a `theta` of another shape.
    """
    theta = _floats(theta, "theta")
    if theta.shape != (2, 3):
        raise ValueError(f"theta has shape {theta.shape}: expected (2, 3), for one image")
    dtype = jnp.promote_types(theta.dtype, jnp.float32)  # bfloat16 cannot count to 300
    half = _half_extent(in_size)
    homogeneous = np.concatenate([_normalised_grid(out_size), np.ones((*out_size, 1))], axis=-1)
    # Folding the change to pixels into this constant, in float64, is what makes the identity exact.
    basis = half * homogeneous[..., None]  # h w 3 2
    theta = theta.astype(dtype).T[:, None, None]  # 3 1 1 2
    # Not `jnp.sum`: under three nested vmaps, jaxlib 0.10.2's CPU compiler gets that sum over three terms wrong.
    terms = [theta[i] * jnp.asarray(basis[:, :, i], dtype) for i in range(3)]
    return terms[0] + terms[1] + terms[2] + jnp.asarray(half, dtype)[None, None]


def tps_grid(fiducials: Float[Array, "F 2"], *, out_size: Pair, in_size: Pair) -> Float[Array, "h w 2"]:
    """Where each output pixel looks, in input pixels, when the output's `identity_fiducials(F)` look at `fiducials`.

    `fiducials` are points of the input in normalised coordinates, the upper edge first, from left to right, then the
    lower. Between them the grid is a thin-plate spline, the interpolation that bends least (Bookstein 1989), affine if
    that fits; as in RARE (Shi et al. 2016, section 3.1.2). At the identity and equal sizes it is exactly the integers.

    Raises ValueError unless F is even and at least 4.
    """
    fiducials = _floats(fiducials, "fiducials")
    dtype = jnp.promote_types(fiducials.dtype, jnp.float32)
    half = _half_extent(in_size)
    moved = fiducials.astype(dtype) - jnp.asarray(identity_fiducials(len(fiducials)), dtype)
    # The spline is linear in the points: a constant matrix applied to how far they moved. "highest", because TF32 or
    # bfloat16 products would shift what is sampled by visible fractions of a pixel.
    spread = jnp.asarray(_tps_matrix(len(fiducials), out_size), dtype)
    shift = jnp.einsum("hwf,fc->hwc", spread, moved, precision="highest")
    identity = jnp.asarray(half * (_normalised_grid(out_size) + 1), dtype)
    return identity + jnp.asarray(half, dtype)[None, None] * shift


def identity_fiducials(n: int) -> Float[np.ndarray, "n 2"]:
    """`n` points in normalised coordinates, half of them along the upper edge (y = -1), half along the lower (y = 1).

    From left to right, ends included; a NumPy constant, float32. Raises ValueError unless n is even and at least 4.
    """
    return _fiducials(n).astype(np.float32)


def bilinear_sample(
    image: Float[Array, "H W C"], xy: Float[Array, "*grid 2"], *, outside: str = "border"
) -> Float[Array, "*grid C"]:
    """The values of `image` at the points `xy`, in pixels, interpolated between the four pixels around each point.

    `outside` is what lies beyond the image: "border", the nearest pixel of its edge, or "zeros". The result has the
    dtype of the image. The gradient with respect to `xy` at integer coordinates, where the interpolant has a kink, is
    the derivative to the right and downwards. Outside the image it is zero (with "zeros", beyond one pixel outside).
    The coordinates should be float32.

    Raises ValueError for another `outside`, and for an image of integers, whose differences would overflow.
    """
    image, xy = _floats(image, "image"), _floats(xy, "xy")
    if outside not in ("border", "zeros"):
        raise ValueError(f"outside = {outside!r}: expected border or zeros")
    height, width, channels = image.shape
    # Neighbours are floor and floor + 1. With ceil instead, both are the same pixel at integer coordinates, and the
    # gradient is exactly zero on the whole grid of an identity transform. Only the indices are clamped to the image:
    # outside it both neighbours are the border's pixel, so value and gradient come out right with unclamped weights.
    # (Clamped before the weights are computed, the last row and column would vanish.)
    corner = jnp.floor(xy)
    weight = (xy - corner).astype(jnp.promote_types(xy.dtype, jnp.float32))
    x0, y0 = corner[..., 0], corner[..., 1]
    pixels = image.reshape(height * width, channels)

    def pixel(y, x):
        column = jnp.clip(x, 0, width - 1).astype(jnp.int32)
        row = jnp.clip(y, 0, height - 1).astype(jnp.int32)
        # One flat index: a gather with two indices is slower on the CPU.
        value = pixels.at[row * width + column].get(mode="promise_in_bounds")
        if outside == "zeros":
            inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
            value = jnp.where(inside[..., None], value, 0)
        return value

    along_x, along_y = weight[..., :1], weight[..., 1:]
    above = _lerp(pixel(y0, x0), pixel(y0, x0 + 1), along_x)
    below = _lerp(pixel(y0 + 1, x0), pixel(y0 + 1, x0 + 1), along_x)
    return _lerp(above, below, along_y).astype(image.dtype)


def _floats(x, name: str) -> Float[Array, "..."]:
    """A floating-point NumPy or JAX array as a JAX array. Raises ValueError for others."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} has dtype {x.dtype}: expected floating-point numbers")
    return jnp.asarray(x, jax.dtypes.canonicalize_dtype(x.dtype))


def _lerp(a, b, weight):
    return a + weight * (b - a)


def _half_extent(size: Pair) -> np.ndarray:
    """From the image's centre to that of its last pixel, (x, y), in pixels: one normalised unit."""
    height, width = size
    return np.array([(width - 1) / 2, (height - 1) / 2])


def _normalised_grid(size: Pair) -> np.ndarray:
    """The pixel centres of an image of `size` in normalised coordinates, `h w 2`; an axis of one pixel is at 0."""
    y, x = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in size)
    return np.stack(np.meshgrid(x, y), axis=-1)


def _fiducials(n: int) -> np.ndarray:
    if n < 4 or n % 2:
        raise ValueError(f"a thin-plate spline takes an even number of fiducial points, at least 4, not {n}")
    x = np.linspace(-1, 1, n // 2)
    return np.concatenate([np.stack([x, np.full_like(x, y)], axis=-1) for y in (-1, 1)])


@lru_cache(maxsize=64)
def _tps_matrix(n: int, out_size: Pair) -> np.ndarray:
    """`h w n`: the weight of each of n fiducial points on each pixel of the output, in float64.

    The spline is f(p) = a + A p + sum_i c_i U(|p - p_i|), U(r) = r^2 log r^2, with sum_i c_i = 0 and sum_i c_i p_i = 0
    (Bookstein 1989). Its coefficients solve a linear system whose right-hand side is the points' targets, so the
    inverse of the system's matrix, applied to the basis functions at every pixel, is known beforehand.
    """
    points = _fiducials(n)

    def basis(p):
        squared = np.sum((p[..., None, :] - points) ** 2, axis=-1)
        bending = squared * np.log(np.where(squared == 0, 1, squared))
        return np.concatenate([bending, np.ones((*p.shape[:-1], 1)), p], axis=-1)

    at_points = basis(points)
    constraints = np.concatenate([at_points[:, n:].T, np.zeros((3, 3))], axis=1)
    system = np.concatenate([at_points, constraints])
    targets = np.eye(n + 3, n)  # the identity for the points, zeros for the three constraints
    return basis(_normalised_grid(out_size)) @ np.linalg.solve(system, targets)
