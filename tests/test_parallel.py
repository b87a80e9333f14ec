"""Eight devices render and sum up what one does."""

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from toy import toy_config, toy_source, toy_words

from crnn_jax.config import ConfigError
from crnn_jax.cores import cores
from crnn_jax.training import parallel
from crnn_jax.training.state import TrainState

CONFIG = toy_config()
SOURCE = toy_source(CONFIG)
SIZE = 32


def slices(key, source, first_index, streamed=None):
    """A device's share of the words of a batch."""
    return toy_words(key, source, batch_size=SIZE // 8, config=CONFIG, first_index=first_index)


def checksum(batch) -> jax.Array:
    """A number for each example, which differs for another image or label."""
    weights = jnp.arange(batch.image[0].size).reshape(batch.image.shape[1:]) % 251
    return (batch.image.astype(jnp.int32) * weights[None]).sum((1, 2)) + 1009 * batch.label_length


def test_words_depend_on_the_key_and_the_step_alone():
    assert jax.device_count() == 8

    def step(state, batch, key):
        # Each device puts its checksums in its places of the global batch; their sum is what one device would compute.
        mine = jnp.zeros((8, SIZE // 8), jnp.int32).at[lax.axis_index(parallel.AXIS)].set(checksum(batch))
        return state.replace(step=state.step + 1), {"words": lax.psum(mine, parallel.AXIS).reshape(-1)}

    state = TrainState(jnp.int32(5), {}, {}, {}, {})
    dispatch = parallel.make_train(step, slices, batch_size=SIZE, length=3)
    run_key = jax.random.key(9)
    state, metrics = dispatch(*parallel.replicate((state, SOURCE, run_key)))
    assert state.step == 8
    for row, number in enumerate((5, 6, 7)):
        key, _ = jax.random.split(jax.random.fold_in(run_key, number))
        expected = checksum(toy_words(key, SOURCE, batch_size=SIZE, config=CONFIG))
        np.testing.assert_array_equal(metrics["words"][row], expected)


def test_an_evaluation_counts_each_example_once():
    def step(variables, batch, *, mask):
        return {"count": mask.sum(), "words": (checksum(batch) * mask).sum()}, {"confidence": checksum(batch)}

    evaluate = parallel.make_eval(step, slices, batch_size=SIZE, total=SIZE + 7)
    key = jax.random.key(4)
    sums, samples = evaluate(*parallel.replicate(({}, SOURCE, key)))
    expected = checksum(toy_words(key, SOURCE, batch_size=SIZE + 7, config=CONFIG))
    assert sums["count"] == SIZE + 7
    assert sums["words"] == expected.sum()
    np.testing.assert_array_equal(samples["confidence"], expected[: SIZE // 8])
    few = parallel.make_eval(step, slices, batch_size=SIZE, total=2)  # the rest of its batch is masked
    _, samples = few(*parallel.replicate(({}, SOURCE, key)))
    np.testing.assert_array_equal(samples["confidence"], expected[:2])


@pytest.mark.parametrize("size", [8, 30, 40])
def test_a_batch_that_the_devices_cannot_share(size):
    with pytest.raises(ConfigError, match=f"run.batch_size is {size}; with 8 devices it must be a multiple of 32"):
        parallel.per_device(size)


@pytest.mark.parametrize(
    ("asked", "batch_size", "there", "devices"),
    [
        (None, 64, 2, 2),
        (None, 64, 3, 2),
        (None, 64, 16, 4),
        (None, 24, 2, 1),
        (None, 8, 2, 1),
        (2, 8, 2, 2),
        (1, 64, 2, 1),
    ],
)
def test_a_cpu_is_shared_among_its_cores(asked, batch_size, there, devices, monkeypatch):
    told = {}
    monkeypatch.setattr(parallel, "cores", lambda: there)
    # As if no number had been set, and nothing had touched JAX.
    monkeypatch.setattr(jax, "config", SimpleNamespace(jax_num_cpu_devices=-1, update=told.__setitem__))
    parallel.share_cpu(asked, batch_size=batch_size)
    assert told == {"jax_num_cpu_devices": devices}


def test_a_number_of_cpu_devices_that_was_told_stays():
    before = jax.config.jax_num_cpu_devices
    parallel.share_cpu(None, batch_size=64)
    assert jax.config.jax_num_cpu_devices == before == jax.local_device_count()
    for devices in (0, cores() + 1):
        with pytest.raises(ConfigError, match=f"--cpu_devices {devices}: expected 1 to {cores()}"):
            parallel.share_cpu(devices, batch_size=64)


@pytest.mark.parametrize(
    ("version", "flags", "after"),
    [
        ((0, 10, 2), None, "--xla_cpu_use_fusion_emitters=false"),
        ((0, 10, 2), "--xla_cpu_ftz=true", "--xla_cpu_ftz=true --xla_cpu_use_fusion_emitters=false"),
        ((0, 10, 2), "--xla_cpu_use_fusion_emitters=true", "--xla_cpu_use_fusion_emitters=true"),  # as was asked
        ((0, 11, 1), None, None),  # where it is unknown, and would end the process
    ],
)
def test_fusion_emitters_are_left_out_where_xla_has_them(monkeypatch, version, flags, after):
    monkeypatch.setattr(jax, "__version_info__", version)
    monkeypatch.setenv("XLA_FLAGS", flags or "")
    if flags is None:
        monkeypatch.delenv("XLA_FLAGS")
    parallel.leave_out_fusion_emitters()
    assert os.environ.get("XLA_FLAGS") == after


@pytest.mark.skipif(jax.__version_info__ not in parallel.FLAG_KNOWN, reason="nobody has looked at this XLA yet")
def test_the_flag_is_one_that_this_xla_knows():
    """An unknown one ends the process."""
    command = [sys.executable, "-c", "import jax; print(jax.numpy.ones(3).sum())"]
    environment = os.environ | {"XLA_FLAGS": f"--{parallel.FLAG}=false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "3.0\n"), done.stderr
