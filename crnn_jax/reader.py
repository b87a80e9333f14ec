"""Read words: `crnn_jax.load(NAME or DIR) -> Reader`, `Reader.read(images) -> list[Reading]`."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from crnn_jax.batches import of_each
from crnn_jax.beam import beam_search
from crnn_jax.calibration import TEMPERATURES, load_calibration
from crnn_jax.charset import Charset
from crnn_jax.config import Config, ConfigError
from crnn_jax.ctc import greedy_decode
from crnn_jax.images import ImageSource, add_margin, fit_image, is_tall, load_image
from crnn_jax.lexicon import Lexicon, load_lexicon
from crnn_jax.model import CRNN, build, check_variables, prepare
from crnn_jax.stn import Diagnosis
from crnn_jax.training.checkpoint import CheckpointError, load_variables, weights_folder

DEFAULT_MODEL = "stn_crnn"  # the best of the bundled ones that has seen rendered words alone
TURNS = (0, 1, -1)  # quarters to the left, in which a tall image is looked at
MARGINS = (0.0, -0.06, 0.08)  # of the shorter side, added around the image in a thorough reading

Views = Sequence[Sequence[UInt8[np.ndarray, "_ _"]]]  # of one word: by turns, by margins


class Reading(NamedTuple):
    """One word as it was read."""

    text: str
    # 0..1, at the Reader's temperatures: the product over frames of the likeliest class's probability; with a lexicon
    # the text's share of the probability of the texts that were looked at.
    confidence: float


class Transform(NamedTuple):
    """What a model's STN does with one image."""

    image: UInt8[np.ndarray, "h w"] | None  # what it makes of it; None of an STN on features
    parameters: Float[np.ndarray, " P"]  # see `crnn_jax.stn`
    diagnosis: Diagnosis


class Reader:
    """A model with its weights, ready to read.

    Attributes:
        config: the configuration that it was trained by.
        model: the network; `model.apply(variables, images: uint8[B, H, W])` gives logits.
        variables: params and batch_stats.
        charset: what the classes of the logits stand for.
        temperature: divides the logits before the softmax that confidences come from; fitted by calibrate.py, else 1.
        lexicon_temperature: the same of the texts' scores, where a lexicon chooses.
    """

    def __init__(self, config: Config, variables: dict, *, temperature: float = 1.0, lexicon_temperature: float = 1.0):
        self.config: Config = config
        self.model: CRNN = build(config.model)
        self.variables = variables
        self.charset = Charset.of(config.model.charset)
        self.temperature = temperature
        self.lexicon_temperature = lexicon_temperature

    @property
    def variables(self) -> dict:
        """params and batch_stats, on the device."""
        return self._variables

    @variables.setter
    def variables(self, variables: dict) -> None:
        """From now on it reads with others."""
        self._variables = jax.device_put(variables)
        self.__dict__.pop("_prepared", None)

    @cached_property
    def _prepared(self) -> dict:
        """What reading goes by. Not made before it is needed: of a model's STN alone there is nothing to read with."""
        return prepare(self.model, self.variables)

    @property
    def has_stn(self) -> bool:
        """Whether the model has a spatial transformer, anywhere."""
        return self.config.model.stn.kind != "none"

    def fit(self, image: ImageSource) -> UInt8[np.ndarray, "h w"]:
        """An image as the model sees it: grey, at the model's height, stretched or padded. Raises ImageError."""
        return self.views(image)[0][0]

    def views(self, image: ImageSource, *, thorough: bool = False) -> Views:
        """What is made of an image to read it: by turns, one or, of what is much taller than wide, three; by margins,
        one or, for a `thorough` reading, three. The first is what `fit` makes. Raises ImageError."""
        model, grey = self.config.model, load_image(image)
        fit = partial(fit_image, height=model.height, width=model.width, fit=model.fit, max_width=model.max_width)
        turns = TURNS if is_tall(grey.shape) else TURNS[:1]
        pixels = [round(margin * min(grey.shape)) for margin in (MARGINS if thorough else MARGINS[:1])]
        return [[fit(add_margin(np.rot90(grey, turn), n)) for n in pixels] for turn in turns]

    def read(
        self,
        images: Iterable[ImageSource],
        *,
        lexicon: Lexicon | str | os.PathLike | None = None,
        thorough: bool = False,
    ) -> list[Reading]:
        """Reads words: paths, Pillow images or uint8 arrays, one word each, any number of them, any sizes.

        An image that is much taller than wide is read as it is and turned to both sides, and the reading of most
        confidence a character taken: of IC15's photographs 3 % are so, and few of them can be read upright. A turned
        one counts where it has two characters or more.

        With a `lexicon`, or the name of one (`load_lexicon`), its words count as likelier: the text is chosen from the
        likeliest (`beam_search`). A `thorough` reading takes three times as long: as the image is, and with margins
        that are narrower and wider; what it reads is the text with the most confidence in all.

        Raises ImageError, one line that names the image, at the first that cannot be decoded; LexiconError, before
        anything is read; TypeError for a single image that is in no list.
        """
        is_one = isinstance(images, str | bytes | os.PathLike | Image.Image)
        if isinstance(images, np.ndarray | jax.Array) and images.dtype == np.uint8:
            # An array [B,H,W] is a list; [H,W] and [H,W,1|3|4] are not.
            is_one = images.ndim < 3 or images.ndim == 3 and images.shape[-1] in (1, 3, 4)
        if is_one:
            raise TypeError("read takes a list of images, also of one: read([image])")
        if isinstance(lexicon, str | os.PathLike):
            lexicon = load_lexicon(lexicon)
        elif not isinstance(lexicon, Lexicon | None):
            kind = type(lexicon).__name__
            raise TypeError(f"lexicon is the name of one, or made of words: Lexicon.of(words), not {kind}")
        return self.read_views([self.views(image, thorough=thorough) for image in images], lexicon=lexicon)

    def read_views(self, words: Sequence[Views], *, lexicon: Lexicon | None = None) -> list[Reading]:
        """Reads words from their `views`: what the margins agree on, in the turn of most confidence a character."""
        images = [image for turns in words for margins in turns for image in margins]
        readings = iter(self.read_fitted(images, lexicon=lexicon))
        return [_best_turn([_agreed(list(islice(readings, len(margins)))) for margins in turns]) for turns in words]

    def read_fitted(
        self, images: Sequence[UInt8[np.ndarray, "_ _"]], *, lexicon: Lexicon | None = None
    ) -> list[Reading]:
        """Reads images that `fit` has brought to a size of the model."""
        if lexicon is not None:
            found = self.search(images)
            chosen = [lexicon.choose(*candidates, temperature=self.lexicon_temperature) for candidates in found]
            return [Reading(texts[i], share) for (texts, _), (i, share) in zip(found, chosen, strict=True)]
        read_batch = partial(_read_batch, self._prepared, temperature=self.temperature, model=self.model)
        return [Reading(self.charset.decode(ids), float(sure)) for ids, sure in of_each(read_batch, images)]

    def search(self, images: Sequence[UInt8[np.ndarray, "_ _"]]) -> list[tuple[list[str], list[float]]]:
        """The likeliest texts of images that `fit` has brought to a size of the model, and their log-probabilities.

        The best first, as `beam_search` finds them, with the network's own probabilities: at temperature 1.
        """
        found = of_each(partial(_search_batch, self._prepared, model=self.model), images)
        return [([self.charset.decode(ids) for ids in beams], log_probs.tolist()) for beams, log_probs in found]

    def logits(self, images: Sequence[UInt8[np.ndarray, "_ _"]]) -> list[Float[np.ndarray, "_ K"]]:
        """What the network makes of images that `fit` has brought to a size of the model, [T, K] each, undivided."""
        return of_each(partial(_apply, self._prepared, model=self.model), images)

    def transform(self, images: Sequence[UInt8[np.ndarray, "_ _"]]) -> list[Transform]:
        """What the STN does with images that `fit` has brought to a size of the model. ValueError where it has none."""
        made = of_each(partial(_transform_batch, self.variables, model=self.model), images)
        return [Transform(*fixed, Diagnosis(*map(float, numbers))) for fixed, numbers in made]


def _agreed(readings: Sequence[Reading]) -> Reading:
    """The reading of most confidence of the text that most confidence in all is for.

    Its mean over all readings would tell right from wrong a little better, but is far too low for a probability.
    """
    total = defaultdict(float)
    for text, confidence in readings:
        total[text] += confidence
    return max(readings, key=lambda reading: (total[reading.text], reading.confidence))


def _best_turn(turns: Sequence[Reading]) -> Reading:
    """The reading of most confidence a character, of the image as it is and of those of its turns that make a word.

    A single character is no taller turned: an upright I is itself, not an h that lies.
    """
    first, *others = turns
    return max([first, *(reading for reading in others if len(reading.text) > 1)], key=_confidence_a_character)


def _confidence_a_character(reading: Reading) -> float:
    """What compares readings of unequal length: nothing and a single character are read with confidence easily."""
    return reading.confidence ** (1 / len(reading.text)) if reading.text else 0.0


@partial(jax.jit, static_argnames="model")
def _apply(variables, images, *, model: CRNN):
    return model.apply(variables, images)


@partial(jax.jit, static_argnames="model")
def _transform_batch(variables, images, *, model: CRNN):
    made, updated = model.apply(variables, images, method="transform", mutable=["diagnostics"])
    return made, Diagnosis(*(updated["diagnostics"]["stn"][f"stn_{name}"] for name in Diagnosis._fields))


@partial(jax.jit, static_argnames="model")
def _read_batch(variables, images, *, temperature, model: CRNN):
    # Dividing by a positive number moves no maximum, so the text is the same at every temperature.
    ids, _, confidence = jax.vmap(greedy_decode)(model.apply(variables, images) / temperature)
    return ids, confidence


@partial(jax.jit, static_argnames="model")
def _search_batch(variables, images, *, model: CRNN):
    beams = jax.vmap(beam_search)(model.apply(variables, images))
    return beams.ids, beams.log_probs


def load(model: str | Path = DEFAULT_MODEL) -> Reader:
    """The reader of a bundled model (by its name), of a model folder, or of a run's workdir (its best checkpoint).

    On a CPU it computes in float32, and its config says so, whatever the model was trained in: bfloat16 takes three
    times as long there.

    Raises CheckpointError, one line, where there is no such model or its files are not whole.
    """
    folder = weights_folder(model)
    calibration = load_calibration(folder) or {}
    config, variables = load_variables(folder)
    if jax.default_backend() == "cpu":
        config = replace(config, model=replace(config.model, dtype="float32"))
    temperatures = {name: calibration[name] for name in TEMPERATURES if name in calibration}
    try:
        reader = Reader(config, variables, **temperatures)
    except ConfigError as error:  # sizes and layers that do not go together
        raise CheckpointError(f"{folder}: {error}") from None
    try:
        check_variables(reader.model, reader.variables)
    except ValueError as error:
        message = f"{folder}: its weights are not those of the network that its config describes"
        raise CheckpointError(f"{message}: {error}") from None
    return reader
