"""The views of an image that a Reader reads: turned if it is tall, with other margins if it is thorough."""

import shutil

import numpy as np
from PIL import Image
from small import SMALL, assert_same, noise_images, save_small

import crnn_jax
from crnn_jax.config import Config
from crnn_jax.reading import Reading, agreed, best_turn
from crnn_jax.training.checkpoint import Checkpoints, load_variables


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
    assert agreed(readings) == ("two", 0.4)
    assert agreed(readings[:2]) == agreed(readings[:1]) == ("one", 0.5)


def test_a_turned_reading_counts_where_it_makes_a_word():
    upright = Reading("1", 0.5)
    assert best_turn([upright, Reading("r", 0.9), Reading("", 1.0)]) is upright
    assert best_turn([upright, Reading("r", 0.9), Reading("on", 0.36)]) == ("on", 0.36)
    assert best_turn([upright, Reading("on", 0.2)]) is upright  # 0.45 per character
    assert best_turn([upright]) is upright


def test_a_list_of_paths_may_be_an_array(reader, tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(2)]
    for path, image in zip(paths, noise_images(2), strict=True):
        Image.fromarray(image).save(path)
    assert reader.read(np.array(paths)) == reader.read(paths) and len(reader.read(np.array(paths))) == 2


def test_a_checkpoint_that_was_copied_out_of_its_run_is_read(tmp_path):
    model = save_small(tmp_path / "small")
    variables = load_variables(model)[1]
    checkpoints = Checkpoints(tmp_path / "run", Config(model=SMALL))
    checkpoints.save(10, {"ema_params": variables["params"], "batch_stats": variables["batch_stats"]}, None)
    checkpoints.close()
    shutil.copytree(tmp_path / "run" / "checkpoints" / "10", tmp_path / "best")
    images = noise_images(3)
    assert_same(crnn_jax.load(tmp_path / "best").read(images), crnn_jax.load(model).read(images))
