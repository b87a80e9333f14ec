"""The ancestor's network: its size by arithmetic, and that each fault changes what it should and nothing else."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from crnn_jax.ancestor import FAULTS, KerasTransformer, build_keras, fold_padding, keras_sample, pad_labels
from crnn_jax.cnn import stack_size
from crnn_jax.config import ConfigError, ModelConfig, StnConfig
from crnn_jax.ctc import ctc_loss, greedy_decode
from crnn_jax.lstm import BiLSTM
from crnn_jax.model import build, count_parameters, num_frames
from crnn_jax.sampler import affine_grid, bilinear_sample
from crnn_jax.stacks import KERAS, KERAS_NARROW, STACKS, KerasLayer

FULL = ModelConfig(
    height=31,
    width=200,
    fit="pad",
    max_width=200,
    cnn="keras",
    lstm_layers=2,
    dropout=0.25,
    stn=StnConfig(kind="affine", placement="block7"),
)
# As many layers, a few channels each, and small images: 10 frames of 3 rows.
TOY = replace(FULL, cnn="keras_narrow", height=12, width=40, max_width=40, lstm_features=8, dropout=0.0)
IDENTITY = jnp.eye(2, 3)


@pytest.fixture(autouse=True)
def toy_stack(monkeypatch):
    monkeypatch.setitem(
        STACKS, "keras_narrow", tuple((block[0]._replace(features=4), *block[1:]) for block in KERAS_NARROW)
    )


def images(count=3):
    return jax.random.randint(jax.random.key(7), (count, 12, 40), 0, 256).astype(jnp.uint8)


def network(*faults, **stn):
    return build(replace(TOY, stn=replace(TOY.stn, **stn))).clone(faults=faults)


@cache  # compiling is what takes time in this file
def initialised(*faults):
    return jax.jit(network(*faults).init)(jax.random.key(0, impl="rbg"), images())  # "rbg" compiles sooner


@cache
def applied(*faults):
    """What a network with these faults makes of the images, with the mended network's weights."""
    return jax.jit(network(*faults).apply)(initialised(), images())


def shapes(model, config):
    zeros = jnp.zeros((1, config.height, config.width), jnp.uint8)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), zeros))


def test_the_full_network_has_the_ancestors_size():
    channels = [1, 64, 128, 256, 256, 512, 512, 512]
    convolutions = sum(9 * a * b + b for a, b in zip(channels, channels[1:], strict=False))
    norms = 2 * (256 + 512 + 512)
    stn = (25 * 512 * 16 + 16) + (25 * 16 * 32 + 32) + (50 * 7 * 32 * 64 + 64) + (64 * 6 + 6)
    lstm = 2 * (2 * 128 * 4 * 128 + 4 * 128)  # two directions
    head = 256 * 38 + 38
    expected = convolutions + norms + stn + (7 * 512 * 128 + 128) + 2 * lstm + head
    assert count_parameters(shapes(build(FULL).clone(faults=FAULTS), FULL)) == expected
    assert count_parameters(shapes(build(FULL), FULL)) == expected + 2 * 64 - 257  # conv_1's norm, no padding class


def test_its_features_are_50_frames_of_seven_rows():
    assert stack_size(KERAS, (31, 200)) == (7, 50)
    assert num_frames(FULL, 200) == 50
    model = build(FULL)
    image = jax.ShapeDtypeStruct((2, 31, 200), jnp.uint8)
    assert jax.eval_shape(model.apply, shapes(model, FULL), image).shape == (2, 50, 37)
    faulty = model.clone(faults=FAULTS)
    variables = shapes(faulty, FULL)
    assert jax.eval_shape(faulty.apply, variables, image).shape == (2, 48, 37)
    rngs = {"dropout": jax.random.key(0)}
    train = partial(faulty.apply, train=True, mutable=["batch_stats"], rngs=rngs)
    assert jax.eval_shape(train, variables, image)[0].shape == (2, 48, 38)


def test_a_narrow_stack_has_an_eighth_of_the_channels():
    def channels(table):
        return [layer.features for block in table for layer in block if isinstance(layer, KerasLayer)]

    assert channels(KERAS) == [8 * features for features in channels(KERAS_NARROW)]


def test_an_unknown_fault_is_named():
    with pytest.raises(ValueError, match="unknown fault 'smapler': expected any of sampler, backward"):
        shapes(network("smapler"), TOY)


@pytest.mark.parametrize("fault", ["sampler", "backward", "range"])
def test_a_fault_without_weights_of_its_own_changes_what_is_read(fault):
    """The norm's and the padding's weights differ; the discarded frames have a test of their own."""
    mended, faulty = applied(), applied(fault)
    assert mended.shape == faulty.shape
    assert np.abs(mended - faulty).max() > 1e-3


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_changes_only_the_weights_that_it_should(fault):
    mended, faulty = (set(leaf_shapes(shapes(network(*faults), TOY))) for faults in ((), (fault,)))
    changed = {path for path, _ in mended ^ faulty}
    assert {path[:2] for path in changed} == {
        "norm": {("params", "block1"), ("batch_stats", "block1")},
        "padding": {("params", "head")},
    }.get(fault, set())


def leaf_shapes(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(tuple(entry.key for entry in path), leaf.shape) for path, leaf in leaves]


def test_the_discarded_frames_are_the_first_two():
    np.testing.assert_array_equal(applied("discard"), applied()[:, 2:])


def test_without_normalisation_the_first_convolution_sees_0_to_255():
    for faults, low, high in (((), -1, 1), (("range",), 0, 255)):
        extremes = jnp.array([0, 255], jnp.uint8).reshape(1, 1, 2)
        seen = network(*faults).apply({}, extremes, method="_normalise")
        np.testing.assert_array_equal(seen.reshape(2), [low, high])


def test_the_dead_norm_is_no_norm():
    """With the statistics of a fresh norm, mean 0 and variance 1, a live one only divides by sqrt(1.001)."""
    variables = jax.tree.map(lambda leaf: leaf, initialised())  # a copy of the dictionaries
    variables["params"]["block1"]["BatchNorm_0"]["scale"] *= np.sqrt(1 + 1e-3)
    living = jax.jit(network().apply)(variables, images())
    np.testing.assert_allclose(applied("norm"), living, atol=1e-4)


def test_the_backward_fault_leaves_the_backward_half_unturned():
    """Recomputes the layers between the convolutions and the head from the weights."""
    variables = initialised()
    params = variables["params"]
    features = jax.jit(partial(network().apply, train=False, method="_features"))(variables, images())
    for faults, turn in (((), 1), (("backward",), -1)):
        x = jax.nn.relu(features @ params["dense"]["kernel"] + params["dense"]["bias"][None, None])
        halves = []
        for name in ("lstm1", "lstm2"):
            y = BiLSTM(8).apply({"params": params[name]}, x)
            halves = [y[..., :8], y[:, ::turn, 8:]]
            x = sum(halves)
        expected = jnp.concatenate(halves, axis=-1) @ params["head"]["kernel"] + params["head"]["bias"][None, None]
        np.testing.assert_allclose(applied(*faults), expected, atol=1e-4)


def test_at_the_identity_the_faulty_sampler_zeroes_the_last_row_and_column():
    image = 1 + jax.random.uniform(jax.random.key(0), (7, 10, 3))
    faulty = keras_sample(image, IDENTITY)
    np.testing.assert_allclose(faulty[-1], 0, atol=1e-5)
    np.testing.assert_allclose(faulty[:, -1], 0, atol=1e-5)
    assert faulty[:-1, :-1].min() > 0.9
    assert np.abs(faulty - image)[:-1, :-1].max() > 0.1  # the rest is enlarged by W / (W - 1)
    ours = bilinear_sample(image, affine_grid(IDENTITY, out_size=(7, 10), in_size=(7, 10)))
    np.testing.assert_array_equal(ours, image)


def test_the_faulty_sampler_agrees_with_the_formula_written_out():
    """Pixel by pixel in NumPy, as `keras_sample` describes it; theta looks beyond all four edges."""
    rng = np.random.default_rng(0)
    image, theta = rng.normal(size=(5, 8, 2)).astype(np.float32), np.array([[1.4, 0.2, -0.3], [-0.1, 1.3, 0.2]])
    expected = np.zeros_like(image)
    for row, v in enumerate(np.linspace(-1, 1, 5)):
        for column, u in enumerate(np.linspace(-1, 1, 8)):
            x, y = (theta @ [u, v, 1] + 1) / 2 * [8, 5]
            x0, x1 = np.clip([np.floor(x), np.floor(x) + 1], 0, 7)
            y0, y1 = np.clip([np.floor(y), np.floor(y) + 1], 0, 4)
            for b, wy in ((y0, y1 - y), (y1, y - y0)):
                for a, wx in ((x0, x1 - x), (x1, x - x0)):
                    expected[row, column] += wx * wy * image[int(b), int(a)]
    sampled = keras_sample(jnp.asarray(image), jnp.asarray(theta, jnp.float32))
    np.testing.assert_allclose(sampled, expected, atol=1e-4)


def test_far_outside_the_faulty_sampler_sees_nothing():
    image = jnp.ones((4, 6, 1))
    np.testing.assert_allclose(keras_sample(image, IDENTITY.at[0, 2].set(3.0)), 0, atol=1e-5)


def test_the_mended_stn_starts_as_the_identity_and_tells_how_far_it_is():
    x = jax.random.normal(jax.random.key(0), (2, 5, 8, 3))
    for faulty in (False, True):
        stn = KerasTransformer(faulty, name="stn")
        variables = stn.init(jax.random.key(1), x, out_size=(5, 8), train=False)
        (y, theta), told = stn.apply(variables, x, out_size=(5, 8), train=False, mutable=["diagnostics"])
        assert np.array_equal(y, x) != faulty
        np.testing.assert_array_equal(theta, np.tile([1, 0, 0, 0, 1, 0], (2, 1)))
        assert not told["diagnostics"]["stn_deviation"].any() and not told["diagnostics"]["stn_outside"].any()
    variables["params"]["localisation"]["last"]["bias"] = jnp.array([1.0, 0, 1, 0, 1, 0])
    _, told = stn.apply(variables, x, out_size=(5, 8), train=False, mutable=["diagnostics"])
    np.testing.assert_allclose(told["diagnostics"]["stn_deviation"], 1, rtol=1e-5)
    np.testing.assert_array_equal(told["diagnostics"]["stn_outside"], 3 / 8)
    with pytest.raises(ValueError, match="expected the size of the input"):
        stn.apply(variables, x, out_size=(5, 9), train=False)


@pytest.mark.parametrize("faults", [(), FAULTS], ids=["mended", "faulty"])
def test_a_few_steps_learn(faults):
    model, tx = network(*faults), optax.adam(1e-2)
    labels, lengths = jnp.array([[1, 2], [3, 4], [5, 6]]), jnp.array([2, 1, 2])
    if "padding" in faults:
        labels, lengths = pad_labels(labels, lengths, padding=37, slots=3)

    @jax.jit
    def step(variables, opt_state):
        def loss_fn(params):
            state = {**variables, "params": params}
            logits, updated = model.apply(state, images(), train=True, mutable=["batch_stats"])
            return ctc_loss(logits, labels, lengths)[0].mean(), updated

        (loss, updated), gradients = jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])
        updates, opt_state = tx.update(gradients, opt_state)
        return {"params": optax.apply_updates(variables["params"], updates), **updated}, opt_state, loss, gradients

    variables = initialised(*faults)
    opt_state, losses, reached = tx.init(variables["params"]), [], []
    for _ in range(30):
        variables, opt_state, loss, gradients = step(variables, opt_state)
        losses.append(loss)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
        reached.append(np.abs(gradients["stn"]["localisation"]["conv1"]["kernel"]).max() > 0)
    assert losses[-1] < losses[0] / 2
    assert reached[1] and not reached[0]  # at first the last layer's weights are zero


@pytest.mark.parametrize("placement", ["image", "block1", "block7"])
def test_the_stn_may_be_anywhere(placement):
    model = network(*FAULTS, placement=placement)
    logits = jax.eval_shape(model.apply, shapes(model, TOY), images())
    assert logits.shape == (3, 8, 37)


def test_labels_are_filled_up_with_padding():
    labels, lengths = pad_labels(jnp.array([[1, 2, 2], [3, 0, 0]]), jnp.array([3, 1]), padding=37, slots=5)
    np.testing.assert_array_equal(labels, [[1, 2, 2, 37, 37], [3, 37, 37, 37, 37]])
    np.testing.assert_array_equal(lengths, [5, 5])
    with pytest.raises(ValueError, match="labels of 6 slots do not fit into 5"):
        pad_labels(jnp.ones((1, 6), int), jnp.array([6]), padding=37, slots=5)


def test_folded_padding_reads_as_padding_removed_from_what_was_read():
    """Few classes and many frames, so that blanks, padding and repeats occur in every order."""
    logits = jax.random.normal(jax.random.key(0), (200, 12, 4))  # blank, 1, 2, padding
    folded = fold_padding(logits)
    assert folded.shape == (200, 12, 3)
    decode = jax.jit(jax.vmap(greedy_decode))
    ids, lengths, _ = decode(logits)
    read = [[i for i in row[:n].tolist() if i != 3] for row, n in zip(ids, lengths, strict=True)]
    ids, lengths, _ = decode(folded)
    assert [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)] == read
    assert len({tuple(word) for word in read}) > 50


def test_rectify_is_for_an_stn_on_the_image():
    with pytest.raises(ValueError, match="no spatial transformer in front"):
        network().apply(initialised(), images(), method="rectify")
    model = network(placement="image")
    rectified, _ = jax.eval_shape(partial(model.apply, method="rectify"), shapes(model, TOY), images())
    assert rectified.shape == (3, 12, 40, 1)


def test_what_the_stn_makes_is_shown_in_the_grey_levels_of_the_image():
    models, key = [network(placement="image"), network("range", placement="image")], jax.random.key(0, impl="rbg")
    made = [model.init_with_output(key, images(), method="transform")[0][0].astype(int) for model in models]
    assert 0 < np.ptp(made[0]) and np.median(np.abs(made[0] - made[1])) < 16


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"max_width": 80}, "model.max_width = 80: an STN after a block of a keras stack takes a single width"),
        ({"stn": StnConfig(kind="tps", placement="block7")}, "'tps': after a block of a keras stack it must be affine"),
        ({"stn": StnConfig("affine", "block7", bypass=0.5)}, "model.stn.bypass: an STN after a block of a keras stack"),
        ({"stn": StnConfig("affine", "block8")}, "'block8': the keras_narrow stack has 7 blocks"),
    ],
)
def test_what_the_stn_cannot_be_is_said_in_one_line(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(replace(TOY, **changes))


def test_on_the_image_the_stn_is_this_projects_own():
    config = replace(TOY, max_width=80, stn=StnConfig(kind="tps", bypass=0.5))
    assert build_keras(config) == build(config)
