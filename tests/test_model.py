"""The network: sizes that the papers give, frames that the tables promise, an STN at every place."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crnn_jax.config import ConfigError, ModelConfig, StnConfig
from crnn_jax.model import build, check_variables, count_parameters, num_frames, prepare
from crnn_jax.stacks import STACKS

CRNN = ModelConfig(cnn="vgg", lstm_features=256, lstm_layers=2)
SMALL = ModelConfig(cnn="tiny", lstm_features=8)


def images(count=2, width=100):
    return jax.random.randint(jax.random.key(7), (count, 32, width), 0, 256).astype(jnp.uint8)


def init(model, batch):
    """The variables that a run starts from; without jit, a network takes many times as long to compile."""
    return jax.jit(model.init)(jax.random.key(0), batch)


def read(model, variables, batch):
    return jax.jit(model.apply)(variables, batch)


def shapes(config, width=100):
    model = build(config)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, width), jnp.uint8)))


def test_crnn_has_the_papers_size_and_frames():
    assert 8.2e6 < count_parameters(shapes(CRNN)) < 8.5e6
    assert num_frames(CRNN, 100) == 26


def test_tiny_and_resnet_stay_in_their_bounds():
    tiny = ModelConfig(cnn="tiny", lstm_features=128)
    resnet = ModelConfig(cnn="resnet", lstm_features=256, lstm_layers=2, stn=StnConfig(kind="tps"))
    assert count_parameters(shapes(tiny)) <= 1e6
    assert count_parameters(shapes(resnet)) <= 16e6


@pytest.mark.parametrize("cnn", sorted(STACKS))
@pytest.mark.parametrize("width", [100, 163])
def test_frames_are_those_of_the_table(cnn, width):
    config = replace(SMALL, cnn=cnn)
    model, variables = build(config), shapes(config, width)
    logits = jax.eval_shape(model.apply, variables, jax.ShapeDtypeStruct((3, 32, width), jnp.uint8))
    assert logits.shape == (3, num_frames(config, width), 37)


@pytest.mark.parametrize("cnn", sorted(STACKS))
def test_what_a_stack_cannot_take_is_said_before_anything_is_built(cnn):
    with pytest.raises(ConfigError, match=f"leave no features after the {cnn} stack"):
        build(replace(SMALL, cnn=cnn, height=2))
    stn = StnConfig(kind="affine", placement="block9")
    with pytest.raises(ConfigError, match=f"'block9': the {cnn} stack has {len(STACKS[cnn])} blocks"):
        build(replace(SMALL, cnn=cnn, stn=stn))


def test_training_updates_statistics_and_reading_does_not():
    model = build(SMALL)
    variables = init(model, images())

    @partial(jax.jit, static_argnames="train")
    def apply(train):
        return model.apply(variables, images(), train=train, mutable=["batch_stats"])

    (_, updated), (logits, same) = apply(train=True), apply(train=False)
    before, after = (jax.tree.leaves(v["batch_stats"]) for v in (variables, updated))
    assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(before, jax.tree.leaves(same["batch_stats"]), strict=True))
    assert logits.dtype == jnp.float32


def test_no_image_is_read_as_none():
    model = build(SMALL)
    variables = init(model, images())
    for given in (variables, variables | prepare(variables, model=model)):
        assert read(model, given, images(0)).shape == (0, 25, 37)


def test_words_of_a_batch_do_not_see_each_other_when_reading():
    model = build(SMALL)
    batch = images(32)  # two chunks on a CPU
    variables = init(model, batch)
    together, one = read(model, variables, batch), jax.jit(model.apply)
    for i in (0, 15, 16, 31):
        np.testing.assert_allclose(together[i], one(variables, batch[i : i + 1])[0], atol=1e-4)


@pytest.mark.parametrize("stn", [StnConfig(), StnConfig(kind="tps"), StnConfig(kind="affine", placement="block2")])
def test_what_is_prepared_for_reading_reads_the_same(stn):
    config = replace(SMALL, cnn="small", stn=stn)  # a stack with kernels that are transformed
    model, batch, rng = build(config), images(16), np.random.default_rng(0)
    # Any weights will do, and drawing these compiles nothing.
    variables = jax.tree.map(lambda leaf: rng.uniform(-0.1, 0.1, leaf.shape).astype(np.float32), shapes(config))
    variables["batch_stats"] = jax.tree.map(np.ones_like, variables["batch_stats"])
    prepared = variables | prepare(variables, model=model)
    assert set(prepared) == {"params", "batch_stats", "prepared"}
    assert {"block1", "block2", "block3", "block4", "lstm1"} <= set(prepared["prepared"])
    apply = jax.jit(model.apply)
    for some in (batch, batch[:1]) if stn.kind == "none" else (batch,):
        logits = apply(variables, some)
        assert np.std(logits) > 1e-2
        np.testing.assert_allclose(apply(prepared, some), logits, atol=1e-4)


def test_variables_of_another_network_are_told():
    model, right = build(SMALL), jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes(SMALL))
    check_variables(model, right)
    params, head = right["params"], right["params"]["head"]

    def told(variables):
        with pytest.raises(ValueError) as error:
            check_variables(model, variables)
        return str(error.value)

    more = params | {"lstm2": params["lstm1"]}
    assert told(right | {"params": more}).startswith("nothing in the network uses params/lstm2/")
    assert 'named "kernel" in scope "/head"' in told(right | {"params": {k: params[k] for k in params if k != "head"}})
    fewer = params | {"head": head | {"kernel": head["kernel"][:, 1:]}}
    assert told(right | {"params": fewer}).endswith("existing parameter it received has shape (16, 36).")
    assert 'in "/block1/BatchNorm_0"' in told(right | {"batch_stats": {}})


def test_the_features_of_every_block_can_be_seen():
    """Those of the whole batch, though a CPU reads it in chunks if they are not asked for."""
    model, batch = build(SMALL), images(16)
    variables = init(model, batch)
    _, state = model.apply(variables, batch, capture_intermediates=True, mutable=["intermediates"])
    features = state["intermediates"]
    assert len(features["block1"]["__call__"][0]) == len(features["block4"]["__call__"][0]) == 16


def test_normalised_contrast_leaves_brightness_and_contrast_without_effect():
    model = build(replace(SMALL, normalise="contrast"))
    dark = images() // 4
    variables = init(model, dark)
    apply, ranged = jax.jit(model.apply), jax.jit(build(SMALL).apply)
    np.testing.assert_allclose(apply(variables, 3 * dark + 40), apply(variables, dark), atol=0.15)
    assert np.isfinite(apply(variables, jnp.full_like(dark, 7))).all()
    assert np.abs(ranged(variables, 3 * dark + 40) - ranged(variables, dark)).max() > 0.5


def test_bfloat16_computes_close_to_float32():
    variables = init(build(SMALL), images())
    exact = read(build(SMALL), variables, images())
    half = read(build(replace(SMALL, dtype="bfloat16")), variables, images())
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, exact, atol=0.1)
    assert not np.array_equal(half, exact)


@pytest.mark.parametrize("placement", ["image", "block2"])
@pytest.mark.parametrize("kind", ["affine", "tps"])
def test_a_fresh_stn_changes_little_and_learns(placement, kind):
    stn = StnConfig(kind=kind, placement=placement, features=(4, 4), fiducials=6)
    config = replace(SMALL, stn=stn)
    model = build(config)
    variables = init(model, images())

    def loss(params):
        return jnp.sum(model.apply({**variables, "params": params}, images()) ** 2)

    # Without jit: most operations are the same in all four cases, and compiled once.
    gradients = jax.grad(loss)(variables["params"])["stn"]["localisation"]
    assert any(np.abs(g).max() > 0 for g in jax.tree.leaves(gradients))
    plain = {k: {n: v for n, v in variables[k].items() if n != "stn"} for k in variables}
    without = build(SMALL).apply(plain, images())
    # On the image the transformer reads an enlarged copy: linear interpolation there and back blurs noise a little.
    tolerance = 1e-4 if placement == "block2" else 0.5
    np.testing.assert_allclose(model.apply(variables, images()), without, atol=tolerance)


def test_rectify_needs_an_stn_on_the_image():
    model = build(SMALL)
    with pytest.raises(ValueError, match="no spatial transformer"):
        model.apply(init(model, images()), images(), method="rectify")
