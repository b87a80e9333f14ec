"""A run with reader processes: they leave signals to the run, and if one is killed, nothing is lost."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from test_data_stream import shards
from test_loop import ENVIRONMENT, TOY, finish


@pytest.fixture
def run(tmp_path):
    """A run in a session of its own that has saved step 2 and goes on."""
    pytest.importorskip("grain")
    settings = [f"data.sources={shards(tmp_path / 'a', range(100, 160))}", "run.read_processes=1", "run.steps=100000"]
    settings += ["run.eval_every=100000", "run.checkpoint_every=2"]
    process = subprocess.Popen(
        [sys.executable, TOY, "--workdir", tmp_path / "run", "--set", *settings],
        env=ENVIRONMENT | {"JAX_NUM_CPU_DEVICES": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "2").is_dir():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield process
    if process.poll() is None:
        process.kill()


def test_a_signal_to_all_its_processes_is_one_to_it(run):
    os.killpg(run.pid, signal.SIGTERM)  # as a scheduler does, or a terminal on Ctrl-C
    out, err = finish(run, code=130)
    assert "and saved: run the same command to continue from there" in out and "Traceback" not in err


def test_a_reader_that_is_killed_ends_it_saved(run, tmp_path):
    (reader,) = [
        child
        for child in psutil.Process(run.pid).children(recursive=True)
        if "resource_tracker" not in " ".join(child.cmdline())
    ]
    reader.kill()
    _, err = finish(run, code=1)
    assert err.splitlines()[-1].startswith("train.py: data.sources: reading stopped: Worker process was terminated")
    assert "Traceback" not in err
    step = max(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit())
    assert step >= 2
