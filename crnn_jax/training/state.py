"""What a training run carries from step to step."""

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, PyTree

from crnn_jax.config import ModelConfig


class TrainState(flax.struct.PyTreeNode):
    """All of a run's state at one step; besides it, only the run's key and config decide the next step.

    The leaves are JAX arrays or, on the way to and from a checkpoint, NumPy arrays.
    """

    step: PyTree  # steps taken, int32
    params: PyTree
    batch_stats: PyTree  # running mean and variance of every BatchNorm
    opt_state: PyTree
    ema_params: PyTree  # exponential moving average of params


def create_state(key: Array, model: nn.Module, tx: optax.GradientTransformation, config: ModelConfig) -> TrainState:
    """A fresh state: initialised parameters, zero steps.

    Args:
        key: PRNG key of the initialisation.
        model: from `crnn_jax.model.build`.
        tx: from `make_optimizer`.
        config: gives the height and width of the images, in pixels.
    """
    images = jnp.zeros((1, config.height, config.width), jnp.uint8)
    variables = jax.jit(lambda key: model.init(key, images, train=False))(key)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=tx.init(params),
        ema_params=jax.tree.map(jnp.copy, params),  # a copy: a donated state may not hold one buffer twice
    )


def variables(state: TrainState) -> dict:
    """What `model.apply` takes: the averaged parameters, and batch statistics."""
    return {"params": state.ema_params, "batch_stats": state.batch_stats}
