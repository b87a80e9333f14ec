import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crnn_jax.config import OptimizerConfig
from crnn_jax.training.optimizer import learning_rate, make_optimizer
from crnn_jax.training.step import norm

PARAMS = {
    "block1": {"Conv_0": {"kernel": jnp.full((3, 2), 2.0), "bias": jnp.ones(2)}, "BatchNorm_0": {"scale": jnp.ones(2)}},
    "lstm1": {"input_kernel": jnp.full((2, 4), -1.0), "bias": jnp.ones(4)},
    "stn": {"localisation": {"Conv_0": {"kernel": jnp.full((3, 2), 2.0), "bias": jnp.ones(2)}}},
}


def updates(config: OptimizerConfig, gradients, *, steps: int = 1):
    tx = make_optimizer(config, 1000)
    state = tx.init(PARAMS)
    for _ in range(steps):
        result, state = tx.update(gradients, state, PARAMS)
    return result


def test_schedule_rises_to_the_peak_and_falls_to_its_factor():
    config = OptimizerConfig(learning_rate=0.4, warmup_steps=100, final_factor=0.05)
    schedule = learning_rate(config, 1100)
    assert schedule(0) == pytest.approx(0.004)
    assert schedule(49) == pytest.approx(0.2)
    assert schedule(99) == pytest.approx(0.4)
    assert schedule(100) == pytest.approx(0.4)
    assert schedule(600) == pytest.approx(0.4 * (0.05 + 0.95 / 2))
    assert schedule(1100) == pytest.approx(0.02)
    assert schedule(5000) == pytest.approx(0.02)


def test_a_run_shorter_than_its_warm_up_still_reaches_peak_and_end():
    schedule = learning_rate(OptimizerConfig(learning_rate=1.0, warmup_steps=500, final_factor=0.1), 20)
    rates = [float(schedule(step)) for step in range(21)]
    assert max(rates) == pytest.approx(1.0) and rates[20] == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["adamw", "sgd", "adadelta"])
def test_localisation_net_has_its_own_factor(name):
    config = OptimizerConfig(name=name, clip_norm=0, weight_decay=0.0, warmup_steps=0, localisation_factor=0.25)
    result = updates(config, jax.tree.map(jnp.ones_like, PARAMS), steps=2)
    outside, inside = result["block1"]["Conv_0"], result["stn"]["localisation"]["Conv_0"]
    assert np.all(outside["kernel"] < 0)
    np.testing.assert_allclose(inside["kernel"], 0.25 * outside["kernel"], rtol=1e-6)
    np.testing.assert_allclose(inside["bias"], 0.25 * outside["bias"], rtol=1e-6)


def test_weight_decay_falls_on_kernels_alone():
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.01, warmup_steps=0, localisation_factor=1.0)
    result = updates(config, jax.tree.map(jnp.zeros_like, PARAMS))
    expected = jax.tree_util.tree_map_with_path(
        lambda path, x: -0.1 * 0.01 * x if "kernel" in path[-1].key else 0 * x, PARAMS
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), result, expected)


def test_clip_is_of_the_norm_of_each_part():
    config = OptimizerConfig(
        name="sgd", learning_rate=1.0, momentum=0.0, clip_norm=5.0, warmup_steps=0, localisation_factor=1.0
    )
    gradients = jax.tree.map(lambda x: 100 * jnp.ones_like(x), PARAMS)
    result = updates(config, gradients)
    assert norm(result["stn"]) == pytest.approx(5.0, rel=1e-5)
    assert norm(result) == pytest.approx(np.sqrt(50), rel=1e-5)
    states = [
        make_optimizer(OptimizerConfig(**{**vars(config), "clip_apart": apart}), 10).init(PARAMS)
        for apart in (False, True)
    ]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    together = updates(OptimizerConfig(**{**vars(config), "clip_apart": False}), gradients)
    assert norm(together) == pytest.approx(5.0, rel=1e-5)
    small = gradients | {"stn": jax.tree.map(jnp.ones_like, gradients["stn"])}
    jax.tree.map(np.testing.assert_allclose, updates(config, small)["stn"], jax.tree.map(jnp.negative, small["stn"]))
    unclipped = updates(OptimizerConfig(**{**vars(config), "clip_norm": 0.0}), gradients)
    assert norm(unclipped) == pytest.approx(100 * np.sqrt(30), rel=1e-5)


def test_sgd_is_nesterov():
    config = OptimizerConfig(name="sgd", learning_rate=1.0, momentum=0.9, clip_norm=0, warmup_steps=0)
    result = updates(config, jax.tree.map(jnp.ones_like, PARAMS), steps=2)
    # Velocities 1, then 1.9; Nesterov looks ahead: 1 + 0.9 * 1.9. The second step's rate is next to the peak.
    np.testing.assert_allclose(result["lstm1"]["bias"], -(1 + 0.9 * 1.9), rtol=1e-4)
