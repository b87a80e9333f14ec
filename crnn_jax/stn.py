"""The spatial transformer (Jaderberg et al. 2015): a localisation net looks, a grid is laid, the input is resampled.

Its parameters are normalised coordinates (see `crnn_jax.sampler`), one row an example:
affine, P = 6: theta, two rows of three; tps, P = 2 F: the fiducial points (x, y), upper edge first, in the input.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from crnn_jax.cnn import CnnBlock, ConvLayer, PoolLayer
from crnn_jax.sampler import Pair, affine_grid, bilinear_sample, identity_fiducials, tps_grid


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
    2016, fig. 6a) as DTRB has it. ASTER's author reports that a slight disturbance trains where the identity does not.

    Raises ValueError for an unknown kind or start.
    """
    if kind not in ("affine", "tps") or start not in ("identity", "disturbed"):
        raise ValueError(f"kind is affine or tps, start is identity or disturbed; not {kind!r} and {start!r}")
    d = disturbance if start == "disturbed" else 0.0
    theta = np.array([[1, 0, 0], [-d, 1 - d, 0]], np.float32)
    if kind == "affine":
        return theta.reshape(-1)
    return (identity_fiducials(fiducials) @ theta[:, :2].T).reshape(-1)


def deviation(parameters: Float[Array, " P"], *, kind: str) -> Float[Array, ""]:
    """How far from the identity ONE example's parameters are, for logs: 0 at the identity, the image being 2 wide.

    The root mean square, in normalised coordinates, of how far the points along the upper and lower edges are moved:
    the fiducial points themselves (tps), or 20 of them sent through theta (affine).
    """
    if kind == "affine":
        theta, points = parameters.reshape(2, 3), identity_fiducials(20)
        moved = points @ theta[:, :2].T + theta[None, :, 2]
    else:
        moved = parameters.reshape(-1, 2)
        points = identity_fiducials(len(moved))
    return jnp.sqrt(jnp.mean(jnp.sum((moved - points) ** 2, axis=-1)))


def outside_share(xy: Float[Array, "*grid 2"], *, size: Pair) -> Float[Array, ""]:
    """The share, 0..1, of points in pixels that lie beyond the pixels' area of an image of `size` (H, W), for logs."""
    height, width = size
    x, y = xy[..., 0], xy[..., 1]
    return jnp.mean((x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5))


class Localisation(nn.Module):
    """The localisation net: `B H W C` to `B P` parameters, through a small copy of its input.

    Convolutions with BatchNorm and pooling, a hidden layer, and a last layer whose weights start at zero and whose bias
    starts at `start`, so that training begins from `start` for every input. The gradient therefore reaches the last
    layer at the first step and the others from the second on.

    Attributes:
        start: the parameters to start from, and how many.
        centre: the identity's parameters, around which `bound` holds.
        features: channels of the convolutions, with a pool between two of them.
        size: (height, width) in pixels of the copy.
        hidden: features of the hidden layer.
        gain: a factor on the hidden features, which slows the last layer down (ASTER). A sweep may map over it as the
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
        x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype, name="hidden_layer")(x.reshape(x.shape[0], -1)))

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
    """Resamples each image or feature map by a transform of its own, which a localisation net reads off it.

    The identity samples an input of the output's size exactly on its pixels, where the bilinear gradient has kinks:
    give it an input larger than `out_size` where there is a choice.

    Attributes:
        kind: affine | tps.
        fiducials: points of a tps, an even number of at least 4.
        start, disturbance: see `start_parameters`.
        feature_gain, bound, features: see `Localisation`. A disturbance has to lie within the bound.
        outside: border | zeros, see `bilinear_sample`.
        bypass: the probability, 0..1, that an example passes by the identity in training, which then takes an rng
            `dropout` (MORAN v2, the authors' code: 0.5). A sweep may map over it as the variable `bypass` of the
            collection `settings`.
        localisation_size: (height, width) of the copy that the localisation net sees.
        localisation_hidden: features of its hidden layer.
    """

    kind: str
    fiducials: int = 20
    start: str = "identity"
    disturbance: float = 0.1
    feature_gain: float = 0.1
    bound: float = 0.0
    outside: str = "border"
    bypass: float = 0.0
    features: tuple[int, ...] = (16, 32, 64, 64)
    localisation_size: Pair = (16, 32)
    localisation_hidden: int = 128
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def setup(self):
        """The submodule `localisation`. Raises ValueError for a start beyond the bound, or more pools than pixels."""
        if min(self.localisation_size) >> (len(self.features) - 1) < 1:
            raise ValueError(f"{len(self.features)} layers are too many for a copy of {self.localisation_size} pixels")
        of = {"kind": self.kind, "fiducials": self.fiducials}
        start = start_parameters(start=self.start, disturbance=self.disturbance, **of)
        centre = start_parameters(**of)
        if self.bound and np.abs(start - centre).max() >= self.bound:
            most = np.abs(start - centre).max()
            raise ValueError(f"the start deviates by {most:.3g} from the identity, the bound is {self.bound:.3g}")
        self.localisation = Localisation(
            start=tuple(start.tolist()),
            centre=tuple(centre.tolist()),
            features=self.features,
            size=self.localisation_size,
            hidden=self.localisation_hidden,
            gain=self.feature_gain,
            bound=self.bound,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )

    def __call__(
        self, x: Float[Array, "B H W C"], *, out_size: Pair, train: bool
    ) -> tuple[Float[Array, "B h w C"], Float[Array, "B P"]]:
        """The input resampled to `out_size` (h, w), and the parameters that it was resampled by, float32."""
        parameters = self.localisation(x, train=train)
        bypass = self.get_variable("settings", "bypass", self.bypass)
        if train and not (isinstance(bypass, float) and bypass == 0):
            passes = jax.random.bernoulli(self.make_rng("dropout"), bypass, (x.shape[0], 1))
            parameters = jnp.where(passes, jnp.array(self.localisation.centre)[None], parameters)

        def transform(image, parameters):
            grid = parameter_grid(parameters, kind=self.kind, out_size=out_size, in_size=image.shape[:2])
            beyond = outside_share(grid, size=image.shape[:2])
            return bilinear_sample(image, grid, outside=self.outside), deviation(parameters, kind=self.kind), beyond

        y, moved, beyond = jax.vmap(transform)(x, parameters)
        # For logs, means over the batch, where the caller asks for this collection.
        for name, values in (("stn_deviation", moved), ("stn_outside", beyond)):
            if not self.is_initializing():
                self.sow("diagnostics", name, values.mean(), init_fn=lambda: 0.0, reduce_fn=lambda _, new: new)
        return y, parameters
