"""The minimum work of a network: floating-point operations and bytes, counted from the tables of its layers.

An operation is a multiplication, an addition, or a function such as exp. Convolutions count as direct ones, without
the products with padding; Winograd's algorithm takes fewer, so a network may exceed the rate of a matrix product.
Norms, activations and pools are part of their layers and count as nothing. Bytes: every layer reads its input and
weights and writes its output once per pass, as if a cache held all else. The backward pass takes twice the operations
of the forward one: it reads input, weights and the output's gradient, and writes the gradients of input and weights.
"""

from typing import NamedTuple

from crnn_jax.charset import Charset
from crnn_jax.cnn import layer_size
from crnn_jax.config import Config, ModelConfig, StnConfig
from crnn_jax.conv import Pair
from crnn_jax.model import num_frames
from crnn_jax.stacks import STACKS, Block, ConvLayer, PatchLayer, ResidualLayer
from crnn_jax.stn import SpatialTransformer, start_parameters

WORD = 4  # bytes of a float32
# Numbers per parameter that the optimiser also reads and writes.
MOMENTS = {"adamw": 2, "sgd": 1, "adadelta": 2}


class Layer(NamedTuple):
    """What the forward pass of one layer takes for ONE word."""

    flops: int
    inputs: int  # numbers
    outputs: int  # numbers
    weights: int  # numbers, for all words together


class Work(NamedTuple):
    """What a call takes."""

    flops: int
    bytes: int


def forward(layers: list[Layer], *, batch: int, size: int = WORD) -> Work:
    """The forward pass over `batch` words; numbers that pass between the layers have `size` bytes."""
    moved = sum(size * batch * (layer.inputs + layer.outputs) + WORD * layer.weights for layer in layers)
    return Work(batch * sum(layer.flops for layer in layers), moved)


def both_passes(layers: list[Layer], *, batch: int, size: int = WORD) -> Work:
    """The forward and the backward pass over `batch` words."""
    moved = sum(size * batch * (3 * layer.inputs + 2 * layer.outputs) + 3 * WORD * layer.weights for layer in layers)
    return Work(3 * batch * sum(layer.flops for layer in layers), moved)


def train_step(config: Config, *, batch: int) -> Work | None:
    """A training step: both passes, and the optimiser with the average of the parameters. None if `network` is."""
    layers, size = network(config.model), _size(config.model)
    if layers is None:
        return None
    flops, moved = both_passes(layers, batch=batch, size=size)
    # Read: the gradient. Read and written: the parameter, its moments, its average.
    numbers = 1 + 2 * (2 + MOMENTS[config.optimizer.name])
    return Work(flops, moved + WORD * numbers * sum(layer.weights for layer in layers))


def read(config: ModelConfig, *, batch: int) -> Work | None:
    """Reading: the forward pass. None if `network` is."""
    layers = network(config)
    return layers and forward(layers, batch=batch, size=_size(config))


def network(config: ModelConfig) -> list[Layer] | None:
    """The layers of a CRNN; None for the Keras project's, which is built differently."""
    if config.cnn.startswith("keras"):
        return None
    shape = (config.height, config.width, 1)
    layers = []
    for i, block in enumerate(("image", *STACKS[config.cnn])):
        if i:
            added, shape = stack([block], shape)
            layers += added
        if config.stn.kind != "none" and config.stn.placement == (f"block{i}" if i else "image"):
            layers += transformer(config.stn, shape)
    rows, frames, channels = shape
    depth, hidden = rows * channels, config.lstm_features
    for i in range(config.lstm_layers):
        if i:
            layers.append(dense(2 * hidden, hidden, times=frames))
        layers.append(lstm(frames, hidden if i else depth, hidden))
    return [*layers, dense(2 * hidden, classes(config), times=frames)]


def stack(blocks: list[Block], shape: tuple[int, int, int]) -> tuple[list[Layer], tuple[int, int, int]]:
    """The layers of convolution blocks for an input of `shape` (H, W, C), and the shape of what they return."""
    layers, size, channels = [], shape[:2], shape[2]
    for block in blocks:
        for layer in block:
            match layer:
                case ConvLayer(features):
                    layers.append(convolution(layer, size, channels))
                    channels = features
                case ResidualLayer(features):
                    plain, projection = ConvLayer(features), ConvLayer(features, (1, 1))
                    layers += [convolution(plain, size, channels), convolution(plain, size, features)]
                    layers += [convolution(projection, size, channels)] if channels != features else []
                    channels = features
                case PatchLayer():
                    channels *= 4
            size = layer_size(layer, size)
    return layers, (*size, channels)


def convolution(layer: ConvLayer, size: Pair, channels: int) -> Layer:
    """A convolution of an image of `size` (H, W) pixels and `channels` channels."""
    features, kernel, strides, padding, has_norm = layer
    out, padding = layer_size(layer, size), padding or (kernel[0] // 2, kernel[1] // 2)
    pairs = 1  # of a window position and a pixel under it
    for places, length, window, stride, before in zip(out, size, kernel, strides, padding, strict=True):
        pixels = [i * stride + j - before for i in range(places) for j in range(window)]
        pairs *= sum(0 <= pixel < length for pixel in pixels)
    weights = kernel[0] * kernel[1] * channels * features + features * (2 if has_norm else 1)
    return Layer(2 * pairs * channels * features, size[0] * size[1] * channels, out[0] * out[1] * features, weights)


def dense(inputs: int, outputs: int, *, times: int = 1, extra: int | None = None) -> Layer:
    """A matrix product, done `times` times; `extra` weights, by default a bias."""
    extra = outputs if extra is None else extra
    return Layer(2 * times * inputs * outputs, times * inputs, times * outputs, inputs * outputs + extra)


def lstm(frames: int, depth: int, hidden: int) -> Layer:
    """A bidirectional LSTM with one bias per gate: `frames` of `depth` features to as many of 2 `hidden`."""
    weights = 8 * hidden * (depth + hidden)
    return Layer(2 * frames * weights, frames * depth, frames * 2 * hidden, weights + 8 * hidden)


def transformer(config: StnConfig, shape: tuple[int, int, int]) -> list[Layer]:
    """A spatial transformer that returns `shape` (H, W, C): its localisation net, and the sampling."""
    height, width, channels = shape
    size, hidden = SpatialTransformer.localisation_size, SpatialTransformer.localisation_hidden
    layers = []
    for i, features in enumerate(config.features):
        if i:
            size = (size[0] // 2, size[1] // 2)
        added, (*_, channels) = stack([(ConvLayer(features),)], (*size, channels))
        layers += added
    count = len(start_parameters(kind=config.kind, fiducials=config.fiducials))
    layers.append(dense(size[0] * size[1] * channels, hidden, extra=2 * hidden))
    layers.append(dense(hidden, count))
    seen = tuple(round(side * config.oversample) for side in shape[:2]) if config.placement == "image" else shape[:2]
    return [*layers, sampler(config, seen, (height, width), channels=shape[2])]


def sampler(config: StnConfig, seen: Pair, size: Pair, *, channels: int = 1) -> Layer:
    """An image of `seen` pixels resampled to `size`: the grid as a matrix product, three interpolations per value."""
    terms = 3 if config.kind == "affine" else config.fiducials  # of each coordinate
    pixels = size[0] * size[1]
    return Layer(pixels * (4 * terms + 9 * channels), seen[0] * seen[1] * channels, pixels * channels, 0)


def ctc(frames: int, classes: int, slots: int) -> Layer:
    """The CTC loss of ONE word: a log-softmax, four operations per logit, and the recursion over 2 `slots` + 1 states.

    A step of a state adds three probabilities in the log domain and multiplies by the frame's: eight operations.
    """
    return Layer(frames * (4 * classes + 8 * (2 * slots + 1)), frames * classes, 1, 0)


def classes(config: ModelConfig) -> int:
    """The number of classes of the logits."""
    return Charset.of(config.charset).num_classes


def ctc_shape(config: Config) -> tuple[int, int, int]:
    """Frames, classes and label slots of a config."""
    model = config.model
    return num_frames(model, model.width), classes(model), config.data.max_length


def lstm_shape(config: ModelConfig) -> tuple[int, int, int]:
    """Frames, input features, and features per direction of a config's first LSTM."""
    if config.cnn.startswith("keras"):  # a dense layer of as many features precedes it
        return num_frames(config, config.width), config.lstm_features, config.lstm_features
    rows, frames, channels = stack(list(STACKS[config.cnn]), (config.height, config.width, 1))[1]
    return frames, rows * channels, config.lstm_features


def _size(config: ModelConfig) -> int:
    return 2 if config.dtype == "bfloat16" else WORD
