"""Data parallelism: the one file that maps steps over devices and joins the processes of a run.

A step is pmapped over the local devices of every process, and its collectives run over the devices of all of them.
State, source and key enter with `in_axes=None` and leave without a device axis. With one device there is no pmap.
"""

import os
import zlib
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from crnn_jax.config import ConfigError
from crnn_jax.cores import cores
from crnn_jax.synth.batch import Batch
from crnn_jax.training.state import TrainState

AXIS = "devices"
LEAST = 16  # words of a batch for each CPU core: of fewer the devices' talk costs more than is gained
FLAG = "xla_cpu_use_fusion_emitters"
FLAG_KNOWN = {(0, 10, 0), (0, 10, 1), (0, 10, 2), (0, 11, 0)}  # versions of JAX; from 0.11.1 on XLA has it no more

# make_batch(key, source, first_index) -> this device's examples, first_index being its first one in the global batch;
# in training with the option `streamed`: this device's words from disk, None where all of them are on the device.
MakeBatch = Callable[..., Batch]


def share_cpu(devices: int | None, *, batch_size: int) -> None:
    """Makes the CPU that many JAX devices, a core each, which then train together as several GPUs do.

    That is faster than one device of several threads, which take every operation to pieces. None: as many as have
    LEAST words each of a batch, unless JAX has been told already. Call it before anything else touches JAX. Raises
    ConfigError for a number that the cores do not allow.
    """
    if devices is None:
        if jax.config.jax_num_cpu_devices != -1 or "xla_force_host_platform_device_count" in os.getenv("XLA_FLAGS", ""):
            return
        devices = max((n for n in range(1, cores() + 1) if batch_size % (LEAST * n) == 0), default=1)
    if not 1 <= devices <= cores():
        raise ConfigError(f"--cpu_devices {devices}: expected 1 to {cores()}, the cores of this machine")
    jax.config.update("jax_num_cpu_devices", devices)


def leave_out_fusion_emitters() -> None:
    """Has XLA compile for CPUs without its newer emitters of fused operations: what renders and trains, much sooner.

    Steps take as long as with them; reading would be slower, and does not call this. Call it before anything else
    touches JAX. What XLA_FLAGS says of them already stays, and versions that may not know the flag, which to XLA is an
    error that ends the process, are not told of it. Measured in experiments/studies/profile_cpu.md.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.__version_info__ in FLAG_KNOWN and FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{FLAG}=false".strip()


def initialize(coordinator: str, num_processes: int, process_id: int) -> None:
    """Joins the processes of a run, one a host, before anything else touches JAX.

    Args:
        coordinator: "host:port" of process 0, the same for all.
        num_processes: of the run.
        process_id: this one's, from 0.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # of no effect on GPU and TPU
    jax.distributed.initialize(coordinator, num_processes, process_id)


def axis_name() -> str | None:
    """The axis that BatchNorm and the loss reduce over; None with one device."""
    return AXIS if jax.device_count() > 1 else None


def is_main() -> bool:
    """Whether this process writes the logs."""
    return jax.process_index() == 0


def per_device(batch_size: int, *, parts: int = 1) -> int:
    """Examples per device of a global batch. They divide into `parts` equal parts, each a multiple of four (`render`).

    Raises ConfigError where the devices cannot share it equally.
    """
    devices = jax.device_count()
    size, rest = divmod(batch_size, devices)
    if rest or size % (4 * parts) or size == 0:
        here = "one device" if devices == 1 else f"{devices} devices"
        raise ConfigError(f"run.batch_size is {batch_size}; with {here} it must be a multiple of {4 * parts * devices}")
    return size


def replicate(tree: PyTree) -> PyTree:
    """The tree on every local device, put there once: a pmapped call would else copy it each time."""
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def fetch(tree: PyTree) -> PyTree:
    """The tree as NumPy arrays on this host; waits for the device."""
    return jax.device_get(tree)


def any_process(flag: bool) -> bool:
    """Whether `flag` is set in any process: all of them must call this, and all take the same decision."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def is_same_everywhere(*facts) -> bool:
    """Whether all processes call this with the same facts, as their text tells; all of them must."""
    if jax.process_count() == 1:
        return True
    digest = np.uint32(zlib.crc32(repr(facts).encode()))
    return len(set(multihost_utils.process_allgather(digest).tolist())) == 1


def make_train(step: Callable, make_batch: MakeBatch, *, batch_size: int, length: int) -> Callable:
    """The compiled `(state, source, run_key, streamed) -> (state, metrics[length])`: `length` steps in one dispatch.

    `streamed` is what `place` made of the batches from disk, or None.

    Args:
        step: `train_step` with model, tx, ema_decay and axis_name bound.
        make_batch: renders this device's slice.
        batch_size: of all devices.
        length: steps a dispatch.
    """

    def run(first_index: Array, streamed: PyTree, state: TrainState, source: PyTree, run_key: Array):
        def body(state, streamed):
            # The key of a step is a function of the run's key and the step's number, never carried: a resumed run
            # draws the same words, and one on other devices where it reads or renders as many of them.
            batch_key, step_key = jax.random.split(jax.random.fold_in(run_key, state.step))
            return step(state, make_batch(batch_key, source, first_index, streamed=streamed), step_key)

        return lax.scan(body, state, streamed, length=length)

    spread = _spread(run, batch_size, mapped=1, arguments=3, donate=(2,))
    return lambda state, source, run_key, streamed=None: spread(streamed, state, source, run_key)


def place(batches: list[Batch]) -> Batch:
    """This process's rows of some steps' batches, each device's on that device: `Array[step, row]`, under pmap
    `Array[device, step, row]`. Returns at once; the copying goes on."""
    steps = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
    if axis_name() is None:
        return jax.device_put(steps)
    devices = jax.local_devices()

    def spread(leaf):
        parts = np.split(leaf, len(devices), axis=1)
        mesh = Mesh(np.array(devices), (AXIS,))
        return jax.device_put(np.stack(parts), NamedSharding(mesh, PartitionSpec(AXIS)))

    return jax.tree.map(spread, steps)


def make_eval(step: Callable, make_batch: MakeBatch, *, batch_size: int, total: int) -> Callable:
    """The compiled `(variables, source, key) -> (sums, samples)`: an evaluation over `total` examples.

    Args:
        step: `eval_step` with the model bound.
        make_batch: renders this device's slice.
        batch_size: of all devices; the last batch is rendered whole, and what is beyond `total` masked.
        total: examples.

    Returns:
        A function whose sums are those of all examples on all devices, and whose samples are the examples, masked
        ones left out, of the first device in the first batch: image, label, ids, confidence. Both are NumPy arrays.
    """

    def run(first_index: Array, variables: PyTree, source: PyTree, key: Array, start: Array):
        batch = make_batch(key, source, start + first_index)
        mask = start + first_index + jnp.arange(batch.label_length.shape[0]) < total
        sums, readings = step(variables, batch, mask=mask)
        sums = lax.psum(sums, AXIS) if axis_name() else sums
        return sums, {"image": batch.image, "label": batch.label, **readings}

    one_batch = _spread(run, batch_size, arguments=4)

    def evaluate(variables: PyTree, source: PyTree, key: Array):
        parts = [one_batch(variables, source, key, np.int32(start)) for start in range(0, total, batch_size)]
        sums = jax.tree.map(lambda *values: sum(values), *[fetch(part) for part, _ in parts])
        return sums, jax.tree.map(lambda x: x[:total], fetch(parts[0][1]))

    return evaluate


def _spread(
    run: Callable, batch_size: int, *, arguments: int, mapped: int = 0, donate: tuple[int, ...] = ()
) -> Callable:
    """`run(first_index, *mapped, *arguments)` on every device, each with the index of its first example in the batch.

    Mapped arguments have an axis of devices. The others, and the results, are equal on all devices and have none; of
    results that are not equal, the first device's is returned.
    """
    size = per_device(batch_size)
    if axis_name() is None:
        return partial(jax.jit(run, donate_argnums=donate), np.int32(0))
    local = jax.local_device_count()
    first = (jax.process_index() * local + np.arange(local, dtype=np.int32)) * np.int32(size)
    return partial(
        jax.pmap(run, AXIS, in_axes=(0, *[0] * mapped, *[None] * arguments), out_axes=None, donate_argnums=donate),
        first,
    )
