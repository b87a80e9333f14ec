"""This package's own entry in the contests of bench.py: a training step, reading, and the parts of the network.

`inputs` is an .npz file of arrays that bench.py has drawn; `config` is a config as JSON.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from contest import serve

import crnn_jax
from crnn_jax.config import StnConfig, from_json
from crnn_jax.ctc import ctc_loss
from crnn_jax.lstm import BiLSTM
from crnn_jax.model import build
from crnn_jax.reader import Reader
from crnn_jax.sampler import bilinear_sample
from crnn_jax.stn import parameter_grid
from crnn_jax.synth.batch import Batch
from crnn_jax.training import parallel
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.state import create_state
from crnn_jax.training.step import train_step


def train(*, inputs: str, config: str, steps: int) -> Callable[[], float]:
    """Takes training steps on one batch, `steps` per call, as the loop does: every CPU core or GPU is a device.

    A call returns the loss.
    """
    arrays, config = np.load(inputs), from_json(config)
    images = arrays["images"]
    parallel.leave_out_fusion_emitters()
    parallel.share_cpu(None, batch_size=len(images))
    model = build(config.model, axis_name=parallel.axis_name())
    tx, key = make_optimizer(config.optimizer, config.run.steps), jax.random.key(0)
    state = create_state(key, model, tx, config.model)
    size = parallel.per_device(len(images))

    def own_words(key, source, first_index, streamed):
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first_index, size), source)

    step = partial(train_step, model=model, tx=tx, ema_decay=config.optimizer.ema_decay, axis_name=parallel.axis_name())
    dispatch = parallel.make_train(step, own_words, batch_size=len(images), length=steps)
    batch = Batch(images, arrays["labels"], arrays["lengths"])
    state, batch, key = parallel.replicate((state, batch, key))

    def call():
        nonlocal state
        state, metrics = dispatch(state, batch, key)
        return float(jax.block_until_ready(metrics)["loss"][-1])

    return call


def train_simply(*, inputs: str, config: str) -> Callable[[], float]:
    """Takes training steps on one batch, one per call, on one device with all threads; a call returns the loss."""
    parallel.leave_out_fusion_emitters()
    arrays, config = np.load(inputs), from_json(config)
    model, tx = build(config.model), make_optimizer(config.optimizer, config.run.steps)
    key = jax.random.key(0)
    state = create_state(key, model, tx, config.model)
    batch = jax.device_put(Batch(arrays["images"], arrays["labels"], arrays["lengths"]))
    step = partial(train_step, model=model, tx=tx, ema_decay=config.optimizer.ema_decay)
    step = jax.jit(step, donate_argnums=0)

    def call():
        nonlocal state
        state, metrics = step(state, batch, key)
        jax.block_until_ready(state)
        return float(metrics["loss"])

    return call


def read(*, inputs: str, config: str) -> Callable[[], list[str]]:
    """Reads a batch of images of the model's size, with random weights; a call returns the texts."""
    images, config = list(np.load(inputs)["images"]), from_json(config)
    variables = jax.jit(build(config.model).init)(jax.random.key(0), images[0][None])
    reader = Reader(config, {"batch_stats": {}} | variables)
    return lambda: [reading.text for reading in reader.read_fitted(images)]


def words(*, inputs: str, model: str, batches: bool) -> Callable[[], list[str]]:
    """Reads images of any sizes with a model, one at a time or in batches; a call returns the texts."""
    images, reader = list(np.load(inputs).values()), crnn_jax.load(model)

    def call():
        readings = reader.read(images) if batches else [reader.read([image])[0] for image in images]
        return [reading.text for reading in readings]

    return call


def ctc(*, inputs: str) -> Callable[[], float]:
    """The CTC loss and its gradient for the logits; a call returns the mean loss."""
    arrays = jax.device_put(dict(np.load(inputs)))

    @jax.jit
    @jax.value_and_grad
    def run(logits, labels, lengths):
        return ctc_loss(logits, labels, lengths)[0].mean()

    return lambda: _first(run(arrays["logits"], arrays["labels"], arrays["lengths"]))


def lstm(*, inputs: str, features: int, dtype: str) -> Callable[[], float]:
    """A bidirectional LSTM, forward and backward; a call returns the sum of its output."""
    x, layer = jax.device_put(np.load(inputs)["features"]), BiLSTM(features, jnp.dtype(dtype))
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    run = jax.jit(jax.value_and_grad(lambda variables, x: layer.apply(variables, x).sum(), argnums=(0, 1)))
    return lambda: _first(run(variables, x))


def sampler(*, inputs: str, kind: str, size: list[int]) -> Callable[[], float]:
    """Grid and bilinear sampling, forward and backward to images and parameters; returns the sum of the samples."""
    arrays = jax.device_put(dict(np.load(inputs)))

    def sample(image, parameters):
        grid = parameter_grid(parameters, kind=kind, out_size=tuple(size), in_size=image.shape[:2])
        return bilinear_sample(image, grid, outside=StnConfig.outside)

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def run(images, parameters):
        return jax.vmap(sample)(images, parameters).sum()

    return lambda: _first(run(arrays["images"], arrays[kind]))


def product(*, side: int, dtype: str) -> Callable[[], None]:
    """The product of two square matrices."""
    one, other = jax.random.normal(jax.random.key(0), (2, side, side), dtype)
    multiply = jax.jit(jnp.matmul)
    return lambda: _wait(multiply(one, other))


def copy(*, numbers: int) -> Callable[[], None]:
    """Reads and writes float32 numbers in place; otherwise the allocation of memory would be measured."""
    x = jnp.ones(numbers)
    negate = jax.jit(jnp.negative, donate_argnums=0)

    def call():
        nonlocal x
        x = jax.block_until_ready(negate(x))

    return call


def _first(results) -> float:
    """The number that a function returned with its gradients, once all are computed."""
    return float(jax.block_until_ready(results)[0])


def _wait(result) -> None:
    jax.block_until_ready(result)


def _device_memory() -> int | None:
    statistics = jax.local_devices()[0].memory_stats()
    return statistics and statistics.get("peak_bytes_in_use")


if __name__ == "__main__":
    serve(train, train_simply, read, words, ctc, lstm, sampler, product, copy, device_memory=_device_memory)
