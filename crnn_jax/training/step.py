"""One training step and one evaluation step: pure functions, the same eager, jitted and pmapped."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from crnn_jax.ctc import ctc_loss, greedy_decode
from crnn_jax.synth.batch import Batch
from crnn_jax.training.state import TrainState


def train_step(
    state: TrainState,
    batch: Batch,
    key: Array,
    *,
    model: nn.Module,
    tx: optax.GradientTransformation,
    ema_decay: float,
    axis_name: str | None = None,
    settings: PyTree | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """Takes one step on one batch; with `axis_name`, on this device's slice of the batch.

    The loss is the mean over the feasible labels of the whole batch: every device differentiates its own sum over the
    global count, and the sum of these gradients is the one-device gradient, however unequal the devices' counts.

    Args:
        state: equal on all devices.
        batch: images with their labels.
        key: of this step (dropout), equal on all devices.
        model: its BatchNorm layers reduce over the same `axis_name`.
        ema_decay: 0..1, the limit of the average's decay; it starts lower, (1 + step) / (10 + step).
        axis_name: of the pmap; None on one device.
        settings: the model's collection of that name: numbers that a sweep vmaps over, in place of its config's.

    Returns:
        The next state, and scalar metrics, equal on all devices: step (this one counted), loss, accuracy (0..1: labels
        read wholly right by greedy decoding), infeasible (count), gradient_norm (before the clip), parameter_norm,
        update_norm, non_finite (bool); with an STN, the means of `stn_deviation`, `stn_outside` and `stn_contrast` (see
        `stn.Diagnosis`).
    """

    def total(tree):
        return lax.psum(tree, axis_name) if axis_name else tree

    if axis_name:
        key = jax.random.fold_in(key, lax.axis_index(axis_name))

    def loss_fn(params):
        logits, updated = model.apply(
            {"params": params, "batch_stats": state.batch_stats, "settings": settings or {}},
            batch.image,
            train=True,
            mutable=["batch_stats", "diagnostics"],
            rngs={"dropout": key},
        )
        with jax.named_scope("ctc"):  # for profiles, like those below
            losses, feasible = ctc_loss(logits, batch.label, batch.label_length)
        count = jnp.maximum(total(feasible.sum()), 1)
        return losses.sum() / count, (logits, feasible, updated)

    (loss, (logits, feasible, updated)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    loss, gradients = total((loss, gradients))
    with jax.named_scope("optimizer"):
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # Early averages forget their random start quickly (as in TensorFlow: ExponentialMovingAverage, num_updates).
        decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
        ema_params = jax.tree.map(lambda average, new: decay * average + (1 - decay) * new, state.ema_params, params)
        norms = {
            "gradient_norm": norm(gradients),
            "parameter_norm": norm(params),
            "update_norm": norm(updates),
        }

    devices = lax.axis_size(axis_name) if axis_name else 1
    size = feasible.shape[0] * devices
    with jax.named_scope("readings"):
        ids, lengths, _ = jax.vmap(greedy_decode)(logits)
        right = same_text(ids, lengths, batch.label, batch.label_length)
    metrics = {
        "step": state.step + 1,
        "loss": loss,
        "accuracy": total(right.sum()) / size,
        "infeasible": total((~feasible).sum()),
        **norms,
        **{name: total(values.mean()) / devices for name, values in diagnostics(updated).items()},
        "non_finite": ~jnp.all(jnp.isfinite(jnp.stack([loss, *norms.values()]))),
    }
    state = state.replace(
        step=state.step + 1,
        params=params,
        batch_stats=updated.get("batch_stats", {}),
        opt_state=opt_state,
        ema_params=ema_params,
    )
    return state, metrics


def eval_step(
    variables: dict, batch: Batch, *, model: nn.Module, mask: Bool[Array, " B"] | None = None
) -> tuple[dict[str, Float[Array, ""]], dict[str, Array]]:
    """Sums over one batch, and what was read.

    Args:
        variables: params and batch_stats.
        batch: images with their labels.
        mask: rows where it is False do not count; None: all count.

    Returns:
        Sums of count, correct, loss, infeasible, confidence, which `mean_metrics` divides once all are added up;
        with an STN also of stn_deviation, stn_outside and stn_contrast (`stn.Diagnosis`);
        and the greedy readings: ids int32[B,T] padded with 0, confidence float32[B].
    """
    logits, updated = model.apply(variables, batch.image, train=False, mutable=["diagnostics"])
    losses, feasible = ctc_loss(logits, batch.label, batch.label_length)
    ids, lengths, confidence = jax.vmap(greedy_decode)(logits)
    right = same_text(ids, lengths, batch.label, batch.label_length)
    mask = jnp.ones_like(right) if mask is None else mask
    sums = {
        "count": mask,
        "correct": right & mask,
        "loss": losses * mask,
        "infeasible": ~feasible & mask,
        "confidence": confidence * mask,
        **{name: values * mask for name, values in diagnostics(updated).items()},
    }
    return jax.tree.map(lambda value: value.sum(dtype=jnp.float32), sums), {"ids": ids, "confidence": confidence}


def diagnostics(updated: dict) -> dict[str, Float[Array, " B"]]:
    """Each example's numbers (`stn.Diagnosis`) that an STN stored in the collection of that name; {} without one."""
    return updated.get("diagnostics", {}).get("stn", {})


def norm(tree: PyTree) -> Float[Array, ""]:
    """The Euclidean norm of all leaves together."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def mean_metrics(sums: dict) -> dict[str, float]:
    """Metrics of an evaluation from the sums of its batches: count, word_accuracy in per cent, loss, confidence.

    With an STN also stn_deviation, stn_outside and stn_contrast.
    """
    sums = {name: float(value) for name, value in sums.items()}
    means = [name for name in sums if name == "confidence" or name.startswith("stn_")]
    return {
        "count": sums["count"],
        "word_accuracy": 100 * sums["correct"] / max(sums["count"], 1),
        "loss": sums["loss"] / max(sums["count"] - sums["infeasible"], 1),
        **{name: sums[name] / max(sums["count"], 1) for name in means},
    }


def same_text(
    ids: Int[Array, "B T"], lengths: Int[Array, " B"], labels: Int[Array, "B N"], label_lengths: Int[Array, " B"]
) -> Bool[Array, " B"]:
    """Whether each reading equals its label in every class id; both are padded with 0."""
    slots = max(ids.shape[1], labels.shape[1])
    ids, labels = (jnp.pad(x, ((0, 0), (0, slots - x.shape[1]))) for x in (ids, labels))
    return (lengths == label_lengths) & jnp.all(ids == labels, axis=1)
