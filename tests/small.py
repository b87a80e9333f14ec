"""A small network with random weights for tests of reading, and datasets for it.

It reads nonsense, different for every image. Tests that share SMALL also share its compiled functions.
"""

import importlib.util
import struct
import sys
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import crnn_jax
from crnn_jax.config import Config, ModelConfig
from crnn_jax.model import build
from crnn_jax.training.checkpoint import save_inference

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SMALL = ModelConfig(charset="94", cnn="tiny", lstm_features=8)
SHARP = 100  # factor on the logits: without it all classes are about equally likely in every frame


def save_small(folder: Path, model: ModelConfig = SMALL) -> Path:
    """Writes a model folder with random weights, the same every time."""
    images = jnp.zeros((1, model.height, model.width), jnp.uint8)
    shapes = jax.eval_shape(build(model).init, jax.random.key(0), images)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if "kernel" in path[-1].key:
            values = rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
            return np.float32(SHARP * values if path[-2].key == "head" else values)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    save_inference(folder, Config(model=model), jax.tree_util.tree_map_with_path(draw, shapes), {})
    return folder


def noise_images(count: int) -> list[np.ndarray]:
    """Images of random squares, uint8[32, 80..240]: no two alike."""
    rng = np.random.default_rng(1)
    squares = [rng.integers(0, 256, (4, columns), dtype=np.uint8) for columns in rng.integers(10, 31, count)]
    return [np.kron(image, np.ones((8, 8), np.uint8)) for image in squares]


def assert_same(readings: list[crnn_jax.Reading], expected: list[crnn_jax.Reading]):
    """Asserts equal texts, and confidences that differ only by the rounding of matrix products of another size."""
    assert [reading.text for reading in readings] == [reading.text for reading in expected]
    np.testing.assert_allclose([r.confidence for r in readings], [r.confidence for r in expected], rtol=1e-3)


def labelled_noise(folder: Path, model: Path, count: int, *, wrong: int) -> list[tuple[str, str]]:
    """Writes a dataset of `count` images labelled with what the model reads, every `wrong`-th with one letter too many.

    Returns the names and labels.
    """
    folder.mkdir()
    images = noise_images(count)
    samples = []
    for i, reading in enumerate(crnn_jax.load(model).read(images)):
        Image.fromarray(images[i]).save(folder / f"{i:03}.png")
        samples.append((f"{i:03}.png", reading.text + ("q" if i % wrong == 0 else "")))
    (folder / "labels.tsv").write_text("".join(f"{name}\t{label}\n" for name, label in samples))
    return samples


def load_script(name: str) -> ModuleType:
    """experiments/NAME.py as a module, whose `main` takes the arguments of the command."""
    if str(EXPERIMENTS) not in sys.path:
        sys.path.insert(0, str(EXPERIMENTS))  # it stays, as when run: some import others when called
    spec = importlib.util.spec_from_file_location(f"{name}_script", EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_lmdb(folder: Path, samples: list[tuple[bytes, str]]) -> Path:
    """An LMDB of encoded images and their labels; skips the test where lmdb is not installed."""
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(folder), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"num-samples", str(len(samples)).encode())
        for i, (image, label) in enumerate(samples, start=1):
            transaction.put(f"image-{i:09d}".encode(), image)
            transaction.put(f"label-{i:09d}".encode(), label.encode())
    return folder


def write_tfrecords(path: Path, samples: list[tuple[bytes, str]]) -> Path:
    """A TFRecord file of encoded images and their labels; skips the test if packages that this needs are missing."""
    example = pytest.importorskip("tensorflow_datasets").proto.tf_example_pb2.Example
    crc = pytest.importorskip("google_crc32c")

    def masked(data: bytes) -> bytes:
        value = crc.value(data)
        return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) % 2**32)

    with path.open("wb") as file:
        for image, label in samples:
            message = example()
            message.features.feature["image/encoded"].bytes_list.value.append(image)
            message.features.feature["text/string"].bytes_list.value.append(label.encode())
            data = message.SerializeToString()
            length = struct.pack("<Q", len(data))
            file.write(length + masked(length) + data + masked(data))
    return path
