"""The configuration of a run: frozen dataclasses.

An experiment is a file in `experiments/configs/` with one function `get_config() -> Config`. Every field can be
overridden on the command line: `--set model.stn.kind=tps run.steps=500`. A Config is hashable, so it may be a static
argument of a jitted function.
"""

import re
from dataclasses import dataclass, field

from crnn_jax import section
from crnn_jax.charset import Charset
from crnn_jax.section import ConfigError, Section, override, to_json
from crnn_jax.stacks import STACKS
from crnn_jax.synth.style import MJSYNTH, Style

__all__ = [
    "RENDERED",
    "Config",
    "ConfigError",
    "DataConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "StnConfig",
    "from_json",
    "override",
    "to_json",
]


RENDERED = "rendered"  # in data.sources: words that are rendered on the device


@dataclass(frozen=True)
class StnConfig(Section):
    """The spatial transformer (Jaderberg et al. 2015); `kind="none"` leaves it out."""

    path = "model.stn"

    kind: str = "none"  # none | affine | tps
    placement: str = "image"  # image, or block1, block2, ...: after that block of the CNN
    fiducials: int = 20  # TPS control points, an even number: half along the top edge, half along the bottom
    start: str = "identity"  # identity | disturbed: the bias that the localisation net starts from
    disturbance: float = 0.1  # size of a disturbed start, in normalised coordinates (the image is 2 wide)
    feature_gain: float = 1.0  # factor on the features in front of the last layer (ASTER: 0.1)
    bound: float = 0.0  # the largest deviation from the identity, by tanh, in normalised coordinates; 0: unbounded
    outside: str = "border"  # border | zeros: what is sampled beyond the edges of the input
    bypass: float = 0.0  # in training: the probability that an example gets the identity instead (MORAN v2: 0.5)
    oversample: float = 1.3  # placement=image: the STN reads an image this much larger than the one it returns
    features: tuple[int, ...] = (16, 32, 64, 64)  # channels of the localisation net's convolutions

    def _check(self):
        self._one_of("kind", "none", "affine", "tps")
        is_placement = re.fullmatch("image|block[1-9][0-9]*", self.placement) is not None
        self._require(is_placement, "placement", "image, or block1, block2, ...")
        self._require(self.fiducials >= 4 and self.fiducials % 2 == 0, "fiducials", "an even number of at least 4")
        self._one_of("start", "identity", "disturbed")
        self._one_of("outside", "border", "zeros")
        self._fraction("bypass")
        self._at_least(0, "disturbance", "bound")
        self._require(self.feature_gain > 0, "feature_gain", "a number above 0")
        self._at_least(1, "oversample")
        layers = len(self.features)  # with a pool between every two; the 16 rows that they see allow four pools
        self._require(1 <= layers <= 5 and min(self.features) > 0, "features", "one to five positive integers")
        free = self.start == "identity" or self.bound == 0 or self.bound > 2 * self.disturbance
        self._require(free, "bound", f"0 for none, or more than twice model.stn.disturbance = {self.disturbance:g}")


@dataclass(frozen=True)
class ModelConfig(Section):
    """CRNN = [STN] -> CNN -> BiLSTM -> logits (Shi et al. 2015, section 2)."""

    path = "model"

    charset: str = "36"  # 36 | 62 | 94, or the characters themselves
    height: int = 32  # pixels
    width: int = 100  # pixels; for fit=pad the width of the narrowest bucket
    fit: str = "resize"  # resize: stretched to height x width | pad: aspect ratio kept, padded on the right
    normalise: str = "range"  # range: 0..255 becomes -1..1 | contrast: each image to mean 0, variance 1
    max_width: int = 400  # pixels; fit=pad: the widest bucket that the Reader uses; training squeezes to `width`
    cnn: str = "tiny"  # a table of `crnn_jax.stacks`: tiny | compact | small | vgg | resnet | keras | keras_narrow
    lstm_features: int = 128  # per direction
    lstm_layers: int = 1
    dropout: float = 0.0  # in front of the logits
    dtype: str = "float32"  # of the computation: float32 | bfloat16; parameters are float32
    stn: StnConfig = field(default_factory=StnConfig)

    def _check(self):
        try:
            Charset.of(self.charset)
        except ValueError as error:
            raise ConfigError(f"model.charset: {error}") from None
        self._at_least(1, "height", "width", "lstm_features", "lstm_layers")
        self._one_of("fit", "resize", "pad")
        self._one_of("normalise", "range", "contrast")
        self._require(self.fit == "resize" or self.max_width >= self.width, "max_width", "at least model.width")
        self._one_of("cnn", *STACKS)
        self._fraction("dropout")
        self._one_of("dtype", "float32", "bfloat16")

    @property
    def widest(self) -> int:
        """The largest width in pixels that an image is fitted to."""
        return self.max_width if self.fit == "pad" else self.width


@dataclass(frozen=True)
class DataConfig(Section):
    """The words of a run: rendered on the device, real ones to fine-tune on, or read from disk."""

    path = "data"

    style: Style = MJSYNTH  # look of rendered words; on the command line also a preset's name: data.style=photo
    fonts: int = 0  # how many of the bundled fonts; 0: all
    max_length: int = 24  # characters of a word: the label slots N
    length_bias: float = 1.0  # above 1 short words are likelier, see `sample_word`; 1: uniform over the list
    share_digits: float = 0.07  # of the samples: digit strings, prices, dates
    share_random: float = 0.07  # of the samples: random strings and codes
    share_punctuation: float = 0.0  # of the words: with a punctuation mark in front, behind or inside
    held_out_words: int = 1024  # held-out samples in an evaluation
    real: tuple[str, ...] = ()  # datasets of real words; the last tenth of each is never trained on
    share_real: float = 0.0  # of every batch, in quarters: real words, augmented
    sources: tuple[str, ...] = ()  # datasets of any size that are read from disk; RENDERED stands for rendered words
    weights: tuple[float, ...] = ()  # each source's share of a batch, in any unit; empty: equal shares
    augment: bool = False  # warp the words of the sources like those of `real`
    validation: tuple[str, ...] = ()  # datasets whose words decide which checkpoint is the best
    min_height: int = 8  # pixels; lower images of the sources are left out
    max_damaged: float = 0.01  # share of the words read that may prove damaged before the run stops

    def _check(self):
        self._at_least(0, "fonts", "share_digits", "share_random", "share_punctuation")
        self._at_least(1, "max_length", "length_bias", "held_out_words")
        self._require(self.share_punctuation <= 1, "share_punctuation", "a share, 0 to 1")
        self._require(self.share_real in (0, 0.25, 0.5, 0.75, 1), "share_real", "0, 0.25, 0.5, 0.75 or 1")
        self._require(
            not (self.real and self.sources), "sources", "none together with data.real, which is kept on the device"
        )
        self._require(len(self.weights) in (0, len(self.sources)), "weights", "one for each of data.sources, or none")
        self._require(min(self.weights, default=1) > 0, "weights", "numbers above 0")
        for name in ("real", "sources", "validation"):
            self._require(len(set(getattr(self, name))) == len(getattr(self, name)), name, "each dataset only once")
        self._at_least(1, "min_height")
        self._fraction("max_damaged")
        both = self.share_digits + self.share_random
        self._require(both <= 1, "share_random", f"at most 1 together with share_digits, not {both:g}")


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """Optimiser and schedule."""

    path = "optimizer"

    name: str = "adamw"  # adamw | sgd | adadelta
    learning_rate: float = 2e-3  # the peak of the schedule
    warmup_steps: int = 500
    final_factor: float = 0.01  # of the peak, at the end of the cosine
    weight_decay: float = 1e-4  # adamw only; kernels only
    momentum: float = 0.9  # sgd only, Nesterov
    clip_norm: float = 5.0  # of the gradient; 0: none
    clip_apart: bool = True  # clip the localisation net's gradient and the rest's each by its own norm
    localisation_factor: float = 0.1  # on the learning rate of the localisation net
    ema_decay: float = 0.999  # exponential moving average of the parameters, used in evaluation; 0: none

    def _check(self):
        self._one_of("name", "adamw", "sgd", "adadelta")
        self._require(self.learning_rate > 0, "learning_rate", "a number above 0")
        self._at_least(0, "warmup_steps", "weight_decay", "clip_norm", "localisation_factor")
        self._require(0 <= self.final_factor <= 1, "final_factor", "a share, 0 to 1")
        self._fraction("momentum", "ema_decay")


@dataclass(frozen=True)
class RunConfig(Section):
    """Length of a run and what it does on the way."""

    path = "run"

    steps: int = 1000
    batch_size: int = 64  # over all devices of all hosts
    steps_per_dispatch: int = 10  # by lax.scan; the other periods are multiples of it
    log_every: int = 50  # steps
    eval_every: int = 500
    checkpoint_every: int = 500  # steps; also at every evaluation and when a run is stopped
    keep: int = 2  # checkpoints besides the best
    seed: int = 0
    read_threads: int = 1  # reading data.sources ahead; more are slower (Python's GIL), unless the disk is slow
    read_processes: int = 0  # besides this one, each with that many threads: about 4,000 words a second each

    def _check(self):
        self._at_least(1, "batch_size", "steps_per_dispatch", "keep", "read_threads")
        self._at_least(0, "read_processes")
        self._require(0 <= self.seed < 2**32, "seed", "0 to 2**32 - 1")
        for name in ("steps", "log_every", "eval_every", "checkpoint_every"):
            period, dispatch = getattr(self, name), self.steps_per_dispatch
            fits = period > 0 and period % dispatch == 0
            self._require(fits, name, f"a positive multiple of run.steps_per_dispatch = {dispatch}")


@dataclass(frozen=True)
class Config(Section):
    """One experiment."""

    name: str = "quickstart"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def _check(self):
        self._require(bool(self.name), "name", "a name")


def from_json(text: str) -> Config:
    """The Config that `to_json` wrote; missing fields take their defaults. Raises ConfigError."""
    return section.from_json(text, Config)
