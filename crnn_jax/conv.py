"""Convolution and max pooling, each in the formulation that is fastest on the current backend.

XLA's convolution gradient is slow on the CPU. There a 3x3 convolution uses Winograd's algorithm, and others are one
matrix product over shifted slices side by side; both give the same numbers except for rounding. Elsewhere the library's
convolution is best, except for the first layer's on a GPU: with its one channel a matrix product takes half the time.
The gradient of the library's pool is a slow scatter on CPUs and GPUs. The choice is made here and nowhere else;
`tests/test_conv.py` and `test_winograd.py` compare the results with the library's.
"""

import operator
from functools import partial, reduce
from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from crnn_jax import winograd
from crnn_jax.winograd import winograd_conv

Pair = tuple[int, int]

SHALLOW = 4  # the most channels that an image or its 2x2 patches have
FEW = 8  # images: for fewer, transforming a Winograd kernel costs more than the products that it saves
PREPARED = "prepared"  # the collection of what is computed from the weights once, for many readings


def out_length(length: int, window: int, stride: int, padding: int) -> int:
    """The number of positions of a `window` of pixels over `length` pixels with `padding` on both sides."""
    return (length + 2 * padding - window) // stride + 1


def _shifted_slices(x, window: Pair, strides: Pair, padding: Pair, fill: float):
    """The pixels under each position of the window: a list of window[0] * window[1] arrays `B h w C`."""
    height = out_length(x.shape[1], window[0], strides[0], padding[0])
    width = out_length(x.shape[2], window[1], strides[1], padding[1])
    x = jnp.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)), constant_values=fill)
    rows, columns = strides[0] * (height - 1) + 1, strides[1] * (width - 1) + 1
    return [
        x[:, i : i + rows : strides[0], j : j + columns : strides[1]]
        for i, j in product(range(window[0]), range(window[1]))
    ]


def _patches(x, window: Pair, strides: Pair, padding: Pair):
    """The channels of all pixels under the window side by side, `B h w K`."""
    slices = _shifted_slices(x, window, strides, padding, 0.0)
    return slices[0] if len(slices) == 1 else jnp.concatenate(slices, axis=-1)


def matmul_conv(
    x: Float[Array, "B H W C"], kernel: Float[Array, "kh kw C F"], *, strides: Pair, padding: Pair
) -> Float[Array, "B h w F"]:
    """A convolution as one matrix product over shifted slices."""
    return _patches(x, kernel.shape[:2], strides, padding) @ kernel.reshape(-1, kernel.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def shallow_conv(x: Float[Array, "B H W C"], kernel: Float[Array, "kh kw C F"], strides: Pair, padding: Pair):
    """`matmul_conv` for few channels, `Float[Array, "B h w F"]`, with a fast kernel gradient; differentiable once.

    That gradient is a product of few rows over all pixels. JAX takes the slices side by side, so each row is scattered
    in memory; here the slices are the rows: 2 instead of 15 ms for 32 images of 32x100, 64 features, on one core.
    """
    if kernel.shape[2] > 1 or x.dtype == jnp.bfloat16:
        return matmul_conv(x, kernel, strides=strides, padding=padding)
    # With one channel a product sums so few terms that it is bound by memory. A sum of slices is fused with what
    # follows: with ReLU and pool 0.4 of the time for 16 images of 32x100, 64 features, on one core. (In bfloat16 every
    # partial sum would be rounded.)
    slices = _shifted_slices(x, kernel.shape[:2], strides, padding, 0.0)
    features = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
    return reduce(operator.add, (part * of_pixel for part, of_pixel in zip(slices, features, strict=True)))


def _shallow_forward(x, kernel, strides, padding):
    return shallow_conv(x, kernel, strides, padding), (x, kernel)


def _shallow_backward(strides, padding, residuals, dy):
    x, kernel = residuals
    slices = _shifted_slices(x, kernel.shape[:2], strides, padding, 0.0)
    rows = jnp.stack([part.transpose(3, 0, 1, 2).reshape(kernel.shape[2], -1) for part in slices])
    d_kernel = rows.reshape(-1, rows.shape[-1]) @ dy.reshape(-1, dy.shape[-1])
    _, of_image = jax.vjp(lambda x: matmul_conv(x, kernel, strides=strides, padding=padding), x)
    return *of_image(dy), d_kernel.reshape(kernel.shape)


shallow_conv.defvjp(_shallow_forward, _shallow_backward)


def library_conv(
    x: Float[Array, "B H W C"], kernel: Float[Array, "kh kw C F"], *, strides: Pair, padding: Pair
) -> Float[Array, "B h w F"]:
    """The same convolution by XLA's own operator."""
    return jax.lax.conv_general_dilated(
        x, kernel, strides, [(p, p) for p in padding], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def convolve(
    x: Float[Array, "B H W C"], kernel: Float[Array, "kh kw C F"], *, strides: Pair, padding: Pair
) -> Float[Array, "B h w F"]:
    """The convolution by whichever formulation is fastest for these shapes on the current backend."""
    options, backend = {"strides": strides, "padding": padding}, jax.default_backend()
    if backend == "gpu" and kernel.shape[2] == 1:
        return matmul_conv(x, kernel, **options)
    if backend != "cpu":
        return library_conv(x, kernel, **options)
    if pays_by_winograd(kernel, **options) and x.shape[0] >= FEW:
        return winograd_conv(x, kernel)
    if kernel.shape[2] <= SHALLOW:
        return shallow_conv(x, kernel, strides, padding)
    return matmul_conv(x, kernel, **options)


def pays_by_winograd(kernel: Float[Array, "kh kw C F"], *, strides: Pair, padding: Pair) -> bool:
    """Whether Winograd's algorithm is best for this convolution, once its kernel is transformed.

    With fewer channels, transforming the images costs more than the products that it saves; in bfloat16 the sums of the
    transforms would lose what precision there is.
    """
    is_plain = kernel.shape[:2] == (3, 3) and strides == (1, 1) and padding == (1, 1)
    has_channels = min(kernel.shape[2:]) >= 16 and kernel.dtype != jnp.bfloat16
    return jax.default_backend() == "cpu" and is_plain and has_channels


def prepare_kernel(kernel: Float[Array, "kh kw C F"], *, strides: Pair, padding: Pair) -> dict:
    """What can be computed from a kernel beforehand for any images: on a CPU, for more than a few channels.

    It is transformed for Winograd's algorithm, or else transposed: a matrix on the right of a product is copied into
    another order, all of it, at every call; one on the left is not. One word then takes 0.6 to 0.75 of the time (a 2x2
    kernel of 512 channels), many words as long as before.
    """
    if pays_by_winograd(kernel, strides=strides, padding=padding):
        return winograd.prepare_kernel(kernel)
    if jax.default_backend() == "cpu" and kernel.shape[2] > SHALLOW:
        return {"turned": kernel.reshape(-1, kernel.shape[-1]).T}
    return {}


def convolve_prepared(
    x: Float[Array, "B H W C"], prepared: dict, *, window: Pair, strides: Pair, padding: Pair
) -> Float[Array, "B h w F"]:
    """The convolution with a kernel that `prepare_kernel` has prepared for the same strides and padding."""
    if "turned" in prepared:
        return jnp.einsum("fk,bhwk->bhwf", prepared["turned"], _patches(x, window, strides, padding))
    return winograd.convolve_prepared(x, prepared)


def max_pool(x: Float[Array, "B H W C"], window: Pair, strides: Pair, *, padding: Pair = (0, 0)):
    """The maximum over windows, `Float[Array, "B h w C"]`; padding is never the maximum.

    On a CPU or GPU a NaN may be passed over, where the library's pool returns NaN.
    """
    if jax.default_backend() not in ("cpu", "gpu"):
        return nn.max_pool(x, window, strides, [(p, p) for p in padding])
    # Here the gradient of the library's reduce_window is a slow scatter; that of a chain of maxima is not: on an H200
    # 0.14 instead of 0.49 ms for 512 images of 8x25, 256 features, forward and backward.
    slices = _shifted_slices(x, window, strides, padding, -jnp.inf)
    result = slices[0]
    for other in slices[1:]:
        # Not jnp.maximum: its gradient tests whether the input equals the maximum, which XLA may recompute with
        # different rounding, so that the gradient is lost.
        result = jnp.where(result >= other, result, other)
    return result


class Conv(nn.Module):
    """A convolution `B H W C -> B h w F`, by default without bias and padded by half the kernel (SAME, if it is odd).

    Applied with the collection PREPARED mutable, it stores there what can be computed from the kernel beforehand;
    applied with that collection, it uses it, for any number of images.
    """

    features: int
    kernel: Pair = (3, 3)
    strides: Pair = (1, 1)
    padding: Pair | None = None  # pixels on both sides; None: half the kernel
    use_bias: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w {self.features}"]:
        # Flax only compares an existing kernel's shape with that of init, which it traces at every apply.
        is_there = self.has_variable("params", "kernel")
        init = nn.initializers.zeros if is_there else nn.initializers.he_normal()
        kernel = self.param("kernel", init, (*self.kernel, x.shape[-1], self.features), jnp.float32)
        options = {"strides": self.strides, "padding": self.padding or (self.kernel[0] // 2, self.kernel[1] // 2)}
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        is_preparing = self.is_mutable_collection(PREPARED) and not self.is_initializing()
        if is_preparing and (prepared := prepare_kernel(kernel, **options)):
            self.put_variable(PREPARED, "kernel", prepared)
        if is_preparing or self.is_initializing():
            # Only the shapes of the features are needed, and the formulations below take long to trace.
            y = library_conv(x, kernel, **options)
        elif self.has_variable(PREPARED, "kernel"):
            y = convolve_prepared(x, self.get_variable(PREPARED, "kernel"), window=self.kernel, **options)
        else:
            y = convolve(x, kernel, **options)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)[None, None, None]
        return y
