"""What a Reader reports about its model's spatial transformer, image by image."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from small import SMALL, noise_images, save_small

import crnn_jax
from crnn_jax.config import StnConfig
from crnn_jax.stn import deviation

pytestmark = pytest.mark.usefixtures("optimised")  # nearly the programs that users run


@pytest.mark.parametrize("normalise", ["range", "contrast"])
def test_what_the_transformer_does_with_each_image(tmp_path, normalise):
    """For images of two widths, in the images' grey levels, however the network scales them."""
    stn = StnConfig(kind="tps", fiducials=6, features=(4, 4), bound=0.3)
    reader = crnn_jax.load(
        save_small(tmp_path / "stn", dataclasses.replace(SMALL, fit="pad", max_width=300, stn=stn, normalise=normalise))
    )
    images = [reader.fit(image) for image in noise_images(3)] + [np.full((32, 100), 77, np.uint8)]
    transforms, rectify = reader.transform(images), jax.jit(partial(reader.model.apply, method="rectify"))
    assert len({image.shape for image in images}) == 2 and reader.has_stn
    for image, transform in zip(images, transforms, strict=True):
        [rectified], [parameters] = rectify(reader.variables, image[None])
        np.testing.assert_allclose(transform.parameters, parameters, atol=1e-4)
        assert transform.image.shape == image.shape and transform.image.dtype == np.uint8
        if normalise == "range":
            np.testing.assert_allclose(transform.image, 127.5 * (rectified[..., 0] + 1), atol=1)
        np.testing.assert_allclose(transform.diagnosis.deviation, deviation(parameters, kind="tps"), rtol=1e-3)
        spread = (transform.image.std() + 0.1) / (image.std() + 0.1)
        assert transform.diagnosis.contrast == pytest.approx(spread, abs=0.15)
        assert image.min() <= transform.image.min() and transform.image.max() <= image.max()
    assert np.all(transforms[-1].image == 77)


def test_a_transformer_on_features_has_no_image(reader, tmp_path):
    stn = StnConfig(kind="affine", features=(4, 4), placement="block1")
    on_features = crnn_jax.load(save_small(tmp_path / "stn", dataclasses.replace(SMALL, stn=stn)))
    [transform] = on_features.transform([reader.fit(noise_images(1)[0])])
    assert transform.image is None and transform.parameters.shape == (6,)
    assert not reader.has_stn
    with pytest.raises(ValueError, match="this model has no spatial transformer"):
        reader.transform([reader.fit(noise_images(1)[0])])
