"""Read words: `crnn_jax.load(NAME or DIR) -> Reader`, `Reader.read(images) -> list[Reading]`."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from crnn_jax.batches import of_each
from crnn_jax.calibration import TEMPERATURES, load_calibration
from crnn_jax.charset import Charset
from crnn_jax.config import Config, ConfigError
from crnn_jax.images import ImageError, ImageSource, add_margin, check_list, fit_image, is_tall, load_image
from crnn_jax.lexicon import Lexicon, load_lexicon
from crnn_jax.model import CRNN, build, check_variables, num_frames, prepare
from crnn_jax.program_cache import ProgramCache
from crnn_jax.programs import apply, read_batch, score_batch, score_texts, search_batch, transform_batch
from crnn_jax.reading import Reading, agreed, best_turn
from crnn_jax.stn import Diagnosis
from crnn_jax.training.checkpoint import CheckpointError, load_variables, weights_folder
from crnn_jax.wordlist import WordList, load_words

DEFAULT_MODEL = "stn_crnn"  # the best of the bundled models trained on rendered words alone
TURNS = (0, 1, -1)  # quarter turns to the left in which a tall image is read
MARGINS = (0.0, -0.06, 0.08)  # fractions of the shorter side, added on all sides in a thorough reading

log = logging.getLogger("crnn_jax.reader")

Views = Sequence[Sequence[UInt8[np.ndarray, "_ _"]]]  # of one word: by turn, then by margin


class Transform(NamedTuple):
    """What a model's STN does with one image."""

    image: UInt8[np.ndarray, "h w"] | None  # its output; None for an STN on features
    parameters: Float[np.ndarray, " P"]  # see `crnn_jax.stn`
    diagnosis: Diagnosis


class Reader:
    """A model with its weights, ready to read.

    Attributes:
        config: the configuration that it was trained with.
        model: the network; `model.apply(variables, images: uint8[B, H, W])` gives logits.
        variables: params and batch_stats.
        charset: what the classes of the logits stand for.
        temperature: divides the logits before the softmax that confidences come from; fitted by calibrate.py, else 1.
        lexicon_temperature: the same for the texts' scores, when a lexicon chooses among them.

    With a folder as `cache`, programs compiled for the first CPU device are kept there (`ProgramCache`).
    """

    def __init__(
        self,
        config: Config,
        variables: dict,
        *,
        temperature: float = 1.0,
        lexicon_temperature: float = 1.0,
        cache: str | os.PathLike | None = None,
    ):
        self.config: Config = config
        self.model: CRNN = build(config.model)
        self._folder = None if cache is None else Path(cache).expanduser()
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
        """Replaces them for all later readings."""
        self._variables = jax.device_put(variables)
        devices = {device for leaf in jax.tree.leaves(self._variables) for device in leaf.devices()}
        is_kept = jax.default_backend() == "cpu" and devices == {jax.local_devices()[0]}
        self._cache = ProgramCache(self._folder, self.model) if self._folder and is_kept else None
        self.__dict__.pop("_prepared", None)

    def check(self) -> None:
        """Raises ValueError if the variables are not the network's (`check_variables`)."""
        # This program is only ever compiled for variables that were checked (`_prepared`).
        if not (self._cache and self._cache.has(prepare, self.variables)):
            check_variables(self.model, self.variables)

    @cached_property
    def _prepared(self) -> dict:
        """The variables for reading, made on first use: those of an STN alone can transform images but not read."""
        if self._cache:
            self.check()
        return self.variables | self._run(prepare, self.variables)

    def _run(self, function: Callable, variables: dict, *args):
        """`function(variables, *args, model=model)`, through the cache if there is one."""
        return self._cache(function, variables, *args) if self._cache else function(variables, *args, model=self.model)

    @property
    def has_stn(self) -> bool:
        """Whether the model has a spatial transformer, anywhere."""
        return self.config.model.stn.kind != "none"

    def fit(self, image: ImageSource) -> UInt8[np.ndarray, "h w"]:
        """An image as the model sees it: grey, at the model's height, stretched or padded. Raises ImageError."""
        return self.views(image)[0][0]

    def views(self, image: ImageSource, *, thorough: bool = False) -> Views:
        """The versions of an image that are read, by turn and by margin; the first is that of `fit`. Raises ImageError.

        There are three turns if it is much taller than wide, and three margins if `thorough`, otherwise one.
        """
        model, grey = self.config.model, load_image(image)
        fit = partial(fit_image, height=model.height, width=model.width, fit=model.fit, max_width=model.max_width)
        turns = TURNS if is_tall(grey.shape) else TURNS[:1]
        pixels = [round(margin * min(grey.shape)) for margin in (MARGINS if thorough else MARGINS[:1])]
        return [[fit(add_margin(np.rot90(grey, turn), n)) for n in pixels] for turn in turns]

    def read(
        self,
        images: Iterable[ImageSource],
        *,
        lexicon: Lexicon | str | os.PathLike | Iterable[str] | None = None,
        thorough: bool = False,
        damaged_ok: bool = False,
    ) -> list[Reading | None]:
        """Reads words: paths, Pillow images or uint8 arrays, one word each, any number of them, any sizes.

        An image much taller than wide is read as it is and turned to either side, and the reading with the most
        confidence per character is kept: 3 % of IC15's photographs are like that, and few of them can be read upright.
        A reading of a turned image counts if it has at least two characters.

        With a `lexicon` (a Lexicon, its words, or a name for `load_lexicon`), its words count as likelier: the text is
        chosen from the likeliest ones (`beam_search`). A `thorough` reading takes three times as long: it reads the
        image as it is and with narrower and wider margins, and returns the text with the highest total confidence.

        Raises ImageError, one line naming the image, at the first one that cannot be decoded, or with `damaged_ok` logs
        that line and returns None in its place; LexiconError, before anything is read; TypeError for a single image.
        """
        check_list(images)
        if isinstance(lexicon, str | os.PathLike):
            lexicon = load_lexicon(lexicon)
        elif lexicon is not None and not isinstance(lexicon, Lexicon):
            lexicon = Lexicon.of(lexicon)
        return self.read_views(list(self._views_of(images, thorough, damaged_ok)), lexicon=lexicon)

    def _views_of(self, images: Iterable[ImageSource], thorough: bool, damaged_ok: bool) -> Iterator[Views]:
        """The views of every image; for one that cannot be decoded none, or ImageError."""
        for index, image in enumerate(images):
            try:
                yield self.views(image, thorough=thorough)
            except ImageError as error:
                if not damaged_ok:
                    raise
                log.warning("image %d: %s", index, error)
                yield []

    def read_views(self, words: Sequence[Views], *, lexicon: Lexicon | None = None) -> list[Reading | None]:
        """Reads words from their `views`: what the margins agree on, in the turn with most confidence per character.

        The reading of a word without views is None.
        """
        images = [image for turns in words for margins in turns for image in margins]
        readings = iter(self.read_fitted(images, lexicon=lexicon))
        looks = [[agreed(list(islice(readings, len(margins)))) for margins in turns] for turns in words]
        return [best_turn(turns) if turns else None for turns in looks]

    def choose(
        self,
        images: Iterable[ImageSource],
        words: Iterable[str] | str | os.PathLike | WordList,
        *,
        thorough: bool = False,
        damaged_ok: bool = False,
    ) -> list[Reading | None]:
        """Reads which word of a closed list, or of a file with one word per line, each image shows.

        It compares the probabilities of all words, each summed over all paths that spell it, in all views of the image:
        the lexicon-based transcription of Shi et al. 2015, section 2.3.2, but exact and over the whole list. Texts are
        spelled as in the list; `word_list(words).warnings()` reports words that are never read. The confidence is the
        word's share of the list's total probability, so it can be high even if the image shows none of its words. With
        full batches it takes about 5 ms per image on a CPU core for 1,000 words in a single letter case.

        Raises ImageError and TypeError like `read`, with its `damaged_ok`, and LexiconError if no word can be read.
        """
        check_list(images)
        among = words if isinstance(words, WordList) else self.word_list(words)
        return self.choose_views(list(self._views_of(images, thorough, damaged_ok)), among)

    def choose_each(
        self,
        images: Iterable[ImageSource],
        words: Iterable[Iterable[str]],
        *,
        thorough: bool = False,
        damaged_ok: bool = False,
    ) -> list[Reading | None]:
        """Like `choose`, with a separate list for each image, such as those of 50 or 1,000 words of IIIT5K and SVT.

        Raises what `choose` raises, and ValueError unless there are as many lists as images.
        """
        check_list(images)
        images, words = list(images), list(words)
        if len(words) != len(images):
            raise ValueError(f"{len(words)} lists of words for {len(images)} images")
        if any(isinstance(own, str | os.PathLike) for own in words):
            raise TypeError("expected a list of words for each image")
        lists = [self.word_list(own) for own in words]
        return self.choose_views(list(self._views_of(images, thorough, damaged_ok)), lists)

    def word_list(self, words: Iterable[str] | str | os.PathLike) -> WordList:
        """A closed list for `choose`, from words or a file with one per line. Raises LexiconError and TypeError."""
        if isinstance(words, str | os.PathLike):
            words = load_words(words)
        return WordList.of(words, self.charset, frames=num_frames(self.config.model, self.config.model.widest))

    def choose_views(self, words: Sequence[Views], among: WordList | Sequence[WordList]) -> list[Reading | None]:
        """`choose`, or with a list per word `choose_each`, from the words' `views`; None for a word without views.

        Raises ValueError for a list that was made for another charset.
        """
        lists = [among] * len(words) if isinstance(among, WordList) else among
        if any(own.charset != self.charset for own in lists):
            raise ValueError("the word list was made for a model with another charset")
        images = [image for turns in words for margins in turns for image in margins]
        if isinstance(among, WordList):
            scores = iter(of_each(partial(self._run, score_batch, self._prepared, among.groups), images))
        else:
            owners = [own.groups for turns, own in zip(words, lists, strict=True) for margins in turns for _ in margins]
            scores = map(score_texts, self.logits(images), owners)
        looks = [[np.stack(list(islice(scores, len(margins)))) for margins in turns] for turns in words]
        chosen = zip(looks, lists, strict=True)
        return [own.choose([look[:, own.places] for look in turns]) if turns else None for turns, own in chosen]

    def read_fitted(
        self, images: Sequence[UInt8[np.ndarray, "_ _"]], *, lexicon: Lexicon | None = None
    ) -> list[Reading]:
        """Reads images that `fit` has resized for the model."""
        if lexicon is not None:
            found = self.search(images)
            chosen = [lexicon.choose(*candidates, temperature=self.lexicon_temperature) for candidates in found]
            return [Reading(texts[i], share) for (texts, _), (i, share) in zip(found, chosen, strict=True)]
        read = partial(self._run, read_batch, self._prepared, float(self.temperature))
        return [Reading(self.charset.decode(ids), float(sure)) for ids, sure in of_each(read, images)]

    def search(self, images: Sequence[UInt8[np.ndarray, "_ _"]]) -> list[tuple[list[str], list[float]]]:
        """The likeliest texts of images that `fit` has resized for the model, and their log-probabilities.

        Best first, as found by `beam_search` from the network's own probabilities (temperature 1).
        """
        found = of_each(partial(self._run, search_batch, self._prepared), images)
        return [([self.charset.decode(ids) for ids in beams], log_probs.tolist()) for beams, log_probs in found]

    def logits(self, images: Sequence[UInt8[np.ndarray, "_ _"]]) -> list[Float[np.ndarray, "_ K"]]:
        """The logits, [T, K] each, of images that `fit` has resized for the model; not divided by the temperature."""
        return of_each(partial(self._run, apply, self._prepared), images)

    def transform(self, images: Sequence[UInt8[np.ndarray, "_ _"]]) -> list[Transform]:
        """What the STN does with images that `fit` has resized for the model. Raises ValueError if there is no STN."""
        made = of_each(partial(self._run, transform_batch, self.variables), images)
        return [Transform(*fixed, Diagnosis(*map(float, numbers))) for fixed, numbers in made]


def load(model: str | Path = DEFAULT_MODEL, *, cache: str | os.PathLike | None = None) -> Reader:
    """The reader of a bundled model (by its name), of a model folder, or of a run's workdir (its best checkpoint).

    On a CPU it computes in float32, and its config says so, whatever dtype the model was trained in: bfloat16 takes
    three times as long there. With a folder as `cache`, programs compiled on a CPU are kept in it, and the next process
    that uses it with this model neither traces nor compiles (`ProgramCache`); only its owner should have write access.

    Raises CheckpointError, one line, if there is no such model or its files are incomplete.
    """
    folder = weights_folder(model)
    calibration = load_calibration(folder) or {}
    config, variables = load_variables(folder)
    if jax.default_backend() == "cpu":
        config = replace(config, model=replace(config.model, dtype="float32"))
    temperatures = {name: calibration[name] for name in TEMPERATURES if name in calibration}
    try:
        reader = Reader(config, variables, **temperatures, cache=cache)
    except ConfigError as error:  # sizes and layers that do not fit together
        raise CheckpointError(f"{folder}: {error}") from None
    try:
        reader.check()
    except ValueError as error:
        message = f"{folder}: its weights do not fit the network that its config describes"
        raise CheckpointError(f"{message}: {error}") from None
    return reader
