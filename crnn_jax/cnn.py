"""The CNN: the tables of `crnn_jax.stacks` as layers, and the sizes of their outputs."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from crnn_jax.conv import Conv, Pair, max_pool, out_length
from crnn_jax.stacks import Block, ConvLayer, KerasLayer, PatchLayer, PoolLayer, ResidualLayer


def layer_size(layer, size: Pair) -> Pair:
    """The output (height, width) in pixels of a layer for an input of `size`."""
    match layer:
        case ConvLayer(_, kernel, strides, padding):
            window, padding = kernel, padding or (kernel[0] // 2, kernel[1] // 2)
        case PoolLayer(window, strides, padding):
            pass
        case ResidualLayer() | KerasLayer():
            return size
        case PatchLayer():
            window, strides, padding = (2, 2), (2, 2), (0, 0)
    return tuple(out_length(*axis) for axis in zip(size, window, strides, padding, strict=True))


def stack_size(blocks: tuple[Block, ...], size: Pair) -> Pair:
    """The (height, width) of a stack's features for an image of `size` pixels; the width is the number of frames.

    (0, 0) for an image that is too small.
    """
    for block in blocks:
        for layer in block:
            if min(size) < 1:
                return (0, 0)
            size = layer_size(layer, size)
    return size


class CnnBlock(nn.Module):
    """The layers of one block, `B H W C -> B h w C'`."""

    layers: Block
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None  # BatchNorm's statistics are shared over this mapped axis

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        def norm(x, scale=nn.initializers.ones, epsilon=1e-5):
            # Flax computes the statistics in float32 for bfloat16 activations, too.
            options = {"momentum": 0.99, "dtype": self.dtype, "axis_name": self.axis_name, "scale_init": scale}
            return nn.BatchNorm(not train, epsilon=epsilon, **options)(x)

        for layer in self.layers:
            match layer:
                case ConvLayer(features, kernel, strides, padding, has_norm):
                    x = Conv(features, kernel, strides, padding, use_bias=not has_norm, dtype=self.dtype)(x)
                    x = nn.relu(norm(x) if has_norm else x)
                case ResidualLayer(features):
                    y = nn.relu(norm(Conv(features, dtype=self.dtype)(x)))
                    y = norm(Conv(features, dtype=self.dtype)(y), nn.initializers.zeros)
                    if x.shape[-1] != features:
                        x = norm(Conv(features, (1, 1), dtype=self.dtype)(x))
                    x = nn.relu(x + y)
                case KerasLayer(features, has_norm):
                    x = nn.relu(Conv(features, use_bias=True, dtype=self.dtype)(x))
                    x = norm(x, epsilon=1e-3) if has_norm else x
                case PoolLayer(window, strides, padding):
                    x = max_pool(x, window, strides, padding=padding)
                case PatchLayer():
                    b, h, w, c = x.shape
                    x = x[:, : h - h % 2, : w - w % 2]  # the last pixel of an odd length is left out
                    x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
                    x = x.reshape(b, h // 2, w // 2, 4 * c)
        return x
