"""The sampler against torch, finite differences, and the properties it must have.

tests/goldens/grid_sample.json was written in the repository's root, by torch 2.13.0 on a CPU and these lines:

    import json, torch
    from torch.nn.functional import affine_grid, grid_sample
    torch.manual_seed(0)
    round3 = lambda t: (t * 1000).round() / 1000
    cases = []
    for H, W, C, points in [(3, 4, 2, 30), (5, 1, 1, 10), (1, 1, 1, 4)]:
        image = round3(torch.rand(C, H, W, dtype=torch.float64)).requires_grad_()
        grid = round3(3 * torch.rand(points, 2, dtype=torch.float64) - 1.5).requires_grad_()
        case = {"image": image.permute(1, 2, 0).tolist(), "grid": grid.tolist()}
        for padding in ("border", "zeros"):
            how = dict(mode="bilinear", padding_mode=padding, align_corners=True)
            out = grid_sample(image[None], grid[None, None], **how)[0, :, 0].T
            d_image, d_grid = torch.autograd.grad(out.square().sum(), (image, grid))
            case[padding] = {"out": out.tolist(), "d_grid": d_grid.tolist()}
            case[padding]["d_image"] = d_image.permute(1, 2, 0).tolist()
        cases.append(case)
    theta = torch.tensor([[0.9, -0.2, 0.1], [0.3, 1.1, -0.4]], dtype=torch.float64)
    affine = {}
    for h, w in [(3, 5), (1, 4)]:
        affine[f"{h}x{w}"] = affine_grid(theta[None], (1, 1, h, w), align_corners=True)[0].tolist()
    text = json.dumps({"cases": cases, "theta": theta.tolist(), "affine": affine})
    text = json.dumps(json.loads(text, parse_float=lambda s: round(float(s), 9)))
    open("tests/goldens/grid_sample.json", "w").write(text)
"""

import inspect
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.interpolate import RBFInterpolator

from crnn_jax.sampler import affine_grid, bilinear_sample, identity_fiducials, tps_grid

GOLDENS = json.loads((Path(__file__).parent / "goldens" / "grid_sample.json").read_text())
IDENTITY = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
THETA = np.array([[0.8, 0.13, 0.11], [-0.17, 0.7, 0.06]], np.float32)


def to_pixels(normalised, size):
    height, width = size
    return (np.asarray(normalised) + 1) / 2 * np.array([width - 1, height - 1])


def random_image(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def warped(image, theta, **options):
    """The image, seen through theta, at its own size."""

    @jax.jit
    def warp(image, theta):
        size = image.shape[:2]
        return bilinear_sample(image, affine_grid(theta, out_size=size, in_size=size), **options)

    return warp(image, jnp.asarray(theta))


@pytest.mark.parametrize("outside", ["border", "zeros"])
@pytest.mark.parametrize("case", GOLDENS["cases"], ids=["3x4x2", "5x1x1", "1x1x1"])
def test_equals_torch_grid_sample(case, outside):
    image = np.array(case["image"], np.float32)
    xy = to_pixels(case["grid"], image.shape[:2]).astype(np.float32)

    def loss(image, xy):
        values = bilinear_sample(image, xy, outside=outside)
        return jnp.sum(values**2), values

    (_, values), (d_image, d_xy) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(image, xy)
    expected = case[outside]
    np.testing.assert_allclose(values, np.array(expected["out"]), atol=1e-5)
    np.testing.assert_allclose(d_image, np.array(expected["d_image"]), atol=1e-5)
    # torch's gradient is that of its normalised coordinates; one pixel is 2 / (size - 1) of them.
    height, width = image.shape[:2]
    d_grid = d_xy * np.array([(width - 1) / 2, (height - 1) / 2], np.float32)[None]
    np.testing.assert_allclose(d_grid, np.array(expected["d_grid"]), atol=1e-5)


@pytest.mark.parametrize("out_size", [(3, 5), (1, 4)])
def test_affine_grid_equals_torch(out_size):
    theta, in_size = jnp.array(GOLDENS["theta"]), (7, 9)
    grid = affine_grid(theta, out_size=out_size, in_size=in_size)
    expected = to_pixels(GOLDENS["affine"]["{}x{}".format(*out_size)], in_size)
    np.testing.assert_allclose(grid, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 100), (5, 7), (1, 6), (31, 1), (1, 1)])
def test_identity_is_exact_up_to_the_last_row_and_column(size):
    @jax.jit
    def grids_and_values(image, theta, fiducials):
        grids = [affine_grid(theta, out_size=size, in_size=size), tps_grid(fiducials, out_size=size, in_size=size)]
        return grids, [bilinear_sample(image, xy, outside=outside) for xy in grids for outside in ("border", "zeros")]

    image = random_image(*size, 1)
    grids, values = grids_and_values(image, jnp.asarray(IDENTITY), jnp.asarray(identity_fiducials(20)))
    rows, columns = np.indices(size)
    for grid in grids:
        np.testing.assert_array_equal(grid, np.stack([columns, rows], axis=-1))
    for value in values:
        np.testing.assert_array_equal(value, image)


def test_corners_meet_corners_at_any_sizes():
    sizes = {"out_size": (4, 6), "in_size": (11, 23)}
    grids = [affine_grid(jnp.asarray(IDENTITY), **sizes), tps_grid(jnp.asarray(identity_fiducials(6)), **sizes)]
    for grid in np.asarray(grids):
        corners = grid[[0, 0, -1, -1], [0, -1, 0, -1]]
        np.testing.assert_allclose(corners, [[0, 0], [22, 0], [0, 10], [22, 10]], atol=1e-5)
        np.testing.assert_allclose(np.diff(grid[..., 0], axis=1), 22 / 5, atol=1e-5)
        np.testing.assert_allclose(np.diff(grid[..., 1], axis=0), 10 / 3, atol=1e-5)


def test_translation_moves_by_pixels_and_repeats_the_border():
    image = random_image(5, 9, 2)
    right, down = 2, 1
    theta = IDENTITY + np.array([[0, 0, 2 * right / 8], [0, 0, 2 * down / 4]], np.float32)
    padded = np.pad(image, ((0, down), (0, right), (0, 0)), mode="edge")
    np.testing.assert_allclose(warped(image, theta), padded[down:, right:], atol=1e-6)
    blackened = np.pad(image, ((0, down), (0, right), (0, 0)))
    np.testing.assert_allclose(warped(image, theta, outside="zeros"), blackened[down:, right:], atol=1e-6)


def test_flips():
    image = random_image(5, 8, 2)
    np.testing.assert_allclose(warped(image, IDENTITY * np.array([[-1], [1]])), image[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(warped(image, IDENTITY * np.array([[1], [-1]])), image[::-1], atol=1e-5)


def test_outside_is_the_nearest_pixel_or_zero():
    image = random_image(4, 6, 3)
    xy = jnp.array([[-7, -3], [-1e6, 1.5], [8, 1], [40, 40], [2, -2], [2.25, 9]])
    nearest = jnp.clip(xy, 0, jnp.array([[5.0, 3.0]]))
    np.testing.assert_allclose(bilinear_sample(image, xy), bilinear_sample(image, nearest), atol=1e-6)
    np.testing.assert_array_equal(bilinear_sample(image, xy[:1])[0], image[0, 0])
    np.testing.assert_array_equal(bilinear_sample(image, xy[3:4])[0], image[3, 5])
    assert not np.any(bilinear_sample(image, xy, outside="zeros"))
    with pytest.raises(ValueError, match="border or zeros"):
        bilinear_sample(image, xy, outside="wrap")


def test_gradients_in_float64():
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        image = jnp.asarray(random_image(4, 5, 2), jnp.float64)
        # Off the integers, where the interpolant has kinks; some points lie outside.
        xy = jnp.asarray(rng.integers(-2, 6, (3, 4, 2)) + rng.uniform(0.2, 0.8, (3, 4, 2)))
        both = jax.jit(lambda image, xy: [bilinear_sample(image, xy, outside=o) for o in ("border", "zeros")])
        check_grads(both, (image, xy), order=1)

        sizes = {"out_size": (2, 3), "in_size": (4, 5)}
        theta = jnp.asarray(THETA, jnp.float64)
        fiducials = identity_fiducials(6) + jnp.asarray(rng.uniform(-0.2, 0.1, (6, 2)))
        grids = [affine_grid(theta, **sizes), tps_grid(fiducials, **sizes)]
        assert all(1e-3 < np.min(xy % 1) and np.max(xy % 1) < 1 - 1e-3 for xy in grids)  # check_grads steps by 1e-5

        @jax.jit
        def sampled(image, theta, fiducials):
            grids = [affine_grid(theta, **sizes), tps_grid(fiducials, **sizes)]
            return [bilinear_sample(image, xy) for xy in grids]

        check_grads(sampled, (image, theta, fiducials), order=1)


def test_gradient_at_integers_is_the_right_hand_derivative():
    image = random_image(4, 6, 1)
    rows, columns = np.indices((4, 6))
    xy = jnp.stack([columns, rows], axis=-1).astype(jnp.float32)
    d_xy = jax.jit(jax.grad(lambda xy: jnp.sum(bilinear_sample(image, xy))))(xy)
    to_the_right = np.diff(image[..., 0], axis=1, append=image[:, -1:, 0])  # zero in the last column: the border's
    downwards = np.diff(image[..., 0], axis=0, append=image[-1:, :, 0])
    np.testing.assert_allclose(d_xy, np.stack([to_the_right, downwards], axis=-1), atol=1e-6)


def test_identity_start_has_a_gradient_for_theta():
    image = random_image(4, 6, 1)
    d_theta = jax.jit(jax.grad(lambda theta: jnp.sum(image * warped(image, theta))))(jnp.asarray(IDENTITY))
    assert np.abs(d_theta).min() > 1e-3


def test_spline_through_affinely_moved_points_is_the_affine_map():
    sizes = {"out_size": (6, 9), "in_size": (32, 100)}
    moved = jnp.asarray(identity_fiducials(8)) @ THETA[:, :2].T + THETA[None, :, 2]
    expected = affine_grid(jnp.asarray(THETA), **sizes)
    np.testing.assert_allclose(jax.jit(partial(tps_grid, **sizes))(moved), expected, atol=1e-4)


def test_spline_equals_scipy():
    n, out_size, in_size = 8, (4, 7), (32, 100)
    fiducials = jnp.asarray(identity_fiducials(n)) + 0.1 * random_image(n, 2)
    spline = RBFInterpolator(identity_fiducials(n), to_pixels(fiducials, in_size), kernel="thin_plate_spline")
    x, y = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 4))
    expected = spline(np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(4, 7, 2)
    np.testing.assert_allclose(tps_grid(fiducials, out_size=out_size, in_size=in_size), expected, atol=1e-4)


def test_spline_passes_through_its_points_and_bends_between_them():
    n, in_size = 8, (32, 100)
    fiducials = identity_fiducials(n) + 0.1 * random_image(n, 2)
    grid = tps_grid(fiducials, out_size=(2, n // 2), in_size=in_size)  # its pixels are the fiducial points
    np.testing.assert_allclose(np.asarray(grid).reshape(n, 2), to_pixels(fiducials, in_size), atol=1e-4)
    # One point moved by itself: every other one stays, and the middle of the image moves by a fraction.
    identity = jnp.asarray(identity_fiducials(n))
    grid = jax.jit(partial(tps_grid, out_size=(3, 7), in_size=(3, 7)))
    shift = grid(identity.at[1, 1].add(0.4)) - grid(identity)
    np.testing.assert_allclose(shift[0, 2, 1], 0.4, atol=1e-5)
    np.testing.assert_allclose(np.asarray(shift[::2, ::2, 1])[[0, 0, 0, 1, 1], [0, 2, 3, 0, 1]], 0, atol=1e-5)
    assert 0.05 < float(shift[1, 2, 1]) < 0.35
    with pytest.raises(ValueError, match="even number"):
        identity_fiducials(7)


SIZES = {"out_size": (2, 3), "in_size": (4, 5)}


@pytest.mark.parametrize(
    ("function", "examples"),
    [
        (bilinear_sample, (random_image(3, 4, 5, 2), 4 * random_image(3, 2, 3, 2))),
        (partial(affine_grid, **SIZES), (THETA[None] + 0.1 * random_image(3, 2, 3),)),
        (partial(tps_grid, **SIZES), (identity_fiducials(4)[None] + 0.1 * random_image(3, 4, 2),)),
    ],
    ids=["bilinear_sample", "affine_grid", "tps_grid"],
)
def test_vmap_is_a_loop_and_jit_is_eager(function, examples):
    loop = np.stack([function(*one) for one in zip(*examples, strict=True)])
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(*examples), loop, atol=2e-6)


def test_bfloat16_values_at_float32_coordinates():
    image = random_image(4, 300, 1)
    xy = affine_grid(jnp.asarray(THETA, jnp.bfloat16), out_size=(4, 300), in_size=(4, 300))
    assert xy.dtype == jnp.float32
    values = bilinear_sample(jnp.asarray(image, jnp.bfloat16), xy)
    assert values.dtype == jnp.bfloat16
    np.testing.assert_allclose(values.astype(jnp.float32), bilinear_sample(image, xy), atol=0.03)


@pytest.mark.parametrize("settings", [1, 2])
def test_grids_of_a_population_are_those_of_its_networks(settings):
    """Under vmap over settings, seeds and examples, as in stn_study.py: a compiler got such a sum wrong."""
    sizes = {"out_size": (8, 20), "in_size": (10, 26)}
    thetas = IDENTITY + 0.1 * np.random.default_rng(0).normal(size=(settings, 3, 16, 2, 3)).astype(np.float32)
    fiducials = identity_fiducials(6) @ thetas[..., :2].swapaxes(-1, -2)
    for grid, parameters in ((affine_grid, thetas), (tps_grid, fiducials)):
        one = partial(grid, **sizes)
        mapped = jax.jit(jax.vmap(jax.vmap(jax.vmap(one))))(parameters)
        alone = jax.jit(jax.vmap(one))(parameters.reshape(-1, *parameters.shape[3:]))
        np.testing.assert_allclose(mapped.reshape(alone.shape), alone, atol=1e-4)


def test_what_cannot_be_sampled_is_refused():
    """Bytes, whose differences wrap, and parameters that are not yet a matrix."""
    grid, sizes = jnp.zeros((1, 2)), {"out_size": (4, 6), "in_size": (4, 6)}
    with pytest.raises(ValueError, match="image has dtype uint8: expected floating-point numbers"):
        inspect.unwrap(bilinear_sample)(np.zeros((2, 2, 1), np.uint8), grid)
    for flat in (jnp.zeros(6), jnp.zeros((2, 2))):
        with pytest.raises(ValueError, match=r"theta has shape .*: expected \(2, 3\), for one image"):
            inspect.unwrap(affine_grid)(flat, **sizes)
    image = np.arange(24.0).reshape(4, 6, 1)  # float64, of NumPy
    identity = inspect.unwrap(affine_grid)(np.eye(2, 3), **sizes)
    np.testing.assert_array_equal(inspect.unwrap(bilinear_sample)(image, identity), image)
