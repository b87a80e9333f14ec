"""The localisation net stays alive, and it shows if it did not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crnn_jax.stn import Localisation, spread, start_parameters


def test_spread_is_of_the_examples_not_of_the_transform():
    identity = start_parameters(kind="affine")
    moved = np.stack([identity + shift * np.eye(6)[2] for shift in (0.1, -0.1, 0.1, -0.1)]).astype(np.float32)
    assert float(spread(jnp.asarray(moved), kind="affine")) == pytest.approx(0.1, abs=1e-6)
    assert float(spread(jnp.asarray(moved[:1].repeat(3, axis=0)), kind="affine")) < 1e-6
    points = start_parameters(kind="tps", fiducials=4)
    assert float(spread(jnp.stack([points, points + 0.2]), kind="tps")) == pytest.approx(0.1 * np.sqrt(2), abs=1e-6)


def test_a_localisation_net_stays_alive_at_a_high_rate():
    """A large step of the last layers used to kill every ReLU of the hidden layer for all inputs."""
    x = jax.random.uniform(jax.random.key(0), (16, 16, 32, 1), minval=-1.0)
    net = Localisation((0.0,) * 2, (0.0,) * 2, (8,), (16, 32), 16, 1.0, 0.0)
    variables = net.init(jax.random.key(1), x, train=True)
    pushed = variables["params"]["hidden_layer"]["kernel"] - 10.0
    params = variables["params"] | {
        "hidden_layer": {"kernel": pushed},
        "last": {"kernel": jnp.ones((16, 2)), "bias": jnp.zeros(2)},
    }
    parameters, _ = net.apply(variables | {"params": params}, x, train=True, mutable=["batch_stats"])
    assert float(jnp.std(parameters, axis=0).min()) > 0.1
