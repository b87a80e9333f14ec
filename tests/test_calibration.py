"""Calibration error by hand and against a confidence that is right by construction; a known temperature is found."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from small import noise_images, save_small

import crnn_jax
from crnn_jax.calibration import (
    expected_calibration_error,
    fit_lexicon_temperature,
    fit_temperature,
    greedy_confidences,
    load_calibration,
    reliability,
    save_calibration,
    share_confidences,
)
from crnn_jax.ctc import greedy_decode
from crnn_jax.lexicon import Lexicon
from crnn_jax.training.checkpoint import CheckpointError


def test_the_error_of_two_bins_by_hand():
    confidences, correct = [0.1, 0.3, 0.9, 1.0], [False, True, True, True]
    low, high = reliability(confidences, correct, bins=2)
    assert low == (0.0, 0.5, 2, pytest.approx(0.2), 0.5)
    assert high == (0.5, 1.0, 2, pytest.approx(0.95), 1.0)
    assert expected_calibration_error(confidences, correct, bins=2) == pytest.approx(100 * (0.3 + 0.05) / 2)


def test_a_bin_has_its_upper_edge_and_the_first_has_zero():
    table = reliability([0.0, 0.2, 0.2000001, 1.0], [True] * 4, bins=5)
    assert [row.count for row in table] == [2, 1, 0, 0, 1]
    assert math.isnan(table[2].confidence) and math.isnan(table[2].accuracy)


def test_no_words_have_no_error_and_no_length_may_differ():
    assert math.isnan(expected_calibration_error([], []))
    with pytest.raises(ValueError, match="2 confidences, but correct has 1 values"):
        reliability([0.5, 0.5], [True])


def test_a_confidence_that_is_the_chance_of_being_right_has_no_error():
    rng = np.random.default_rng(0)
    confidences = rng.uniform(size=100_000)
    correct = rng.uniform(size=100_000) < confidences
    assert expected_calibration_error(confidences, correct) < 0.7
    assert expected_calibration_error(np.sqrt(confidences), correct) == pytest.approx(100 * (2 / 3 - 1 / 2), abs=0.7)


def random_logits(count: int, scale: float = 3.0) -> list[np.ndarray]:
    """Logits of words of 3 to 8 frames and 11 classes, some clearer than others."""
    rng = np.random.default_rng(1)
    sharpness = rng.uniform(0.5, 3.0, count)
    return [
        np.float32(rng.normal(0, scale * s, (frames, 11)))
        for s, frames in zip(sharpness, rng.integers(3, 9, count), strict=True)
    ]


@pytest.mark.parametrize("temperature", [1.0, 0.4, 3.0])
def test_confidences_are_those_of_greedy_decoding(temperature):
    logits = random_logits(20)
    expected = [float(greedy_decode(jnp.asarray(frames) / temperature)[2]) for frames in logits]
    np.testing.assert_allclose(greedy_confidences(logits, temperature=temperature), expected, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_at_which_confidence_is_the_chance_is_found_again(temperature):
    logits = random_logits(8000)
    chance = greedy_confidences(logits, temperature=1.0)
    correct = np.random.default_rng(2).uniform(size=len(logits)) < chance
    fitted = fit_temperature([np.float32(temperature * frames) for frames in logits], correct)
    assert fitted == pytest.approx(temperature, rel=0.03)


def test_the_search_is_exact():
    """Equal words: their confidence becomes the share of right ones, if a T up to 20 can give it."""
    logits = [np.array([[2.0, 0.0, -1.0]], np.float32)] * 8
    fitted = fit_temperature(logits, [True, True] + [False] * 6)
    assert greedy_confidences(logits, temperature=20.0)[0] > 0.25 and fitted == pytest.approx(20, rel=1e-4)  # the bound
    fitted = fit_temperature(logits, [True] * 6 + [False] * 2)
    assert greedy_confidences(logits, temperature=fitted)[0] == pytest.approx(0.75, abs=1e-5)


def test_certain_words_that_are_wrong_do_not_break_the_search():
    logits = [np.array([[1e4, 0.0]], np.float32), np.array([[1.0, 0.0]], np.float32)] * 3
    assert 0.05 <= fit_temperature(logits, [False, True, True, False, True, True]) <= 20.001


@pytest.mark.parametrize(("correct", "which"), [([True, True], "2 words are read right"), ([False] * 2, "read wrong")])
def test_words_of_one_kind_tell_no_temperature(correct, which):
    with pytest.raises(ValueError, match=f"{which}: fitting a temperature takes both right and wrong ones"):
        fit_temperature(random_logits(2), correct)
    with pytest.raises(ValueError, match="logits of 2 words, but correct has 3 values"):
        fit_temperature(random_logits(2), [True, False, True])


def test_a_reader_divides_by_the_temperature_of_its_model(tmp_path):
    model, images = save_small(tmp_path / "small"), noise_images(5)
    plain = crnn_jax.load(model)
    assert plain.temperature == 1.0 and load_calibration(model) is None
    save_calibration(model, {"temperature": 2.5, "fitted_on": "squares"})
    calibrated = crnn_jax.load(model)
    assert calibrated.temperature == 2.5 and load_calibration(model)["fitted_on"] == "squares"
    before, after = plain.read(images), calibrated.read(images)
    assert [reading.text for reading in after] == [reading.text for reading in before]
    logits = plain.logits([plain.fit(image) for image in images])
    for readings, temperature in ((before, 1.0), (after, 2.5)):
        expected = greedy_confidences(logits, temperature=temperature)
        np.testing.assert_allclose([reading.confidence for reading in readings], expected, rtol=1e-3)
    assert all(b.confidence != a.confidence for b, a in zip(before, after, strict=True))


def test_a_reader_divides_by_the_other_temperature_where_a_lexicon_chooses(tmp_path):
    model, images, lexicon = save_small(tmp_path / "small"), noise_images(5), Lexicon.of(["word"])
    plain = crnn_jax.load(model)
    assert plain.lexicon_temperature == 1.0
    save_calibration(model, {"temperature": 2.5, "lexicon_temperature": 1.5})
    calibrated = crnn_jax.load(model)
    before, after = plain.read(images, lexicon=lexicon), calibrated.read(images, lexicon=lexicon)
    assert [reading.text for reading in after] == [reading.text for reading in before]
    scores = np.array([lexicon.scores(*found) for found in plain.search([plain.fit(image) for image in images])])
    for readings, temperature in ((before, 1.0), (after, 1.5)):
        expected = share_confidences(scores, temperature=temperature)
        np.testing.assert_allclose([reading.confidence for reading in readings], expected, rtol=1e-6)
    assert all(b.confidence > a.confidence for b, a in zip(before, after, strict=True))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_the_shares_is_found_again(temperature):
    scores = np.random.default_rng(3).normal(0, 3, (8000, 16))
    scores[:, 9:] = -np.inf  # fewer texts than beams
    correct = np.random.default_rng(4).uniform(size=len(scores)) < share_confidences(scores)
    assert fit_lexicon_temperature(temperature * scores, correct) == pytest.approx(temperature, rel=0.03)
    with pytest.raises(ValueError, match="scores of 8000 words, but correct has 1 values"):
        fit_lexicon_temperature(scores, [True])
    with pytest.raises(ValueError, match="all 8000 words are read right"):
        fit_lexicon_temperature(scores, [True] * 8000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a calibration file (delete it and fit it again): "),
        ('{"temperature": 1.', "is not a calibration file (delete it and fit it again): "),
        ("[1.5]", ": expected a temperature above 0, got None"),
        ("{}", ": expected a temperature above 0, got None"),
        ('{"temperature": "warm"}', ": expected a temperature above 0, got 'warm'"),
        ('{"temperature": true}', ": expected a temperature above 0, got True"),
        ('{"temperature": 0}', ": expected a temperature above 0, got 0"),
        ('{"temperature": NaN}', ": expected a temperature above 0, got nan"),
        ('{"temperature": Infinity}', ": expected a temperature above 0, got inf"),
        ('{"temperature": 1, "lexicon_temperature": -1}', ": expected a lexicon_temperature above 0, got -1"),
    ],
)
def test_a_damaged_calibration_is_named_in_one_line(tmp_path, text, message):
    (tmp_path / "variables").mkdir()
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(CheckpointError) as error:
        load_calibration(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/calibration.json") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_calibration_is_written_as_it_is_read(tmp_path):
    (tmp_path / "variables").mkdir()
    calibration = {"temperature": 0.75, "fitted_on": "naïve", "words": 3}
    save_calibration(tmp_path, calibration)
    assert json.loads((tmp_path / "calibration.json").read_text()) == load_calibration(tmp_path) == calibration
