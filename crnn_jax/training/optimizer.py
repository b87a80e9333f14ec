"""Optimisers and the learning-rate schedule, as pure functions of the configuration."""

import operator

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import PyTree

from crnn_jax.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up to the peak, then a cosine (Loshchilov and Hutter 2017) down to `final_factor` of the peak.

    The first step already has 1 / warm-up of the peak; a run shorter than two warm-ups warms up for its first half.
    """
    warmup = min(config.warmup_steps, steps // 2)

    def schedule(step):
        rise = (step + 1) / max(warmup, 1)
        progress = jnp.clip((step - warmup) / max(steps - warmup, 1), 0.0, 1.0)
        cosine = config.final_factor + (1 - config.final_factor) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        return config.learning_rate * jnp.where(step < warmup, rise, cosine)

    return schedule


def make_optimizer(
    config: OptimizerConfig, steps: int, *, localisation_factor: ArrayLike | None = None
) -> optax.GradientTransformation:
    """Clip, precondition, decay, slow down the localisation net, and scale by the schedule, in this order.

    Args:
        config: `name` is adamw | sgd | adadelta. AdamW decays kernels only.
        steps: length of the run, where the cosine ends.
        localisation_factor: in place of the config's; a sweep may vmap over it.
    """
    factor = config.localisation_factor if localisation_factor is None else localisation_factor
    rules = {
        "adamw": [
            optax.scale_by_adam(),
            optax.add_decayed_weights(config.weight_decay, mask=kernels),
        ],
        "sgd": [optax.trace(config.momentum, nesterov=True)],
        "adadelta": [optax.scale_by_adadelta()],
    }
    clip = [clip_by_norm(config.clip_norm, apart=config.clip_apart)] if config.clip_norm > 0 else []
    return optax.chain(
        *clip,
        *rules[config.name],
        optax.masked(optax.scale(factor), localisation),
        optax.scale_by_learning_rate(learning_rate(config, steps)),
    )


def clip_by_norm(max_norm: float, *, apart: bool) -> optax.GradientTransformation:
    """Clips the gradient by its norm; with `apart`, the localisation net's and the rest each by its own norm.

    The localisation net's is often ten times the rest: clipped together, it would shrink the recogniser's too.
    Neither way keeps state, so checkpoints of both have the same structure.
    """
    clip = optax.clip_by_global_norm(max_norm)
    if not apart:
        return clip
    each = optax.chain(optax.masked(clip, localisation), optax.masked(clip, recogniser))
    return optax.stateless(lambda gradients, _: each.update(gradients, each.init(gradients))[0])


def kernels(params: PyTree) -> PyTree:
    """True for the leaves that weight decay applies to: those with `kernel` in their name."""
    return _by_path(params, lambda path: "kernel" in path[-1])


def localisation(params: PyTree) -> PyTree:
    """True for the parameters of the localisation net (`stn/localisation`)."""
    return _by_path(params, lambda path: path[:2] == ("stn", "localisation"))


def recogniser(params: PyTree) -> PyTree:
    """True for all other parameters."""
    return jax.tree.map(operator.not_, localisation(params))


def _by_path(params, predicate):
    return jax.tree_util.tree_map_with_path(lambda path, _: predicate(tuple(entry.key for entry in path)), params)
