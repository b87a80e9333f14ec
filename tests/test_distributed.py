"""Two processes on localhost train together, and end where one process with two devices ends."""

import io
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from small import write_tfrecords

from crnn_jax.training.checkpoint import load_variables

TOY = Path(__file__).parent / "toy.py"
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(TOY.parents[1])}
SGD = ["--set", "optimizer.name=sgd", "optimizer.learning_rate=0.05", "run.steps=8"]
WORDS = 48  # on disk


def start(workdir, *arguments, devices: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, TOY, "--workdir", workdir, *SGD, *arguments],
        env=ENVIRONMENT | {"JAX_NUM_CPU_DEVICES": str(devices)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(workdirs, *arguments) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    hosts = ["--coordinator", f"localhost:{port}", "--num_processes", "2", "--process_id"]
    return [start(workdir, *arguments, *hosts, str(i), devices=1) for i, workdir in enumerate(workdirs)]


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 40), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_two_processes_train_as_one(tmp_path):
    """On rendered words and on words from disk, in fewer shards than processes."""
    pytest.importorskip("grain")
    write_tfrecords(tmp_path / "words.tfrecord", [(png(i), str(i)) for i in range(WORDS)])
    sources = ["--set", f"data.sources={tmp_path}/words.tfrecord,rendered", "data.weights=1,3"]
    two = start_two([tmp_path / "two"] * 2, *sources)
    one = start(tmp_path / "one", *sources, devices=2)
    outputs = [process.communicate(timeout=180) for process in (*two, one)]
    assert [process.returncode for process in (*two, one)] == [0, 0, 0], outputs
    assert "held-out rendered words read right" in outputs[0][0]
    assert "read right" not in outputs[1][0], "only process 0 reports"
    _, together = load_variables(tmp_path / "two")
    _, alone = load_variables(tmp_path / "one")
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), together, alone)
    both = [(tmp_path / name / "metrics.jsonl").read_text().count("\n") for name in ("two", "one")]
    assert both[0] == both[1] == 6

    # With a disk for each, one would resume, the other start anew, and they would wait for each other for ever.
    apart = start_two([tmp_path / "two", tmp_path / "other"], *sources)
    outputs = [process.communicate(timeout=180) for process in apart]
    assert [process.returncode for process in apart] == [1, 1], outputs
    for name, (_, err) in zip(("two", "other"), outputs, strict=True):
        assert f"{tmp_path}/{name}: the processes of this run have different checkpoints" in err
