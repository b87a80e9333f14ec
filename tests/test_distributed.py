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


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 40), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_two_processes_train_as_one(tmp_path):
    """On rendered words and on words from disk, of which there are fewer shards than processes."""
    pytest.importorskip("grain")
    write_tfrecords(tmp_path / "words.tfrecord", [(png(i), str(i)) for i in range(WORDS)])
    sources = ["--set", f"data.sources={tmp_path}/words.tfrecord,rendered", "data.weights=1,3"]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    two = [
        start(
            tmp_path / "two",
            *sources,
            "--coordinator",
            f"localhost:{port}",
            "--num_processes",
            "2",
            "--process_id",
            str(i),
            devices=1,
        )
        for i in range(2)
    ]
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
