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
    """What `jax.export.deserialize` takes: a program from images to texts, the weights inside.

    Its `call` takes `batch` images, uint8[B, H, W], grey, as `Reader.fit` makes them, and gives the characters that are
    read, int32[B, T] Unicode code points from left to right with zeros behind, and the confidences, float32[B], as
    `Reader.read_fitted` does. It computes as this machine would, whatever the machine that it is run on; JAX keeps to
    what it has exported for half a year of its versions at least.

    Args:
        reader: the model, with its temperature.
        batch: images at a time.
        width: of the images; None: the config's. A model that pads reads others, too (`images.bucket_width`).
        platforms: of PLATFORMS, those that it shall run on; none: that of this machine.

    Raises ValueError for less than one image, a width in which the model reads none, a platform that is none;
    ImportError where flatbuffers is missing (`pip install -e '.[export]'`).
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
        raise ValueError(f"platforms {', '.join(unknown)}: expected of {', '.join(PLATFORMS)}")
    import flatbuffers  # noqa: F401, of which JAX tells only once the model is lowered

    code_points = np.array([0, *map(ord, reader.charset.characters)], np.int32)

    def read(images):
        ids, confidence = read_batch(reader.variables, reader.temperature, images, model=reader.model)
        return jnp.asarray(code_points)[ids], confidence

    images = jax.ShapeDtypeStruct((batch, config.height, width), np.uint8)
    return bytes(export.export(jax.jit(read), platforms=tuple(platforms) or None)(images).serialize())
