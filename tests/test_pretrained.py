"""Every bundled model: its card is complete, it reads clean print, and photographs as well as the card says."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from small import EXPERIMENTS, load_script

import crnn_jax
from crnn_jax.data.dataset import open_dataset, take_part
from crnn_jax.evaluation import dataset_words, read_words
from crnn_jax.model import count_parameters
from crnn_jax.reader import DEFAULT_MODEL
from crnn_jax.training.checkpoint import bundled_models, load_variables

pytestmark = pytest.mark.usefixtures("optimised")  # nearly the programs that users run

REAL_WORDS = EXPERIMENTS.parents[1] / "shared" / "data" / "real_words"
MODELS = bundled_models()

load = cache(crnn_jax.load)  # what a model compiles in one test serves the next


def print_word(word: str) -> np.ndarray:
    """Dark on bright, in Pillow's own font."""
    font = ImageFont.load_default(28)
    left, top, right, bottom = font.getbbox(word)
    image = Image.new("L", (round(right - left) + 12, round(bottom - top) + 12), 240)
    ImageDraw.Draw(image).text((6 - left, 6 - top), word, fill=20, font=font)
    return np.asarray(image)


def test_the_default_is_bundled():
    assert DEFAULT_MODEL in MODELS and "tiny" in MODELS


@pytest.mark.parametrize("name", MODELS)
def test_a_bundled_model_is_what_its_card_says(name):
    reader, card = load(name), json.loads((MODELS[name] / "card.json").read_text())
    assert count_parameters(reader.variables) == card["parameters"]
    assert card["images_seen"] > 1e6 and card["note"] and card["results"]
    assert not any("/" in path for path in reader.config.data.real)


@pytest.mark.parametrize("name", MODELS)
def test_a_bundled_model_is_the_network_of_its_config(name):
    config = load_script("train").load_config(name).model
    assert load_variables(MODELS[name])[0].model == config
    # On a CPU it computes in float32.
    assert load(name).config.model == load(name).model.config == replace(config, dtype="float32")


@pytest.mark.parametrize("name", MODELS)
def test_a_bundled_model_reads_clean_print(name):
    readings = load(name).read([print_word(word) for word in ("hello", "world", "MARKET", "2026")])
    assert [reading.text.lower() for reading in readings] == ["hello", "world", "market", "2026"]
    assert min(reading.confidence for reading in readings) > 0.2


@pytest.mark.parametrize("name", MODELS)
def test_a_bundled_model_reads_up_and_down(name):
    turned = [np.rot90(print_word(word), turn) for word in ("brother", "market") for turn in (1, -1)]
    assert [r.text.lower() for r in load(name).read(turned)] == ["brother", "brother", "market", "market"]


@pytest.mark.parametrize("name", MODELS)
def test_a_bundled_model_reads_photographs(name):
    if not (REAL_WORDS / "iiit5k_train").is_dir():
        pytest.skip("the photographs are not here")
    reader, dataset = load(name), take_part(open_dataset(REAL_WORDS / "iiit5k_train"), "tenth")
    assert read_words(reader, dataset_words(reader, dataset, name)).row()["word_accuracy"] >= 82
