"""How long read.py takes from start to exit: `start` of bench.py."""

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from PIL import Image

from crnn_jax.data.rendered import RenderedWords
from crnn_jax.training.checkpoint import load_variables

READ = Path(__file__).with_name("read.py")


def start_seconds(model: str, *, rounds: int) -> dict[str, list[float]]:
    """Seconds that read.py takes to read one rendered word, each time in a new process.

    Returns those of the `first start`, with an empty cache, of the `later starts`, one per round, and of Python with
    the `imports alone`, measured in turn with these. Raises CheckpointError, DatasetError, and OSError if a start
    fails.
    """
    config, _ = load_variables(model)
    image = RenderedWords(config, count=1)[0].image
    seconds = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        word = Path(folder, "word.png")
        Image.fromarray(image).save(word)
        environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        environment["XDG_CACHE_HOME"] = folder

        def time_of(name, *arguments):
            begin = time.perf_counter()
            process = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
            seconds[name].append(time.perf_counter() - begin)
            if process.returncode:
                raise OSError((process.stderr.splitlines() or ["a start failed"])[-1])

        time_of("first start", READ, word, "--model", model)
        for _ in range(rounds):
            time_of("later starts", READ, word, "--model", model)
            time_of("imports alone", "-c", f"import sys; sys.path.insert(0, {str(READ.parent)!r}); import read")
    return dict(seconds)
