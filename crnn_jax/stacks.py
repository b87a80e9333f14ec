"""The convolution stacks, as tables: `vgg` (the CRNN paper), `resnet`, `small`, `compact` and `tiny` for CPUs, `keras`.

A stack turns an image of 32 rows into one row of features (`keras` into 8): `B 32 W C -> B h T D`, T about W / 4. Each
table is a tuple of blocks, each block a tuple of layers, so that a spatial transformer can be placed after a block by
its number. To add a CNN, add a table to `STACKS`: its keys are the values of `model.cnn`; `crnn_jax.cnn` builds it.
"""

from typing import NamedTuple

Pair = tuple[int, int]  # rows and columns


class ConvLayer(NamedTuple):
    """Convolution, BatchNorm if `norm`, ReLU; `padding=None` is half the kernel."""

    features: int
    kernel: Pair = (3, 3)
    strides: Pair = (1, 1)
    padding: Pair | None = None
    norm: bool = True


class ResidualLayer(NamedTuple):
    """Two 3x3 convolutions with BatchNorm around an identity, projected where the channels change (He et al. 2016).

    The last norm's scale starts at zero, so the layer starts as the identity (Goyal et al. 2017, section 5.1).
    """

    features: int


class KerasLayer(NamedTuple):
    """3x3 convolution with a bias, ReLU and, if `norm`, BatchNorm after it, as with an activation in Keras' layer."""

    features: int
    norm: bool = False


class PoolLayer(NamedTuple):
    """Max pooling."""

    window: Pair = (2, 2)
    strides: Pair = (2, 2)
    padding: Pair = (0, 0)


class PatchLayer(NamedTuple):
    """Each 2x2 square of pixels becomes one pixel with four times the channels: cheap downsampling for CPUs."""


Block = tuple[ConvLayer | ResidualLayer | KerasLayer | PoolLayer | PatchLayer, ...]

# Shi et al. 2015, table 1, read from the bottom. The pools of 1x2 windows there are 2x2 with stride (2, 1) and one
# column of padding in the authors' code, which gives 26 frames at 32x100; BatchNorm where their code has it.
VGG: tuple[Block, ...] = (
    (ConvLayer(64, norm=False), PoolLayer()),
    (ConvLayer(128, norm=False), PoolLayer()),
    (ConvLayer(256), ConvLayer(256, norm=False), PoolLayer((2, 2), (2, 1), (0, 1))),
    (ConvLayer(512), ConvLayer(512, norm=False), PoolLayer((2, 2), (2, 1), (0, 1))),
    (ConvLayer(512, (2, 2), padding=(0, 0)),),
)

RESNET: tuple[Block, ...] = (
    (ConvLayer(48), ConvLayer(64), PoolLayer()),
    (ResidualLayer(128), ResidualLayer(128), PoolLayer()),
    (ResidualLayer(224), ResidualLayer(224), ResidualLayer(224), PoolLayer((2, 1), (2, 1))),
    (ResidualLayer(320), ResidualLayer(320), ResidualLayer(320), PoolLayer((2, 1), (2, 1))),
    (ConvLayer(384, (2, 3), padding=(0, 1)),),
)

# Half of the work of a small network is in its first layer if that sees every pixel: this one never does. It is the
# network of `quickstart`, and was the bundled `tiny` before COMPACT.
TINY: tuple[Block, ...] = (
    (PatchLayer(), ConvLayer(32), PoolLayer()),
    (ConvLayer(96), PoolLayer((2, 1), (2, 1))),
    (ConvLayer(144), PoolLayer((2, 1), (2, 1))),
    (ConvLayer(192, (2, 3), padding=(0, 1)),),
)

# TINY with residual layers, which start as the identity: it can start from TINY's weights. The bundled `small`.
SMALL: tuple[Block, ...] = (
    (PatchLayer(), ConvLayer(32), ResidualLayer(32), PoolLayer()),
    (ConvLayer(96), ResidualLayer(96), PoolLayer((2, 1), (2, 1))),
    (ConvLayer(144), ResidualLayer(144), PoolLayer((2, 1), (2, 1))),
    (ConvLayer(192, (2, 3), padding=(0, 1)),),
)

# Halfway between the two: residual layers where the images are still wide. The bundled `tiny`.
COMPACT: tuple[Block, ...] = (*SMALL[:2], *TINY[2:])

# CRNN-with-STN, a project in Keras (`crnn_jax.ancestor`): one block per convolution, conv_1 to conv_7; its images of
# 31 rows give seven rows of features.
KERAS: tuple[Block, ...] = (
    (KerasLayer(64, norm=True),),
    (KerasLayer(128),),
    (KerasLayer(256, norm=True), PoolLayer()),
    (KerasLayer(256),),
    (KerasLayer(512, norm=True), PoolLayer()),
    (KerasLayer(512),),
    (KerasLayer(512, norm=True),),
)

# An eighth of its channels, for studies on a CPU: a 64th of its 13 G multiplications per image.
KERAS_NARROW: tuple[Block, ...] = tuple(
    (block[0]._replace(features=block[0].features // 8), *block[1:]) for block in KERAS
)

STACKS = {
    "vgg": VGG,
    "resnet": RESNET,
    "small": SMALL,
    "compact": COMPACT,
    "tiny": TINY,
    "keras": KERAS,
    "keras_narrow": KERAS_NARROW,
}
