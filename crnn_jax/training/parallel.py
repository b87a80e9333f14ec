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
LEAST = 16  # words of a batch per CPU core: with fewer, communication costs more than is gained
FLAG = "xla_cpu_use_fusion_emitters"
FLAG_KNOWN = {(0, 10, 0), (0, 10, 1), (0, 10, 2), (0, 11, 0)}  # versions of JAX; XLA dropped it in 0.11.1

# make_batch(key, source, first_index) -> this device's examples; first_index is that of its first in the global batch.
# In training it also takes `streamed`: this device's words from disk, None if all are on the device.
MakeBatch = Callable[..., Batch]


def share_cpu(devices: int | None, *, batch_size: int) -> None:
    """Splits the CPU into that many JAX devices of one core each, which then train together as several GPUs do.

    That is faster than one device whose threads split every operation. None: as many as can share a batch in multiples
    of LEAST words, unless JAX has a setting already. Call it before anything else touches JAX. Raises ConfigError for
    less than one device or more than there are cores.
    """
    if devices is None:
        if jax.config.jax_num_cpu_devices != -1 or "xla_force_host_platform_device_count" in os.getenv("XLA_FLAGS", ""):
            return
        devices = max((n for n in range(1, cores() + 1) if batch_size % (LEAST * n) == 0), default=1)
    if not 1 <= devices <= cores():
        raise ConfigError(f"--cpu_devices {devices}: expected 1 to {cores()}, the cores of this machine")
    jax.config.update("jax_num_cpu_devices", devices)


def leave_out_fusion_emitters() -> None:
    """Turns off XLA's newer fusion emitters for CPUs: rendering and training then compile much faster.

    Steps take as long as with them; reading would be slower, and does not call this. Call it before anything else
    touches JAX. A setting already in XLA_FLAGS is kept, and versions that may not know the flag do not get it, since
    XLA ends the process on an unknown flag. Measured in experiments/studies/profile_cpu.md.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.__version_info__ in FLAG_KNOWN and FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{FLAG}=false".strip()


def initialize(coordinator: str, num_processes: int, process_id: int) -> None:
    """Joins the processes of a run, one per host, before anything else touches JAX.

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

    Raises ConfigError if the batch cannot be divided so.
    """
    devices = jax.device_count()
    size, rest = divmod(batch_size, devices)
    if rest or size % (4 * parts) or size == 0:
        here = "one device" if devices == 1 else f"{devices} devices"
        raise ConfigError(f"run.batch_size is {batch_size}; with {here} it must be a multiple of {4 * parts * devices}")
    return size


def replicate(tree: PyTree) -> PyTree:
    """The tree on every local device, put there once: otherwise each pmapped call would copy it."""
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def fetch(tree: PyTree) -> PyTree:
    """The tree as NumPy arrays on this host; waits for the device."""
    return jax.device_get(tree)


def any_process(flag: bool) -> bool:
    """Whether `flag` is set in any process: all of them must call this, and all get the same answer."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def is_same_everywhere(*facts) -> bool:
    """Whether all processes call this with the same facts, compared as text; all of them must call it."""
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
        length: steps per dispatch.
    """

    def run(first_index: Array, streamed: PyTree, state: TrainState, source: PyTree, run_key: Array):
        def body(state, streamed):
            # A step's key depends on the run's key and the step's number and is never carried, so a resumed run draws
            # the same words; so does one on other devices if it reads and renders as many of them.
            batch_key, step_key = jax.random.split(jax.random.fold_in(run_key, state.step))
            return step(state, make_batch(batch_key, source, first_index, streamed=streamed), step_key)

        return lax.scan(body, state, streamed, length=length)

    spread = _spread(run, batch_size, mapped=1, arguments=3, donate=(2,))
    return lambda state, source, run_key, streamed=None: spread(streamed, state, source, run_key)


def place(batches: list[Batch]) -> Batch:
    """Puts this process's rows of several steps' batches on its devices; returns before the copying is done.

    The result is `Array[step, row]`, under pmap `Array[device, step, row]`.
    """
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
        batch_size: of all devices; the last batch is rendered in full, and masked beyond `total`.
        total: number of examples.

    Returns:
        A function whose sums are over all examples on all devices, and whose samples (image, label, ids, confidence)
        are the first device's in the first batch, without masked ones. Both are NumPy arrays.
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

    Mapped arguments have a device axis. The others, and the results, are equal on all devices and have none; if results
    are not equal, the first device's are returned.
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
