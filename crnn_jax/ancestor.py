"""The network of CRNN-with-STN, the Keras project that this one started from, with its faults as switches.

https://github.com/sbillburg/CRNN-with-STN reads words in images of 31 x 200 with seven convolutions, an affine STN on
the last features (50 frames x 7 rows) and two bidirectional LSTMs. Its author found that the STN does not help, and
that it does not converge behind the first convolution. Each of FAULTS restores one of these:

- sampler: at the identity the STN blurs its input and zeroes the last row and column (`keras_sample`).
- backward: the output of the backward LSTMs is never turned back in time, so that frame t joins what one direction has
  read up to frame t with what the other has read from frame T - 1 - t on.
- padding: labels are filled up to 16 with a padding class (`pad_labels`), which the network has to spell after every
  word, with a blank between every two.
- range: images are not normalised, 0..255.
- norm: conv_2 reads conv_1, and the BatchNorm between the two is computed for nothing. Here it is left out.
- discard: the first two frames are dropped before the loss and before decoding.

The rest is the original network, apart from three things: images are grey, they are padded with their last column
instead of black (`crnn_jax.images`), and weights are initialised as everywhere in this package.
"""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt8

from crnn_jax.charset import BLANK, Charset
from crnn_jax.config import ConfigError, ModelConfig, StnConfig
from crnn_jax.conv import Conv
from crnn_jax.lstm import BiLSTM
from crnn_jax.model import CRNN
from crnn_jax.sampler import Pair, affine_grid, bilinear_sample
from crnn_jax.section import differences
from crnn_jax.stacks import STACKS
from crnn_jax.stn import diagnose, sow, start_parameters

FAULTS = ("sampler", "backward", "padding", "range", "norm", "discard")
DISCARDED = 2  # frames
SLOTS = 16  # characters of a padded label


class KerasCRNN(CRNN):
    """The network of a `ModelConfig` with a keras stack; without faults it is the mended network.

    Behind a block the STN is the ancestor's own, for a single image width; in front of the CNN it is that of CRNN.

    Attributes:
        faults: the ones of FAULTS that it has.
    """

    faults: tuple[str, ...] = ()

    def setup(self):
        """The parts: `stn` (where there is one), `block1`, ..., `dense`, `lstm1`, ..., `head`.

        Raises ValueError for an unknown fault.
        """
        if unknown := set(self.faults) - set(FAULTS):
            raise ValueError(f"unknown fault {min(unknown)!r}: expected any of {', '.join(FAULTS)}")
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        table = STACKS[config.cnn]
        if "norm" in self.faults:
            table = ((table[0][0]._replace(norm=False),), *table[1:])
        self.blocks = self._blocks(table)
        if self._stn_at("image"):
            self.stn = self._transformer()
        elif config.stn.kind != "none":
            self.stn = KerasTransformer("sampler" in self.faults, dtype)
        self.dense = nn.Dense(config.lstm_features, dtype=dtype, name="dense")
        self.lstms = [BiLSTM(config.lstm_features, dtype, name=f"lstm{i + 1}") for i in range(config.lstm_layers)]
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Dense(Charset.of(config.charset).num_classes + ("padding" in self.faults), name="head")

    def __call__(self, images: UInt8[Array, "B H W"], *, train: bool = False) -> Float[Array, "B T K"]:
        """Logits of every frame; T is `num_frames(config, W)`, two less with "discard".

        With "padding" and `train` there is an extra last class; in reading it counts as blank (`fold_padding`).
        """
        x = nn.relu(self.dense(self._features(images, train=train)))
        for lstm in self.lstms:
            forward, backward = jnp.split(lstm(x), 2, axis=-1)
            if "backward" in self.faults:
                backward = backward[:, ::-1]
            x = forward + backward
        x = jnp.concatenate([forward, backward], axis=-1)  # the last layer's directions stay apart
        logits = self.head(self.dropout(x, deterministic=not train).astype(jnp.float32))
        if "discard" in self.faults:
            logits = logits[:, DISCARDED:]
        return fold_padding(logits) if "padding" in self.faults and not train else logits

    def _normalise(self, images):
        return images.astype(jnp.float32)[..., None] if "range" in self.faults else super()._normalise(images)

    def _grey(self, x, images):
        if "range" in self.faults:
            return jnp.clip(jnp.round(x[..., 0]), 0, 255).astype(jnp.uint8)
        return super()._grey(x, images)


class KerasTransformer(nn.Module):
    """The ancestor's STN: two convolutions, a hidden layer, theta; the output is as large as the input.

    Attributes:
        faulty: resample with `keras_sample` instead of `crnn_jax.sampler`.
    """

    faulty: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], *, out_size: Pair, train: bool
    ) -> tuple[Float[Array, "B H W C"], Float[Array, "B 6"]]:
        """The input resampled, and theta. Raises ValueError for an `out_size` that is not the input's."""
        size = x.shape[1:3]
        if out_size != size:
            raise ValueError(f"out_size = {out_size}: expected the size of the input, {size}")
        theta = KerasLocalisation(self.dtype, name="localisation")(x)

        def transform(image, theta):
            grid = affine_grid(theta, out_size=size, in_size=size)
            y = keras_sample(image, theta) if self.faulty else bilinear_sample(image, grid)
            return y, diagnose(image, y, grid, theta.reshape(-1), kind="affine")

        y, diagnoses = jax.vmap(transform)(x, theta.reshape(-1, 2, 3))
        sow(self, diagnoses)
        return y, theta


class KerasLocalisation(nn.Module):
    """The ancestor's localisation net: `B H W C` to `B 6`, at full size, without BatchNorm, the identity at first."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B 6"]:
        for i, features in enumerate((16, 32), start=1):
            x = nn.relu(Conv(features, (5, 5), use_bias=True, dtype=self.dtype, name=f"conv{i}")(x))
        x = nn.relu(nn.Dense(64, dtype=self.dtype, name="hidden_layer")(x.reshape(x.shape[0], -1)))
        bias_init = nn.initializers.constant(start_parameters(kind="affine"))
        return nn.Dense(6, kernel_init=nn.initializers.zeros, bias_init=bias_init, name="last")(x.astype(jnp.float32))


def keras_sample(image: Float[Array, "H W C"], theta: Float[Array, "2 3"]) -> Float[Array, "H W C"]:
    """Resamples ONE image by an affine transform as the ancestor does: at the identity the image changes.

    The normalised -1..1 becomes 0..W, although the last pixel is W - 1, and the weights are computed from neighbours
    that are already clipped to the image, so that beyond the last pixel both are that pixel, with weights of sum 0.
    """
    height, width, channels = image.shape
    x, y = jnp.meshgrid(jnp.linspace(-1, 1, width), jnp.linspace(-1, 1, height))
    x, y = jnp.einsum("ij,jhw->ihw", theta, jnp.stack([x, y, jnp.ones_like(x)]), precision="highest")

    def neighbours(places, length):
        places = 0.5 * (places + 1) * length
        low = jnp.floor(places)
        low, high = jnp.clip(low, 0, length - 1), jnp.clip(low + 1, 0, length - 1)
        return (low.astype(jnp.int32), high - places), (high.astype(jnp.int32), places - low)

    pixels = image.reshape(height * width, channels)
    result = jnp.zeros_like(image)
    for row, by_row in neighbours(y, height):
        for column, by_column in neighbours(x, width):
            result += pixels[row * width + column] * (by_row * by_column).astype(image.dtype)[..., None]
    return result


def pad_labels(
    labels: Int[Array, "B N"], lengths: Int[Array, " B"], *, padding: int, slots: int = SLOTS
) -> tuple[Int[Array, "B {slots}"], Int[Array, " B"]]:
    """Labels filled up to `slots` with the class `padding`, and their lengths, which are then all `slots`.

    Raises ValueError for labels with more slots than that; the ancestor leaves such words out.
    """
    if labels.shape[1] > slots:
        raise ValueError(f"labels of {labels.shape[1]} slots do not fit into {slots}")
    labels = jnp.pad(labels, ((0, 0), (0, slots - labels.shape[1])))
    labels = jnp.where(jnp.arange(slots)[None] < lengths[:, None], labels, padding)
    return labels, jnp.full_like(lengths, slots)


def fold_padding(logits: Float[Array, "B T L"]) -> Float[Array, "B T K"]:
    """Folds the last class, padding, into the blank, whose logit becomes the maximum of the two; K = L - 1.

    The ancestor decodes greedily and removes the padding from the text. Greedy decoding of the folded logits reads the
    same: what it merges or drops depends only on the likeliest class of each frame, and padding, like the blank,
    separates two equal characters and is not read. (The sum of their probabilities would win frames that neither wins.)
    """
    blank = jnp.maximum(logits[..., BLANK], logits[..., -1])
    return logits[..., :-1].at[..., BLANK].set(blank)


def build_keras(config: ModelConfig, *, axis_name: str | None = None) -> KerasCRNN:
    """The mended network of a config, for `crnn_jax.model.build`. Raises ConfigError for an STN it cannot have."""
    stn = config.stn
    if stn.kind != "none" and stn.placement != "image":
        if config.fit == "pad" and config.max_width != config.width:
            raise ConfigError(
                f"model.max_width = {config.max_width}: an STN after a block of a keras stack takes a single width: "
                f"expected model.width = {config.width}"
            )
        if stn.kind != "affine":
            raise ConfigError(f"model.stn.kind = {stn.kind!r}: after a block of a keras stack it must be affine")
        if others := differences(replace(StnConfig(), kind=stn.kind, placement=stn.placement), stn):
            raise ConfigError(f"{min(others)}: an STN after a block of a keras stack lacks this setting")
    return KerasCRNN(config, axis_name)
