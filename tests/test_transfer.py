"""Weights from one model to another: what is the same stays the same, and what is new or lost is reported."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from crnn_jax.charset import Charset
from crnn_jax.config import ModelConfig, StnConfig
from crnn_jax.model import build
from crnn_jax.training.transfer import transfer

TINY = ModelConfig(charset="36", cnn="tiny", lstm_features=8)
IMAGES = jax.random.randint(jax.random.key(1), (3, 32, 100), 0, 256).astype(jnp.uint8)


def fresh(config, seed=0):
    return build(config).init(jax.random.key(seed), IMAGES)


def start(config, loaded_config=TINY):
    """What a `config` model gets from a `loaded_config` one: variables, new, lost layers; and the loaded variables."""
    loaded = fresh(loaded_config, seed=1)
    charsets = {"charset": Charset.of(config.charset), "loaded_charset": Charset.of(loaded_config.charset)}
    return *transfer(fresh(config), loaded, **charsets), loaded


def test_the_same_network_takes_everything():
    variables, new, lost, loaded = start(TINY)
    assert new == lost == []
    jax.tree.map(np.testing.assert_array_equal, variables, jax.tree.map(np.asarray, loaded))


def test_a_network_with_residual_layers_added_starts_as_the_same_function():
    grown = replace(TINY, cnn="small")
    variables, new, lost, loaded = start(grown)
    assert lost == [] and "block2/Conv_1" in new and "block2/Conv_0" not in new
    expected = build(TINY).apply(loaded, IMAGES)
    np.testing.assert_allclose(build(grown).apply(jax.device_put(variables), IMAGES), expected, atol=1e-5)


def test_a_transformer_is_added_as_the_identity():
    config = replace(TINY, stn=StnConfig(kind="affine", placement="block2", features=(4, 4)))
    variables, new, lost, loaded = start(config)
    assert lost == [] and new and all(name.startswith("stn/") for name in new)
    expected = build(TINY).apply(jax.device_put(loaded), IMAGES)
    np.testing.assert_allclose(build(config).apply(jax.device_put(variables), IMAGES), expected, atol=1e-4)


def test_characters_that_are_known_keep_their_weights():
    other = replace(TINY, charset="zyA!")
    variables, new, lost, loaded = start(other)
    kernel, before = (v["params"]["head"]["kernel"] for v in (variables, loaded))
    assert new == lost == []
    for character in "zyA":  # A is known as a
        (here,), (there,) = Charset.of("zyA!").encode(character), Charset.of("36").encode(character.lower())
        np.testing.assert_array_equal(kernel[:, here], before[:, there])
    np.testing.assert_array_equal(kernel[:, 0], before[:, 0])
    np.testing.assert_array_equal(kernel[:, 4], fresh(other)["params"]["head"]["kernel"][:, 4])


def test_a_character_whose_other_case_is_two_is_new():
    ligature = "\ufb06"  # st, in capitals two letters
    variables, new, lost, _ = start(replace(TINY, charset=f"ab{ligature}"), replace(TINY, charset="62"))
    assert new == lost == [] and variables["params"]["head"]["kernel"].shape[-1] == 4


def test_layers_without_a_place_are_told():
    _, _, lost, _ = start(TINY, replace(TINY, cnn="small"))
    assert "block1/Conv_1" in lost
    _, _, lost, _ = start(replace(TINY, lstm_features=16))
    assert "head" in lost
