"""The camera: how an image is taken with fewer pixels, blurred, sharpened, compressed and enlarged again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from crnn_jax.synth.camera import QUANTISATION, Camera, enlarge_matrix, hash_normal, jpeg, shoot, take_matrix
from crnn_jax.synth.style import Style

KEY = jax.random.key(5)


def take(n=20, resolution=1.0, blur=0.0, sharpening=0.0):
    values = [jnp.float32(v) for v in (resolution, blur, sharpening)]
    return np.asarray(take_matrix(n, resolution=values[0], blur=values[1], sharpening=values[2]))


def test_jpeg_keeps_what_its_tables_keep():
    flat = jnp.full((16, 20), 77.0)
    np.testing.assert_allclose(jpeg(flat, jnp.float32(50.0)), 77, atol=QUANTISATION[0, 0] / 16)
    noise = 128 + 40 * jax.random.normal(KEY, (32, 40))
    errors = [float(jnp.mean((jpeg(noise, jnp.float32(q)) - noise) ** 2)) for q in (20, 50, 80, 99)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1


def test_taking_keeps_the_mean_and_can_change_nothing():
    for options in ({"blur": 1.3}, {"resolution": 0.4}, {"resolution": 0.6, "blur": 0.5, "sharpening": 1.5}):
        np.testing.assert_allclose(take(**options).sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(take(), np.eye(20), atol=1e-6)
    np.testing.assert_allclose(enlarge_matrix(20, resolution=jnp.float32(1.0)), np.eye(20), atol=1e-6)


def test_a_wide_pixel_sees_its_own_stretch_of_the_image():
    ramp = np.arange(20.0)
    taken = take(resolution=0.25) @ ramp
    np.testing.assert_allclose(taken[:5], [1.5, 5.5, 9.5, 13.5, 17.5], atol=0.2)
    np.testing.assert_allclose(taken[5:], taken[5], atol=1e-4)


def test_sharpening_overshoots_at_an_edge_and_blur_does_not():
    step = np.repeat([0.0, 1.0], 10)
    assert (take(sharpening=1.0) @ step).max() > 1.1
    assert (take(blur=1.0) @ step).max() < 1 + 1e-5


@pytest.mark.parametrize("count", [8, 13])
def test_enlarging_is_what_pillow_does(count):
    small = np.random.default_rng(0).uniform(0, 255, count).astype(np.float32)
    expected = np.asarray(Image.fromarray(small[None]).resize((20, 1), Image.Resampling.BICUBIC))[0]
    matrix = np.asarray(enlarge_matrix(20, resolution=jnp.float32(count / 20)))
    np.testing.assert_allclose(matrix[:, :count] @ small, expected, atol=0.02)
    assert not matrix[:, count:].any()


def test_a_coarse_shot_loses_the_fine_and_keeps_the_rest():
    style = Style(coarse_share=1.0)
    columns = jnp.arange(100)
    fine, broad = (128 + 60 * jnp.sin(2 * jnp.pi * columns / period)[None] * jnp.ones((32, 1)) for period in (3, 25))
    still = Camera(
        light=jnp.zeros(2),
        exposure=jnp.array([1.0, 0.0]),
        blur=jnp.zeros(2),
        resolution=jnp.array([0.4, 0.4]),
        sharpening=jnp.float32(0.0),
        noise=jnp.float32(0.0),
        seed=jnp.uint32(1),
        quality=jnp.float32(80.0),
    )
    assert float(shoot(still, fine, style=style).std()) < 0.5 * float(fine.std())
    assert float(shoot(still, broad, style=style).std()) > 0.8 * float(broad.std())


def test_noise_is_normal():
    noise = hash_normal(jnp.uint32(3), 20_000)
    assert abs(float(noise.mean())) < 0.03 and abs(float(noise.std()) - 1) < 0.03
