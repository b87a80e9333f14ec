"""The spatial transformer: where it starts, that it can leave, how far it may go."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from crnn_jax.config import StnConfig
from crnn_jax.sampler import identity_fiducials
from crnn_jax.stn import (
    Diagnosis,
    SpatialTransformer,
    collapse,
    deviation,
    edge_points,
    kept_contrast,
    outside_share,
    parameter_grid,
    start_parameters,
)

SIZE = (6, 10)
CASES = {"affine": (1, 0.0), "tps": (5, 0.5)}  # channels (an image, a feature map) and bound
both_kinds = pytest.mark.parametrize("kind", CASES)


def small(kind, **options):
    dtype = options.pop("dtype", jnp.float32)
    config = StnConfig(**{"kind": kind, "fiducials": 6, "bound": CASES[kind][1], "features": (4,)} | options)
    return SpatialTransformer(config, localisation_size=(4, 8), localisation_hidden=8, dtype=dtype)


def random_images(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def inputs(kind):
    return random_images(3, *SIZE, CASES[kind][0])


@cache  # compiling is what takes time in this file
def initialised(kind, **options):
    """The variables that training starts from, and what the transformer makes of its inputs with them."""
    key = jax.random.key(0, impl="rbg")  # compiles in a third of the time
    init = jax.jit(partial(small(kind, **options).init_with_output, out_size=SIZE, train=False))
    (y, parameters), variables = init(key, inputs(kind))
    return variables, y, parameters


def with_last_kernel(variables, scale):
    """The variables with weights in the last layer, which is zero at the start."""
    kernel = variables["params"]["localisation"]["last"]["kernel"]
    params = jax.tree.map(lambda x: x, variables["params"])
    params["localisation"]["last"]["kernel"] = scale * random_images(*kernel.shape)
    return variables | {"params": params}


def applied(stn, variables, x, *, out_size=SIZE):
    return jax.jit(partial(stn.apply, out_size=out_size, train=False))(variables, x)


@both_kinds
def test_identity_start_returns_its_input(kind):
    _, y, parameters = initialised(kind)
    np.testing.assert_array_equal(y, inputs(kind))
    np.testing.assert_array_equal(parameters, np.stack([start_parameters(kind=kind, fiducials=6)] * 3))


def test_identity_start_shrinks_a_larger_image():
    height, width = 2 * SIZE[0], 2 * SIZE[1]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    ramp = jnp.asarray(2 * columns - 3 * rows)[None, :, :, None]  # linear, so that interpolation is exact
    y, _ = applied(small("tps"), initialised("tps")[0], jnp.tile(ramp, (1, 1, 1, 5)), out_size=SIZE)
    expected = 2 * np.linspace(0, width - 1, SIZE[1])[None] - 3 * np.linspace(0, height - 1, SIZE[0])[:, None]
    np.testing.assert_allclose(y[0, :, :, 3], expected, atol=1e-4)


@both_kinds
def test_gradients_reach_the_localisation_net(kind):
    variables, x = initialised(kind)[0], inputs(kind)

    @jax.jit
    def gradients(params):
        def loss(params):
            options = {"out_size": SIZE, "train": True, "mutable": ["batch_stats"]}
            (y, _), _ = small(kind).apply(variables | {"params": params}, x, **options)
            return jnp.mean((y - x[::-1]) ** 2)

        return jax.grad(loss)(params)["localisation"]

    def largest(tree):
        return [float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree)]

    first = gradients(variables["params"])
    assert min(largest(first["last"])) > 1e-5
    # The last layer's weights are zero, so no gradient reaches the layers before it until its first step.
    assert max(largest(first["convolutions"])) == 0
    second = gradients(with_last_kernel(variables, 0.1)["params"])
    assert min(largest(second["convolutions"])) > 0


def test_a_transformer_learns_to_centre_a_blob():
    rows, columns = np.mgrid[0:12, 0:12].astype(np.float32)

    def blobs(centres):
        y, x = centres[:, 0, None, None], centres[:, 1, None, None]
        return jnp.asarray(np.exp(-((rows[None] - y) ** 2 + (columns[None] - x) ** 2) / 8))[..., None]

    images = blobs(np.random.default_rng(0).uniform(3, 8, (32, 2)).astype(np.float32))
    target = blobs(np.full((1, 2), 5.5, np.float32))
    variables, stn, optimizer = initialised("affine")[0], small("affine", feature_gain=1.0), optax.adam(1e-2)

    def step(carry, _):
        variables, opt_state = carry

        def loss(params):
            options = {"out_size": (12, 12), "train": True, "mutable": ["batch_stats"]}
            (y, _), updated = stn.apply(variables | {"params": params}, images, **options)
            return jnp.mean((y - target) ** 2), updated

        (value, updated), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(grads, opt_state)
        return ({"params": optax.apply_updates(variables["params"], updates)} | updated, opt_state), value

    carry = variables, optimizer.init(variables["params"])
    losses = jax.jit(lambda carry: jax.lax.scan(step, carry, length=200)[1])(carry)
    assert float(losses[-1]) < 0.1 * float(losses[0])


def test_bound_holds_for_any_weights():
    variables, *_ = initialised("tps")
    _, parameters = applied(small("tps"), with_last_kernel(variables, 100), inputs("tps"))
    distance = np.abs(parameters - start_parameters(kind="tps", fiducials=6)[None])
    assert 0.4 < distance.max() <= 0.5 + 1e-6
    assert distance.std(axis=0).max() > 0  # each image has a transform of its own


def test_gain_scales_what_the_features_do():
    variables, start = with_last_kernel(initialised("affine")[0], 1.0), start_parameters(kind="affine")
    one, tenth = (
        applied(small("affine", feature_gain=gain), variables, inputs("affine"))[1] - start[None] for gain in (1.0, 0.1)
    )
    assert np.abs(one).max() > 0.1
    np.testing.assert_allclose(tenth, 0.1 * one, atol=1e-5)


def in_training(stn, variables, x, *, seed=0):
    """Output and parameters in training, where a bypass draws."""
    options = {"out_size": SIZE, "train": True, "mutable": ["batch_stats"], "rngs": {"dropout": jax.random.key(seed)}}
    return stn.apply(variables, x, **options)[0]


def test_bypassed_examples_are_not_transformed():
    variables, x = with_last_kernel(initialised("affine")[0], 1.0), jnp.tile(inputs("affine"), (8, 1, 1, 1))
    identity = start_parameters(kind="affine")
    moved = in_training(small("affine"), variables, x)[1]
    assert np.abs(moved - identity[None]).max(axis=1).min() > 0.01
    y, parameters = in_training(small("affine", bypass=0.5), variables, x)
    passed = np.all(parameters == identity[None], axis=1)
    assert 4 < passed.sum() < len(x) - 4
    np.testing.assert_allclose(parameters[~passed], moved[~passed], atol=1e-6)
    plain = in_training(small("affine"), variables | {"settings": {"bypass": 1.0}}, x)[0]
    np.testing.assert_allclose(y[passed], plain[passed], atol=1e-6)
    assert np.abs(y[~passed] - plain[~passed]).max() > 0.1
    # Only in training.
    read = [applied(small("affine", bypass=bypass), variables, x)[1] for bypass in (0.0, 0.9)]
    np.testing.assert_array_equal(*read)


def test_settings_stand_for_the_attributes_and_can_be_mapped_over():
    variables, x = with_last_kernel(initialised("tps")[0], 1.0), inputs("tps")
    gains, bypasses = jnp.array([0.1, 0.5, 1.0]), jnp.array([0.5, 0.0, 0.9])

    def of(gain, bypass):
        settings = {"bypass": bypass, "localisation": {"gain": gain}}
        return in_training(small("tps"), variables | {"settings": settings}, x)

    mapped = jax.vmap(of)(gains, bypasses)
    for i, (gain, bypass) in enumerate(zip(gains.tolist(), bypasses.tolist(), strict=True)):
        expected = in_training(small("tps", feature_gain=gain, bypass=bypass), variables, x)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-5), mapped, expected)
    assert np.abs(mapped[1][1] - mapped[1][2]).max() > 0.05


def test_outside_the_input_lies_its_border_or_nothing():
    variables, x = with_last_kernel(initialised("affine")[0], 0.0), 1 + inputs("affine") ** 2
    shift = jnp.array([1.0, 0, 5, 0, 1, 0])  # far to the right
    variables["params"]["localisation"]["last"]["bias"] = shift
    border, _ = applied(small("affine"), variables, x)
    zeros, _ = applied(small("affine", outside="zeros"), variables, x)
    assert float(border.min()) >= 1 and float(jnp.abs(zeros).max()) == 0


def test_a_bounded_net_starts_from_a_disturbed_start():
    _, _, parameters = initialised("tps", start="disturbed", disturbance=0.1)
    start = start_parameters(kind="tps", start="disturbed", disturbance=0.1, fiducials=6)
    np.testing.assert_allclose(parameters, np.stack([start] * 3), atol=1e-6)


def test_bfloat16_keeps_float32_coordinates():
    variables, x = with_last_kernel(initialised("tps")[0], 1.0), inputs("tps")
    y, parameters = applied(small("tps", dtype=jnp.bfloat16), variables, x)
    assert y.dtype == parameters.dtype == jnp.float32
    exact = applied(small("tps"), variables, x)[1]
    assert np.abs(exact - start_parameters(kind="tps", fiducials=6)[None]).max() > 0.05
    np.testing.assert_allclose(parameters, exact, atol=0.01)


def test_what_cannot_be_is_said_in_one_line():
    with pytest.raises(ValueError, match="too many for an input"):
        initialised("tps", features=(4,) * 4)
    with pytest.raises(ValueError, match="affine or tps"):
        start_parameters(kind="none")


def test_disturbed_start_is_a_slope_within_the_image():
    halves = start_parameters(kind="tps", start="disturbed", disturbance=0.5, fiducials=6).reshape(2, 3, 2)
    np.testing.assert_allclose(halves[..., 0], [[-1, 0, 1]] * 2)
    np.testing.assert_allclose(halves[..., 1], [[0, -0.5, -1], [1, 0.5, 0]])  # RARE, fig. 6a, in DTRB's numbers
    sizes = {"out_size": (4, 7), "in_size": (16, 50)}
    options = {"start": "disturbed", "disturbance": 0.1}
    grids = [
        parameter_grid(jnp.asarray(start_parameters(kind=kind, **options)), kind=kind, **sizes)
        for kind in ("affine", "tps")
    ]
    np.testing.assert_allclose(grids[0], grids[1], atol=1e-4)
    assert outside_share(grids[0], size=(16, 50)) == 0
    with pytest.raises(ValueError, match="identity or disturbed"):
        start_parameters(kind="tps", start="random")


def test_deviation_is_the_distance_that_points_move():
    for kind in ("affine", "tps"):
        assert float(deviation(jnp.asarray(start_parameters(kind=kind)), kind=kind)) < 1e-6
    shifted = identity_fiducials(8) + jnp.array([[0.3, -0.4]])
    np.testing.assert_allclose(deviation(shifted.reshape(-1), kind="tps"), 0.5, rtol=1e-5)
    np.testing.assert_allclose(deviation(jnp.array([1, 0, 0.3, 0, 1, -0.4]), kind="affine"), 0.5, rtol=1e-5)
    slope = {"start": "disturbed", "disturbance": 0.2, "fiducials": 20}
    both = [deviation(jnp.asarray(start_parameters(kind=kind, **slope)), kind=kind) for kind in ("affine", "tps")]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-5)
    assert both[0] > 0.1


def test_outside_share_counts_points_beyond_the_pixels():
    xy = jnp.array([[0, 0], [-0.4, 3.4], [-0.6, 1], [5.6, 1], [2, 3.6], [5.4, -0.4], [2, -1], [3, 2]])
    assert float(outside_share(xy, size=(4, 6))) == 0.5


def test_edge_points_are_the_spline_points_or_what_theta_makes_of_them():
    slope = {"start": "disturbed", "disturbance": 0.2, "fiducials": 8}
    spline, affine = (jnp.asarray(start_parameters(kind=kind, **slope)) for kind in ("tps", "affine"))
    np.testing.assert_array_equal(edge_points(spline, kind="tps"), spline.reshape(4 * 2, 2))
    np.testing.assert_allclose(edge_points(affine, kind="affine", corners=8), spline.reshape(-1, 2), atol=1e-6)


def test_kept_contrast_is_that_of_the_pixels():
    x = random_images(*SIZE, 3)
    even = jnp.ones((4, 5, 3)) * jnp.array([0.0, 1.0, 5.0])[None, None]  # within each channel
    assert float(kept_contrast(x, x)) == 1.0
    np.testing.assert_allclose(kept_contrast(x, 0.5 * x[::-1] + 7), 0.5, atol=1e-3)
    np.testing.assert_allclose(kept_contrast(x, even), 0, atol=2e-3)
    assert float(kept_contrast(even, even)) == 1.0  # there was none to lose


def test_every_example_is_diagnosed():
    """Each on its own, by the parameters that it was resampled with."""
    variables, x = with_last_kernel(initialised("affine")[0], 1.0), inputs("affine")
    options = {"out_size": SIZE, "train": False, "mutable": ["diagnostics"]}
    (y, parameters), updated = small("affine").apply(variables, x, **options)
    for i in range(len(x)):
        grid = parameter_grid(parameters[i], kind="affine", out_size=SIZE, in_size=SIZE)
        expected = Diagnosis(
            deviation(parameters[i], kind="affine"), outside_share(grid, size=SIZE), kept_contrast(x[i], y[i])
        )
        got = [updated["diagnostics"][f"stn_{name}"][i] for name in Diagnosis._fields]
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)


def test_a_collapse_is_an_even_image_or_samples_outside():
    assert collapse(Diagnosis(0.9, 0.1, 0.8)) is None and collapse(Diagnosis(0.0, 0.0, 1.0)) is None
    assert collapse(Diagnosis(0.9, 0.1, 0.05)) == "only 5 % of its input's contrast is left"
    assert collapse(Diagnosis(0.9, 0.7, 0.8)) == "70 % of its samples lie outside the input"
    assert collapse(Diagnosis(1.44, 0.1, 0.8)) == "its edges have moved by 1.4 (the image is 2 wide)"
    assert collapse(Diagnosis(9.0, 0.7, 0.1)).count(", and ") == 2
    # Half of the examples bypassed it, unchanged: the others are twice as bad as the mean.
    assert collapse(Diagnosis(0.4, 0.4, 0.9), bypass=0.5) == "80 % of its samples lie outside the input"
    assert collapse(Diagnosis(0.4, 0.1, 0.55), bypass=0.5) == "only 10 % of its input's contrast is left"
    assert collapse(Diagnosis(0.6, 0.1, 0.9), bypass=0.5).startswith("its edges have moved by 1.2 ")
    assert collapse(Diagnosis(0.1, 0.2, 0.9), bypass=0.5) is None and collapse(Diagnosis(0, 0, 1), bypass=1.0) is None
