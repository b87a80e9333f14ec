"""Random augmentation of real words: a small warp each time, sometimes an inversion or a second camera."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from crnn_jax.sampler import affine_grid, bilinear_sample
from crnn_jax.synth.camera import draw_camera, shoot
from crnn_jax.synth.draws import Draws
from crnn_jax.synth.style import Style

RANDOM_WORDS = 32  # 32-bit words of randomness for one image
CAMERA_SHARE = 0.3  # shot once more by a camera of the style
INVERTED_SHARE = 0.1  # dark on bright becomes bright on dark, and vice versa
# Standard deviations of the warp, in normalised coordinates (an image is 2 wide and 2 high).
SCALE, SHEAR_X, SHEAR_Y, SHIFT_X, SHIFT_Y = 0.05, 0.04, 0.06, 0.02, 0.05


def augment(key, image: UInt8[Array, "H W"], *, style: Style) -> UInt8[Array, "H W"]:
    """Warps ONE word image slightly by an affine map, and sometimes inverts it or shoots it with a poor camera."""
    draws = Draws(jax.random.bits(key, (RANDOM_WORDS,)))
    theta = _draw_warp(draws)
    inverted, again = draws.chance(INVERTED_SHARE), draws.chance(CAMERA_SHARE)
    grey = image.astype(jnp.float32)
    grid = affine_grid(theta, out_size=image.shape, in_size=image.shape)
    grey = bilinear_sample(grey[..., None], grid)[..., 0]
    grey = jnp.where(inverted, 255 - grey, grey)
    grey = jnp.where(again, shoot(draw_camera(draws, style), grey, style=style), grey)
    return jnp.clip(jnp.round(grey), 0, 255).astype(jnp.uint8)


def _draw_warp(draws: Draws) -> Float[Array, "2 3"]:
    scale = 1 + SCALE * draws.normal(size=2)
    shear_x, shear_y = SHEAR_X * draws.normal(), SHEAR_Y * draws.normal()
    shift_x, shift_y = SHIFT_X * draws.normal(), SHIFT_Y * draws.normal()
    return jnp.array([[scale[0], shear_x, shift_x], [shear_y, scale[1], shift_y]])
