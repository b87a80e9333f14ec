"""Makes training targets of labelled images: class ids that fit the slots and frames, pixels at the model's size."""

from collections.abc import Mapping
from functools import cache

import numpy as np
from jaxtyping import UInt8

from crnn_jax.charset import Charset, is_spelled, respell
from crnn_jax.config import Config, ModelConfig
from crnn_jax.ctc import needed_frames
from crnn_jax.images import fit_image, is_tall
from crnn_jax.model import num_frames


def class_ids(label: str, charset: Charset) -> list[int] | None:
    """The class ids of a label, or None if it has a letter or digit that the charset lacks.

    The label is respelled for the charset (`respell`), and loses its spaces and the punctuation marks that the charset
    lacks, as in the evaluation protocol.
    """
    label = "".join(charset.fold(respell(label, charset.characters)).split())
    if any(is_spelled(c) and c not in charset.characters for c in label):
        return None
    return charset.encode(charset.keep(label))


def unfit(ids: list[int] | None, config: Config) -> str:
    """Why a word with these class ids cannot be trained on; empty if it can."""
    if ids is None:
        return "characters outside the charset"
    if not ids:
        return "no characters"
    if len(ids) > config.data.max_length:
        return f"longer than data.max_length = {config.data.max_length}"
    frames = _frames(config.model)
    if needed_frames(ids) > frames:
        return f"too long for {frames} frames"
    return ""


@cache
def _frames(model: ModelConfig) -> int:
    return num_frames(model, model.width)


def turned(size: tuple[int, int], ids: list[int]) -> str:
    """Why an image of this height and width cannot show a word upright: it is too tall for three or more characters.

    Empty if it can. Which way the word is turned is unknown, and squeezing the image as it is to the model's size would
    teach the wrong thing.
    """
    return "turned on its side" if len(ids) > 2 and is_tall(size) else ""


def reasons(left_out: Mapping[str, int]) -> str:
    """How many words were left out for each reason, to append to how many were kept; empty if none were."""
    return "".join(f"; {count} left out: {reason}" for reason, count in sorted(left_out.items()))


def fit(image: UInt8[np.ndarray, "H W"], config: Config) -> UInt8[np.ndarray, "h w"]:
    """Fits an image to the size that the model trains at."""
    # One size for all: with fit="pad", longer words are squeezed into the narrowest bucket, like rendered ones.
    model = config.model
    return fit_image(image, height=model.height, width=model.width, fit=model.fit, max_width=model.width)
