"""A model as one file that JAX alone runs, without this package, flax or Orbax: StableHLO (`jax.export`)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from crnn_jax.ctc import greedy_decode
from crnn_jax.reader import Reader

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export_program(reader: Reader, *, batch: int = 1, width: int | None = None, platforms: Sequence[str] = ()) -> bytes:
    """What `jax.export.deserialize` takes: a program from images to texts, the weights inside.

    Its `call` takes `batch` images, uint8[B, H, W], grey, as `Reader.fit` makes them, and gives the characters that are
    read, int32[B, T] Unicode code points with zeros behind, and the confidences, float32[B], as `Reader.read_fitted`
    does. It computes as this machine would, whatever the machine that it is run on; JAX keeps to what it has exported
    for half a year of its versions at least.

    Args:
        reader: the model, with its temperature.
        batch: images at a time.
        width: of the images; None: the config's. Others are for models that pad.
        platforms: of PLATFORMS, those that it shall run on; none: that of this machine.

    Raises ValueError for less than one image, for another width than the only one, for a platform that is none, and
    ImportError where flatbuffers is missing (`pip install -e '.[export]'`).
    """
    config = reader.config.model
    width = config.width if width is None else width
    if batch < 1:
        raise ValueError(f"batch = {batch}: expected at least one image")
    if width != config.width and (config.fit != "pad" or not 0 < width <= config.max_width):
        expected = f"1 to {config.max_width}" if config.fit == "pad" else config.width
        raise ValueError(f"width = {width}: expected {expected}")
    if unknown := sorted(set(platforms) - set(PLATFORMS)):
        raise ValueError(f"platforms {', '.join(unknown)}: expected of {', '.join(PLATFORMS)}")
    code_points = np.array([0, *map(ord, reader.charset.characters)], np.int32)

    def read(images):
        logits = reader.model.apply(reader.variables, images) / reader.temperature
        ids, _, confidence = jax.vmap(greedy_decode)(logits)
        return jnp.asarray(code_points)[ids], confidence

    images = jax.ShapeDtypeStruct((batch, config.height, width), np.uint8)
    from jax import export  # not above: it is not part of what `import jax` imports

    return bytes(export.export(jax.jit(read), platforms=tuple(platforms) or None)(images).serialize())
