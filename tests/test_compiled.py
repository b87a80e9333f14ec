"""read.py keeps what it compiles for the next start."""

import os
import subprocess
import sys

from PIL import Image
from small import EXPERIMENTS, noise_images


def read(image, cache):
    """What read.py prints for a user whose cache folder is `cache`."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(EXPERIMENTS.parent), "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, EXPERIMENTS / "read.py", image, "--model", "tiny"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def test_what_the_first_start_compiled_is_there_for_the_second(tmp_path):
    image = tmp_path / "word.png"
    Image.fromarray(noise_images(1)[0]).save(image)
    outputs, kept = [], []
    for _ in range(2):
        outputs.append(read(image, tmp_path))
        kept.append({path.name: path.stat().st_ino for path in (tmp_path / "crnn_jax").iterdir()})
    assert outputs[0] == outputs[1] and outputs[0].startswith(f"{image}\t")
    assert kept[0] == kept[1]
    assert [sum(name.startswith(of) for name in kept[0]) for of in ("prepare-", "read_batch-")] == [1, 1]
    # Words are also read where there can be no such folder.
    assert read(image, image) == outputs[0]
