"""CRNN = [STN] -> CNN -> bidirectional LSTM -> logits (Shi et al. 2015, section 2; with an STN: Shi et al. 2016)."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import FlaxError
from jaxtyping import Array, Float, UInt8

from crnn_jax.charset import Charset
from crnn_jax.cnn import CnnBlock, stack_size
from crnn_jax.config import ConfigError, ModelConfig
from crnn_jax.conv import PREPARED
from crnn_jax.lstm import BiLSTM
from crnn_jax.stacks import STACKS
from crnn_jax.stn import SpatialTransformer
from crnn_jax.winograd import chunks

CHUNK = 16  # images at a time through the CNN when reading on a CPU
FLAT = 0.03  # added to an image's standard deviation, about 4 grey levels: keeps noise on a plain background small


class CRNN(nn.Module):
    """The network of a `ModelConfig`, from images to float32 logits.

    Images are uint8 as loaded, or floats from 0 to 255 where gradients are needed. `axis_name` names the mapped axis of
    devices over which BatchNorm shares its statistics in training.
    """

    config: ModelConfig
    axis_name: str | None = None

    def setup(self):
        """The parts: `stn` (where there is one), `block1`, `block2`, ..., `lstm1`, ..., `head`."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.blocks = self._blocks(STACKS[config.cnn])
        if config.stn.kind != "none":
            self.stn = self._transformer()
        self.lstms = [BiLSTM(config.lstm_features, dtype, name=f"lstm{i + 1}") for i in range(config.lstm_layers)]
        # Between two layers both directions are projected to one layer's features, as in the authors' code.
        self.bridges = [
            nn.Dense(config.lstm_features, dtype=dtype, name=f"bridge{i + 1}") for i in range(config.lstm_layers - 1)
        ]
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Dense(Charset.of(config.charset).num_classes, name="head")

    def __call__(self, images: UInt8[Array, "B H W"], *, train: bool = False) -> Float[Array, "B T K"]:
        """Logits of every frame; T is `num_frames(config, W)`. With `train` batch statistics are updated."""
        x = self._features(images, train=train)
        for i, lstm in enumerate(self.lstms):
            x = lstm(self.bridges[i - 1](x) if i else x)
        return self.head(self.dropout(x, deterministic=not train).astype(jnp.float32))

    def rectify(self, images: UInt8[Array, "B H W"], *, train: bool = False):
        """The normalised images resampled by the STN in front of the CNN, `[B, h, w, 1]`, and its parameters, `[B, P]`.

        Raises ValueError for a model without an STN on the image.
        """
        if not self._stn_at("image"):
            raise ValueError("this model has no spatial transformer in front of its CNN")
        return self._rectify(images, train=train)

    def transform(self, images: UInt8[Array, "B H W"]) -> tuple[UInt8[Array, "B H W"] | None, Float[Array, "B P"]]:
        """The images resampled by the STN, in grey levels (None for an STN on features), and its parameters.

        With `mutable=["diagnostics"]` the STN's numbers for each image are also returned (`stn.Diagnosis`). Raises
        ValueError for a model without an STN.
        """
        if self._stn_at("image"):
            x, parameters = self._rectify(images, train=False)
            return self._grey(x, images), parameters
        x = self._normalise(images)
        for i, block in enumerate(self.blocks, start=1):
            x = block(x, train=False)
            if self._stn_at(f"block{i}"):
                return None, self.stn(x, out_size=x.shape[1:3], train=False)[1]
        raise ValueError("this model has no spatial transformer")

    def _blocks(self, table):
        dtype = jnp.dtype(self.config.dtype)
        return [CnnBlock(layers, dtype, self.axis_name, name=f"block{i}") for i, layers in enumerate(table, start=1)]

    def _transformer(self):
        return SpatialTransformer(self.config.stn, dtype=jnp.dtype(self.config.dtype), axis_name=self.axis_name)

    def _features(self, images, *, train: bool):
        """The input of the recurrent layers, `B T D`: the rows of a frame side by side."""
        x = self._rectify(images, train=train)[0] if self._stn_at("image") else self._normalise(images)
        if self._reads_in_chunks(x, train=train):
            _, parts = nn.scan(
                lambda model, _, part: (None, model._stack(part, train=False)),
                variable_broadcast=["params", "batch_stats", PREPARED],
            )(self, None, chunks(x, CHUNK))
            x = parts.reshape(-1, *parts.shape[2:])
        else:
            x = self._stack(x, train=train)
        batch, rows, frames, features = x.shape
        assert frames == num_frames(self.config, images.shape[2]), "num_frames and the stack disagree"
        return x.transpose(0, 2, 1, 3).reshape(batch, frames, rows * features)

    def _stack(self, x, *, train: bool):
        """Applies the blocks, and the STN between them if it is placed there."""
        for i, block in enumerate(self.blocks, start=1):
            x = block(x, train=train)
            if self._stn_at(f"block{i}"):
                x, _ = self.stn(x, out_size=x.shape[1:3], train=train)
        return x

    def _reads_in_chunks(self, x, *, train: bool) -> bool:
        """Whether a few images at a time go through all blocks, so that on a CPU their features stay in its cache.

        Not in training, where BatchNorm sees the whole batch, nor with an STN between blocks, whose diagnostics cover
        the batch, nor when the caller asks for the intermediate features.
        """
        if jax.default_backend() != "cpu" or train or self.is_initializing() or len(chunks(x, CHUNK)) <= 1:
            return False
        has_stn_behind_a_block = self.config.stn.kind != "none" and not self._stn_at("image")
        return not has_stn_behind_a_block and not self.is_mutable_collection("intermediates")

    def _stn_at(self, placement: str) -> bool:
        return self.config.stn.kind != "none" and self.config.stn.placement == placement

    def _normalise(self, images):
        if images.ndim != 3:
            raise ValueError(f"images have shape {list(images.shape)}: expected grey images, [B, H, W]")
        x = images.astype(jnp.float32) / 127.5 - 1.0
        if self.config.normalise == "contrast":
            x = x - x.mean((1, 2), keepdims=True)
            x = x / (x.std((1, 2), keepdims=True) + FLAT)
        return x[..., None]

    def _grey(self, x, images):
        """The reverse of `_normalise(images)`, for `x` made from its result."""
        x = x[..., 0].astype(jnp.float32)
        if self.config.normalise == "contrast":
            given = images.astype(jnp.float32) / 127.5 - 1.0
            x = x * (given.std((1, 2), keepdims=True) + FLAT) + given.mean((1, 2), keepdims=True)
        return jnp.clip(jnp.round(127.5 * (x + 1)), 0, 255).astype(jnp.uint8)

    def _rectify(self, images, *, train: bool):
        # An identity grid of the input's own size samples exactly on its pixels, where the bilinear gradient has kinks:
        # the transformer reads an enlarged image instead (see `SpatialTransformer`).
        height, width = images.shape[1:]
        x, factor = self._normalise(images), self.config.stn.oversample
        if factor > 1:
            size = (round(height * factor), round(width * factor))
            x = jax.image.resize(x, (x.shape[0], *size, 1), "linear")
        return self.stn(x, out_size=(height, width), train=train)


def build(config: ModelConfig, *, axis_name: str | None = None) -> CRNN:
    """The network of a config; for a keras stack that of `crnn_jax.ancestor`. `axis_name` is for pmap only.

    Raises ConfigError for settings that the stack does not support.
    """
    blocks, placement = STACKS[config.cnn], config.stn.placement
    if min(stack_size(blocks, (config.height, config.width))) < 1:
        size = f"model.height = {config.height} and model.width = {config.width}"
        raise ConfigError(f"{size} leave no features after the {config.cnn} stack: expected about 32 x 100")
    if config.stn.kind != "none" and placement not in ("image", *(f"block{i + 1}" for i in range(len(blocks)))):
        raise ConfigError(f"model.stn.placement = {placement!r}: the {config.cnn} stack has {len(blocks)} blocks")
    if config.cnn.startswith("keras"):
        from crnn_jax.ancestor import build_keras  # not at the top: that module imports this one

        return build_keras(config, axis_name=axis_name)
    return CRNN(config, axis_name)


@partial(jax.jit, static_argnames="model")
def prepare(variables: dict, *, model: nn.Module) -> dict:
    """What can be computed from the variables beforehand, for repeated `model.apply` without `train`.

    A collection `prepared`, to be added to them: on a CPU the prepared kernels (`crnn_jax.conv`), elsewhere none.
    """
    image = jnp.zeros((1, model.config.height, model.config.width), jnp.uint8)
    return model.apply(variables, image, mutable=[PREPARED])[1]


def check_variables(model: nn.Module, variables: dict) -> None:
    """Raises ValueError if `variables` are not the network's: of another shape, missing, or unused.

    Its trace of `prepare` is reused by `prepare` itself: half a second less until a large model reads.
    """
    try:
        traced = prepare.trace(variables, model=model).jaxpr.jaxpr
    except (FlaxError, TypeError, ValueError) as error:
        raise ValueError(" ".join(str(error).split(" (https://")[0].split())) from error
    used = {id(variable) for equation in traced.eqns for variable in equation.invars}
    leaves = jax.tree.leaves_with_path(variables)
    for (path, _), variable in zip(leaves, traced.invars, strict=True):
        if id(variable) not in used:
            raise ValueError(f"nothing in the network uses {jax.tree_util.keystr(path, simple=True, separator='/')}")


def num_frames(config: ModelConfig, width: int) -> int:
    """The number of frames T in the logits of an image `width` pixels wide."""
    return stack_size(STACKS[config.cnn], (config.height, width))[1]


def count_parameters(variables) -> int:
    """The number of trained parameters in a model's variables."""
    return sum(x.size for x in jax.tree.leaves(variables["params"]))
