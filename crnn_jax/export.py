"""A model as one file that JAX alone runs, without this package, flax or Orbax: StableHLO (`jax.export`)."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from crnn_jax.images import bucket_width
from crnn_jax.programs import read_batch
from crnn_jax.reader import Reader

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export_program(reader: Reader, *, batch: int = 1, width: int | None = None, platforms: Sequence[str] = ()) -> bytes:
    """A program from images to texts, weights included, as bytes for `jax.export.deserialize`.

    Its `call` takes `batch` grey images, uint8[B, H, W], as `Reader.fit` makes them, and returns the characters read,
    int32[B, T] Unicode code points from left to right followed by zeros, and the confidences, float32[B], as
    `Reader.read_fitted` does. It computes as this machine would, on whatever machine it runs; JAX supports an exported
    program for at least half a year of its versions.

    Args:
        reader: the model, with its temperature.
        batch: images at a time.
        width: of the images; None: the config's. A model that pads also reads others (`images.bucket_width`).
        platforms: those of PLATFORMS to run on; empty: that of this machine.

    Raises ValueError for less than one image, a width that the model does not read or an unknown platform; ImportError
    if flatbuffers is missing (`pip install -e '.[export]'`).
    """
    config = reader.config.model
    width = config.width if width is None else width
    if batch < 1:
        raise ValueError(f"batch = {batch}: expected at least one image")
    fits = partial(bucket_width, narrowest=config.width, widest=config.widest)
    widths = sorted({fits(natural) for natural in range(1, config.widest + 1)})
    if width not in widths:
        raise ValueError(f"width = {width}: expected {' or '.join(map(str, widths))}")
    if unknown := sorted(set(platforms) - set(PLATFORMS)):
        raise ValueError(f"platforms {', '.join(unknown)}: expected any of {', '.join(PLATFORMS)}")
    import flatbuffers  # noqa: F401, which JAX only finds missing after lowering the model

    code_points = np.array([0, *map(ord, reader.charset.characters)], np.int32)

    def read(images):
        ids, confidence = read_batch(reader.variables, reader.temperature, images, model=reader.model)
        return jnp.asarray(code_points)[ids], confidence

    images = jax.ShapeDtypeStruct((batch, config.height, width), np.uint8)
    return bytes(export.export(jax.jit(read), platforms=tuple(platforms) or None)(images).serialize())
