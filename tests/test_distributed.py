"""Two processes on localhost train together, and end where one process with two devices ends."""

import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np

from crnn_jax.training.checkpoint import load_variables

TOY = Path(__file__).parent / "toy.py"
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(TOY.parents[1])}
SGD = ["--set", "optimizer.name=sgd", "optimizer.learning_rate=0.05", "run.steps=8"]


def start(workdir, *arguments, devices: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, TOY, "--workdir", workdir, *SGD, *arguments],
        env=ENVIRONMENT | {"JAX_NUM_CPU_DEVICES": str(devices)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_train_as_one(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    two = [
        start(
            tmp_path / "two",
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
    one = start(tmp_path / "one", devices=2)
    outputs = [process.communicate(timeout=180) for process in (*two, one)]
    assert [process.returncode for process in (*two, one)] == [0, 0, 0], outputs
    assert "held-out rendered words read right" in outputs[0][0]
    assert "read right" not in outputs[1][0], "only process 0 reports"
    _, together = load_variables(tmp_path / "two")
    _, alone = load_variables(tmp_path / "one")
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), together, alone)
    both = [(tmp_path / name / "metrics.jsonl").read_text().count("\n") for name in ("two", "one")]
    assert both[0] == both[1] == 6
