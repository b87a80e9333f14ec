"""What a Reader makes of an image to read it: turned where it is tall, with other margins where it is thorough."""

import numpy as np
import pytest
from small import assert_same, noise_images, save_small

import crnn_jax
from crnn_jax.reader import Reading, _agreed


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return crnn_jax.load(save_small(tmp_path_factory.mktemp("models") / "small"))


def test_of_an_image_that_is_tall_the_turn_of_most_confidence_is_read(reader):
    squares = np.random.default_rng(2).integers(0, 256, (13, 8), dtype=np.uint8)
    image = np.kron(squares, np.ones((8, 8), np.uint8))
    tall, not_tall = image[:98], image[:96]  # 64 wide
    assert len(reader.views(not_tall)) == 1
    (upright,), (left,), (right,) = reader.views(tall)
    for view, turned in ((upright, tall), (left, tall.T[::-1]), (right, tall[::-1].T)):
        np.testing.assert_array_equal(view, reader.fit(turned))
    of_each = reader.read_fitted([upright, left, right])
    assert len({reading.confidence for reading in of_each}) == 3
    best = max(of_each, key=lambda reading: reading.confidence ** (1 / len(reading.text)))
    plain = reader.read_fitted([reader.fit(not_tall)])[0]
    assert_same(reader.read([not_tall, tall, not_tall]), [plain, best, plain])


def test_a_thorough_reading_looks_with_three_margins(reader):
    image = noise_images(1)[0]  # 32 high
    padded = np.pad(image, 3, mode="edge")
    [views] = reader.views(image, thorough=True)
    for view, expected in zip(views, (image, image[2:-2, 2:-2], padded), strict=True):
        np.testing.assert_array_equal(view, reader.fit(expected))
    assert [len(margins) for margins in reader.views(np.rot90(image), thorough=True)] == [3, 3, 3]
    of_each = reader.read_fitted(views)
    assert len({reading.text for reading in of_each}) == 3
    best = max(of_each, key=lambda reading: reading.confidence)
    assert best != of_each[0]
    assert_same(reader.read([image], thorough=True), [best])


def test_what_readings_agree_on_is_read():
    readings = [Reading("one", 0.5), Reading("two", 0.4), Reading("two", 0.3)]
    assert _agreed(readings) == ("two", 0.4)
    assert _agreed(readings[:2]) == _agreed(readings[:1]) == ("one", 0.5)
