"""What a camera and its file do to an image: uneven light, blur, noise, JPEG. Images are 0 to 255."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from crnn_jax.synth.draws import Draws
from crnn_jax.synth.style import Style

# ITU-T T.81 (JPEG), table K.1: the luminance quantisation table of quality 50.
QUANTISATION = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)


class Camera(NamedTuple):
    """One shot's parameters."""

    light: Float[Array, "2"]  # relative change of the light from one side to the other, x and y
    blur: Float[Array, "2"]  # standard deviation in pixels, x and y; 0: none
    noise: Float[Array, ""]  # standard deviation in grey levels
    seed: UInt32[Array, ""]
    quality: Float[Array, ""]  # JPEG's, 1 to 100


def draw_camera(draws: Draws, style: Style) -> Camera:
    """A random shot."""
    blur = jnp.where(draws.chance(style.blur_share), draws.uniform(*style.blur, size=2), 0.0)
    noise = style.noise[0] + style.noise[1] * jnp.abs(draws.normal())
    noise = noise * jnp.where(draws.chance(style.noisy_share), style.noisy_factor * draws.uniform(), 1.0)
    mean, std = style.jpeg_quality
    quality = jnp.clip(mean + std * draws.normal(), 20.0, 80.0)
    return Camera(style.light_std * draws.normal(size=2), blur, noise, draws.bits(), quality)


def hash_normal(seed: UInt32[Array, ""], n: int) -> Float[Array, " n"]:
    """About N(0, 1) for each of n pixels: the sum of a hash's four bytes (the finaliser of MurmurHash3).

    A hash of the pixel's number fuses into what uses it, where a call of threefry would be written to memory first.
    """
    h = seed + jnp.arange(n, dtype=jnp.uint32) * jnp.uint32(0x9E3779B1)
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    h = h ^ (h >> 16)
    total = (h & 255) + ((h >> 8) & 255) + ((h >> 16) & 255) + (h >> 24)
    return (total.astype(jnp.float32) - 510.0) / 147.8  # four uniform bytes: mean 510, standard deviation 147.8


def blur_matrix(sigma: Float[Array, ""], n: int) -> Float[Array, "n n"]:
    """The matrix that blurs n pixels by a Gaussian; its rows sum to 1, so borders do not darken. sigma 0: identity."""
    distance = (jnp.arange(n)[:, None] - jnp.arange(n)[None, :]).astype(jnp.float32)
    weights = jnp.exp(-0.5 * (distance / jnp.maximum(sigma, 0.05)) ** 2)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def _dct_matrix(n: int) -> np.ndarray:
    """The orthonormal 8-point DCT of each of n / 8 neighbouring blocks, as one block-diagonal matrix."""
    block = [
        [math.sqrt((1 if k == 0 else 2) / 8) * math.cos((2 * i + 1) * k * math.pi / 16) for i in range(8)]
        for k in range(8)
    ]
    return np.kron(np.eye(n // 8), np.array(block)).astype(np.float32)


def jpeg(image: Float[Array, "H W"], quality: Float[Array, ""]) -> Float[Array, "H W"]:
    """The image behind a JPEG of that quality (luminance, no chroma); ITU-T T.81 with libjpeg's quality scaling."""
    height, width = image.shape
    tall, wide = -(-height // 8) * 8, -(-width // 8) * 8
    scale = jnp.where(quality < 50, 5000 / jnp.maximum(quality, 1.0), 200 - 2 * quality)
    steps = jnp.maximum(jnp.floor((QUANTISATION * scale + 50) / 100), 1.0)
    steps = jnp.tile(steps, (tall // 8, wide // 8))
    padded = jnp.pad(image, ((0, tall - height), (0, wide - width)), mode="edge") - 128
    rows, columns = _dct_matrix(tall), _dct_matrix(wide)
    coefficients = jnp.round(rows @ (padded @ columns.T) / steps) * steps
    return (rows.T @ (coefficients @ columns))[:height, :width] + 128


def shoot(camera: Camera, image: Float[Array, "H W"], *, style: Style) -> Float[Array, "H W"]:
    """The image as the camera's file has it. What the style never asks for is not computed."""
    height, width = image.shape
    if style.light_std > 0:
        x, y = jnp.linspace(-0.5, 0.5, width)[None, :], jnp.linspace(-0.5, 0.5, height)[:, None]
        image = jnp.clip(image * (1 + camera.light[0] * x + camera.light[1] * y), 0.0, 255.0)
    if style.blur_share > 0:
        image = blur_matrix(camera.blur[1], height) @ (image @ blur_matrix(camera.blur[0], width).T)
    image = image + hash_normal(camera.seed, height * width).reshape(height, width) * camera.noise
    return jpeg(image, camera.quality)
