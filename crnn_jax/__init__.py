"""CRNN with a spatial transformer for text recognition in JAX.

    import crnn_jax
    reader = crnn_jax.load("tiny")
    reader.read(["word.png"])   # [Reading(text='...', confidence=0.97)]

Shape letters used throughout: B batch, H W C image, T frames, K classes (blank 0 included), N label slots, D features.
"""

from importlib.metadata import PackageNotFoundError, version

from crnn_jax.images import ImageError
from crnn_jax.lexicon import Lexicon, LexiconError, load_lexicon
from crnn_jax.reader import Reader, Reading, load
from crnn_jax.training.checkpoint import CheckpointError

try:
    __version__ = version("crnn_jax")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0.0.0"

__all__ = [
    "CheckpointError",
    "ImageError",
    "Lexicon",
    "LexiconError",
    "Reader",
    "Reading",
    "__version__",
    "load",
    "load_lexicon",
]
