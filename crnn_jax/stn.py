"""The spatial transformer (Jaderberg et al. 2015): a localisation net predicts a grid to resample the input on.

Its parameters are normalised coordinates (see `crnn_jax.sampler`), one row per example:
affine, P = 6: theta, two rows of three; tps, P = 2 F: the fiducial points (x, y), upper edge first, in the input.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from crnn_jax.cnn import CnnBlock
from crnn_jax.config import StnConfig
from crnn_jax.sampler import Pair, affine_grid, bilinear_sample, identity_fiducials, tps_grid
from crnn_jax.stacks import ConvLayer, PoolLayer

STILL = 1e-3  # added to standard deviations, a tenth of a grey level, so that a uniform image keeps all of its contrast
# Beyond these a transformer has collapsed. The mean deviation of networks that have learnt to turn words by up to 45
# degrees is below 0.3; of most of those whose transformer ran away it was above 1 (experiments/studies/stn.md).
LEAST_CONTRAST, MOST_OUTSIDE, MOST_MOVED = 0.2, 0.5, 1.0


def parameter_grid(
    parameters: Float[Array, " P"], *, kind: str, out_size: Pair, in_size: Pair
) -> Float[Array, "h w 2"]:
    """The sampling grid, in pixels of the input, that the parameters of ONE example describe."""
    if kind == "affine":
        return affine_grid(parameters.reshape(2, 3), out_size=out_size, in_size=in_size)
    return tps_grid(parameters.reshape(-1, 2), out_size=out_size, in_size=in_size)


def start_parameters(
    *, kind: str, start: str = "identity", disturbance: float = 0.0, fiducials: int = 20
) -> np.ndarray:
    """The parameters (`P`, float32) that a localisation net starts from.

    "identity" returns the input as it is. "disturbed" is a slope: x stays, y becomes (1 - d) y - d x with
    d = `disturbance`, the same for both kinds and within the image. At d = 0.5 it is the start of RARE (Shi et al.
    2016, fig. 6a) as in DTRB. ASTER's author reports that a slight disturbance trains where the identity does not.

    Raises ValueError for an unknown kind or start.
    """
    if kind not in ("affine", "tps") or start not in ("identity", "disturbed"):
        raise ValueError(f"kind = {kind!r}, start = {start!r}: expected affine or tps, and identity or disturbed")
    d = disturbance if start == "disturbed" else 0.0
    theta = np.array([[1, 0, 0], [-d, 1 - d, 0]], np.float32)
    if kind == "affine":
        return theta.reshape(-1)
    return (identity_fiducials(fiducials) @ theta[:, :2].T).reshape(-1)


class Diagnosis(NamedTuple):
    """What a transformer does to one example, or to several on average, as numbers for logs."""

    deviation: float | Array  # of its parameters from the identity, see `deviation`
    outside: float | Array  # 0..1, see `outside_share`
    contrast: float | Array  # 1 if all of it is kept, see `kept_contrast`


def collapse(diagnosis: Diagnosis, *, bypass: float = 0.0) -> str | None:
    """Why a transformer with this mean diagnosis has collapsed, in words; None if it has not.

    A collapsed one shows the network next to nothing: a uniform image, or mostly what lies outside the input; or it has
    run away, half an image's width from the identity.

    Args:
        diagnosis: the mean over many examples.
        bypass: the share, 0..1, of these examples that the identity was applied to; they are taken out of the mean.
    """
    transformed = 1 - bypass
    if transformed <= 0:
        return None
    moved, outside = diagnosis.deviation / transformed, diagnosis.outside / transformed
    contrast = (diagnosis.contrast - bypass) / transformed
    reasons = []
    if contrast < LEAST_CONTRAST:
        reasons.append(f"only {100 * max(contrast, 0):.0f} % of its input's contrast is left")
    if outside > MOST_OUTSIDE:
        reasons.append(f"{100 * min(outside, 1):.0f} % of its samples lie outside the input")
    if moved > MOST_MOVED:
        reasons.append(f"its edges have moved by {moved:.1f} (the image is 2 wide)")
    return ", and ".join(reasons) or None


def edge_points(parameters: Float[Array, " P"], *, kind: str, corners: int = 20) -> Float[Array, "F 2"]:
    """Where ONE example's parameters place the output's upper and lower edges in the input, normalised.

    The fiducial points themselves (tps), or `corners` such points mapped by theta (affine): upper edge first.
    """
    if kind == "affine":
        theta = parameters.reshape(2, 3)
        return identity_fiducials(corners) @ theta[:, :2].T + theta[None, :, 2]
    return parameters.reshape(-1, 2)


def deviation(parameters: Float[Array, " P"], *, kind: str) -> Float[Array, ""]:
    """How far from the identity ONE example's parameters are, for logs: 0 at the identity, the image being 2 wide.

    The root mean square, in normalised coordinates, of how far the points along the upper and lower edges are moved.
    """
    moved = edge_points(parameters, kind=kind)
    return jnp.sqrt(jnp.mean(jnp.sum((moved - identity_fiducials(len(moved))) ** 2, axis=-1)))


def spread(parameters: Float[Array, "B P"], *, kind: str) -> Float[Array, ""]:
    """How differently B examples are transformed: 0 if all are transformed in the same way, whatever that is.

    The root mean square distance, in normalised coordinates, of the points along the upper and lower edges from their
    means over the examples. It is 0 once a localisation net has died.
    """
    points = jax.vmap(lambda row: edge_points(row, kind=kind))(parameters)
    return jnp.sqrt(jnp.mean(jnp.sum((points - points.mean(0, keepdims=True)) ** 2, axis=-1)))


def outside_share(xy: Float[Array, "*grid 2"], *, size: Pair) -> Float[Array, ""]:
    """The share, 0..1, of points, in pixels, outside the pixels' area of an image of `size` (H, W), for logs."""
    height, width = size
    x, y = xy[..., 0], xy[..., 1]
    return jnp.mean((x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5))


def kept_contrast(x: Float[Array, "H W C"], y: Float[Array, "h w C"]) -> Float[Array, ""]:
    """How much of the contrast of ONE input `x` is left in the output `y`, for logs: about 0 if that is uniform.

    The ratio of their standard deviations over the pixels, as root mean squares over the channels.
    """
    before, after = (jnp.sqrt(jnp.var(z.astype(jnp.float32), axis=(0, 1)).mean()) for z in (x, y))
    return (after + STILL) / (before + STILL)


def diagnose(
    x: Float[Array, "H W C"],
    y: Float[Array, "h w C"],
    xy: Float[Array, "h w 2"],
    parameters: Float[Array, " P"],
    *,
    kind: str,
) -> Diagnosis:
    """The diagnosis of ONE example: `y` was sampled from `x` at the points `xy`, in pixels, given by its parameters."""
    moved, beyond = deviation(parameters, kind=kind), outside_share(xy, size=x.shape[:2])
    return Diagnosis(moved, beyond, kept_contrast(x, y))


def sow(module: nn.Module, diagnoses: Diagnosis) -> None:
    """Stores the numbers of each example in the collection `diagnostics`, if the module's caller asks for that."""
    if not module.is_initializing():
        for name, values in diagnoses._asdict().items():
            module.sow("diagnostics", f"stn_{name}", values, init_fn=lambda: 0.0, reduce_fn=lambda _, new: new)


class Localisation(nn.Module):
    """The localisation net: `B H W C` to `B P` parameters, from a small copy of its input.

    Convolutions and a hidden layer with BatchNorm, pooling, and a last layer whose weights start at zero and whose bias
    starts at `start`, so that training begins from `start` for every input. The gradient therefore reaches the last
    layer at the first step and the others from the second on.

    Attributes:
        start: the parameters to start from, and how many.
        centre: the identity's parameters, from which `bound` is measured.
        features: channels of the convolutions, which have pools between them.
        size: (height, width) in pixels of the copy.
        hidden: features of the hidden layer.
        gain: a factor on the hidden features, which slows down the last layer (ASTER). A sweep may vmap over it as the
            variable `gain` of the collection `settings`.
        bound: the largest deviation of a parameter from `centre`, through tanh; 0: unbounded.
    """

    start: tuple[float, ...]
    centre: tuple[float, ...]
    features: tuple[int, ...]
    size: Pair
    hidden: int
    gain: float
    bound: float
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B P"]:
        x = jax.image.resize(x, (x.shape[0], *self.size, x.shape[3]), "linear")
        layers = [ConvLayer(self.features[0])]
        for features in self.features[1:]:
            layers += [PoolLayer(), ConvLayer(features)]
        x = CnnBlock(tuple(layers), jnp.dtype(self.dtype), self.axis_name, name="convolutions")(x, train=train)
        # Its BatchNorm keeps it alive: without one, its ReLUs die when the last layer learns fast, and then every input
        # gets the same transform.
        x = nn.Dense(self.hidden, use_bias=False, dtype=self.dtype, name="hidden_layer")(x.reshape(x.shape[0], -1))
        norm = nn.BatchNorm(not train, momentum=0.99, dtype=self.dtype, axis_name=self.axis_name, name="hidden_norm")
        x = nn.relu(norm(x))

        start, centre = np.array(self.start, np.float32), np.array(self.centre, np.float32)
        if self.bound:
            start = centre + self.bound * np.arctanh((start - centre) / self.bound)
        # Coordinates in bfloat16 would be a fifth of a pixel apart at a width of 100: from here on, float32.
        x = self.get_variable("settings", "gain", self.gain) * x.astype(jnp.float32)
        bias_init = nn.initializers.constant(start)
        x = nn.Dense(len(start), kernel_init=nn.initializers.zeros, bias_init=bias_init, name="last")(x)
        if self.bound:
            x = centre[None] + self.bound * jnp.tanh((x - centre[None]) / self.bound)
        return x


class SpatialTransformer(nn.Module):
    """Resamples each image or feature map by its own transform, which a localisation net predicts from it.

    The identity samples an input of the output's size exactly on its pixels, where the bilinear gradient has kinks:
    give it an input larger than `out_size` if possible.

    Attributes:
        config: of the transform and of its localisation net. In training, `bypass` draws from the rng `dropout`; a
            sweep may vmap over it as the variable of that name in the collection `settings`.
        localisation_size: (height, width) of the copy that the localisation net sees.
        localisation_hidden: features of its hidden layer.
    """

    config: StnConfig
    localisation_size: Pair = (16, 32)
    localisation_hidden: int = 128
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def setup(self):
        """Makes the submodule `localisation`. Raises ValueError if its copy is too small for its pools."""
        config = self.config
        if min(self.localisation_size) >> (len(config.features) - 1) < 1:
            layers = len(config.features)
            raise ValueError(f"{layers} layers are too many for an input of {self.localisation_size} pixels")
        of = {"kind": config.kind, "fiducials": config.fiducials}
        start = start_parameters(start=config.start, disturbance=config.disturbance, **of)
        self.localisation = Localisation(
            start=tuple(start.tolist()),
            centre=tuple(start_parameters(**of).tolist()),
            features=config.features,
            size=self.localisation_size,
            hidden=self.localisation_hidden,
            gain=config.feature_gain,
            bound=config.bound,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )

    def __call__(
        self, x: Float[Array, "B H W C"], *, out_size: Pair, train: bool
    ) -> tuple[Float[Array, "B h w C"], Float[Array, "B P"]]:
        """The input resampled to `out_size` (h, w), and the parameters used for it, float32."""
        config, parameters = self.config, self.localisation(x, train=train)
        if train and (config.bypass > 0 or self.has_variable("settings", "bypass")):
            bypass = self.get_variable("settings", "bypass", config.bypass)
            passes = jax.random.bernoulli(self.make_rng("dropout"), bypass, (x.shape[0], 1))
            parameters = jnp.where(passes, jnp.array(self.localisation.centre)[None], parameters)

        def transform(image, parameters):
            grid = parameter_grid(parameters, kind=config.kind, out_size=out_size, in_size=image.shape[:2])
            y = bilinear_sample(image, grid, outside=config.outside)
            return y, diagnose(image, y, grid, parameters, kind=config.kind)

        y, diagnoses = jax.vmap(transform)(x, parameters)
        sow(self, diagnoses)
        return y, parameters
