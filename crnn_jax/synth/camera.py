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
    exposure: Float[Array, "2"]  # contrast factor, and the level it leaves unchanged, in grey levels from the mean
    blur: Float[Array, "2"]  # standard deviation in pixels, x and y; 0: none
    resolution: Float[Array, "2"]  # camera pixels per image pixel, x and y, at most 1
    sharpening: Float[Array, ""]  # how much of the difference from a blurred copy is added
    noise: Float[Array, ""]  # standard deviation in grey levels
    seed: UInt32[Array, ""]
    quality: Float[Array, ""]  # of the JPEG, 1 to 100


def draw_camera(draws: Draws, style: Style) -> Camera:
    """A random shot."""
    blur = jnp.where(draws.chance(style.blur_share), draws.uniform(*style.blur, size=2), 0.0)
    low = jnp.where(draws.chance(style.coarse_share), draws.uniform(*style.coarse), 1.0)
    resolution = jnp.minimum(low * jnp.stack([draws.uniform(0.7, 1.4), jnp.ones(())]), 1.0)
    resolution = jnp.where(low < 1, resolution, 1.0)
    sharpening = jnp.where(draws.chance(style.sharp_share), draws.uniform(*style.sharp), 0.0)
    contrast = jnp.where(draws.chance(style.exposed_share), draws.uniform(*style.exposed), 1.0)
    exposure = jnp.stack([contrast, 30 * draws.normal()])
    noise = style.noise[0] + style.noise[1] * jnp.abs(draws.normal())
    noise = noise * jnp.where(draws.chance(style.noisy_share), style.noisy_factor * draws.uniform(), 1.0)
    mean, std = style.jpeg_quality
    quality = jnp.clip(mean + std * draws.normal(), 20.0, 80.0)
    light = style.light_std * draws.normal(size=2)
    return Camera(light, exposure, blur, resolution, sharpening, noise, draws.bits(), quality)


def hash_normal(seed: UInt32[Array, ""], n: int) -> Float[Array, " n"]:
    """Roughly N(0, 1) for each of n pixels: the sum of the four bytes of a hash (the finaliser of MurmurHash3).

    A hash of the pixel's index fuses into the code that uses it; threefry's output would be written to memory first.
    """
    h = seed + jnp.arange(n, dtype=jnp.uint32) * jnp.uint32(0x9E3779B1)
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    h = h ^ (h >> 16)
    total = (h & 255) + ((h >> 8) & 255) + ((h >> 16) & 255) + (h >> 24)
    return (total.astype(jnp.float32) - 510.0) / 147.8  # four uniform bytes: mean 510, standard deviation 147.8


def take_matrix(
    n: int, *, resolution: Float[Array, ""], blur: Float[Array, ""], sharpening: Float[Array, ""]
) -> Float[Array, "n n"]:
    """The matrix by which a camera samples n pixels along one axis: row k holds the weights of its pixel k.

    A camera pixel is 1 / `resolution` image pixels wide. Only the first round(n * resolution) of them matter; the rest
    repeat the last. `blur` is the lens blur, a standard deviation in image pixels. Rows sum to 1, so borders do not
    darken. Without blur and sharpening, at resolution 1, it is the identity.
    """
    step = n / jnp.round(n * resolution)
    centre = jnp.minimum((jnp.arange(n) + 0.5) * step, n) - 0.5
    distance = (jnp.arange(n)[None, :] - centre[:, None]).astype(jnp.float32)

    def gaussian(variance):
        weights = jnp.exp(-0.5 * distance**2 / jnp.maximum(variance, 0.05**2))
        return weights / jnp.sum(weights, axis=1, keepdims=True)

    variance = blur**2 + (step**2 - 1) / 12  # a wide pixel adds that of a uniform distribution
    # Sharpening adds the difference from a copy blurred by one more camera pixel.
    return (1 + sharpening) * gaussian(variance) - sharpening * gaussian(variance + step**2)


def enlarge_matrix(n: int, *, resolution: Float[Array, ""]) -> Float[Array, "n n"]:
    """The matrix that enlarges a camera's round(n * resolution) pixels to n: cubic convolution (Keys 1981, a = -1/2).

    Pillow enlarges with it, so rendered words pass through the same filter as small photographs.
    """
    count = jnp.round(n * resolution)
    place = (jnp.arange(n) + 0.5) * (count / n) - 0.5
    pixel = jnp.arange(n)[None, :]
    distance = jnp.abs(pixel - place[:, None])
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = jnp.where(distance < 1, near, jnp.where(distance < 2, far, 0.0))
    weights = jnp.where(pixel < count, weights, 0.0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def _dct_matrix(n: int) -> np.ndarray:
    """The orthonormal 8-point DCT of each of n / 8 neighbouring blocks, as one block-diagonal matrix."""
    block = [
        [math.sqrt((1 if k == 0 else 2) / 8) * math.cos((2 * i + 1) * k * math.pi / 16) for i in range(8)]
        for k in range(8)
    ]
    return np.kron(np.eye(n // 8), np.array(block)).astype(np.float32)


def jpeg(image: Float[Array, "H W"], quality: Float[Array, ""]) -> Float[Array, "H W"]:
    """The image after JPEG compression at `quality` (luminance only); ITU-T T.81 with libjpeg's quality scaling."""
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
    """The image as the camera's file has it. Effects that the style never uses are not computed."""
    height, width = image.shape
    if style.light_std > 0:
        x, y = jnp.linspace(-0.5, 0.5, width)[None, :], jnp.linspace(-0.5, 0.5, height)[:, None]
        image = jnp.clip(image * (1 + camera.light[0] * x + camera.light[1] * y), 0.0, 255.0)
    if style.exposed_share > 0:
        factor, pivot = camera.exposure[0], jnp.mean(image) + camera.exposure[1]
        image = jnp.clip(pivot + factor * (image - pivot), 0.0, 255.0)
    if max(style.blur_share, style.coarse_share, style.sharp_share) > 0:
        across, down = (
            take_matrix(n, resolution=resolution, blur=blur, sharpening=camera.sharpening)
            for n, resolution, blur in zip((width, height), camera.resolution, camera.blur, strict=True)
        )
        image = jnp.clip(down @ (image @ across.T), 0.0, 255.0)
    image = image + hash_normal(camera.seed, height * width).reshape(height, width) * camera.noise
    image = jpeg(image, camera.quality)
    if style.coarse_share > 0:
        across, down = (
            enlarge_matrix(n, resolution=resolution)
            for n, resolution in zip((width, height), camera.resolution, strict=True)
        )
        image = down @ (image @ across.T)
    return image
