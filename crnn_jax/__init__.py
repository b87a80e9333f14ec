"""CRNN with a spatial transformer for text recognition in JAX.

    import crnn_jax
    reader = crnn_jax.load("tiny")
    reader.read(["word.png"])   # [Reading(text='...', confidence=0.97)]

Shape letters used throughout: B batch, H W C image, T frames, K classes (blank 0 included), N label slots, D features.
"""

from importlib.metadata import PackageNotFoundError, version

from crnn_jax.lexicon import Lexicon, load_lexicon
from crnn_jax.reader import Reader, Reading, load

try:
    __version__ = version("crnn_jax")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0.0.0"

__all__ = ["Lexicon", "Reader", "Reading", "__version__", "load", "load_lexicon"]
