"""A model folder or a run becomes a Reader, and what it reads depends on the image alone."""

import dataclasses
import inspect
import io
import shutil
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small import SMALL, assert_same, noise_images, save_small
from toy import toy_config

import crnn_jax
from crnn_jax.beam import beam_search
from crnn_jax.config import Config, ModelConfig
from crnn_jax.ctc import greedy_decode
from crnn_jax.images import ImageError
from crnn_jax.lexicon import Lexicon, LexiconError, core
from crnn_jax.model import CRNN, build
from crnn_jax.reader import Reader, Reading
from crnn_jax.training.checkpoint import CheckpointError, Checkpoints, load_variables
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.state import create_state

pytestmark = pytest.mark.usefixtures("optimised")  # nearly the programs that users run

PAD = dataclasses.replace(SMALL, fit="pad", max_width=300)


def test_a_folder_is_loaded_whole(reader, model):
    assert reader.config == Config(model=SMALL)
    assert reader.charset.num_classes == 95
    assert reader.model == build(SMALL)
    stored = load_variables(model)[1]
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(reader.variables), stored)


def test_a_reading_is_the_greedy_decoding_of_the_logits(reader):
    image = reader.fit(noise_images(1)[0])
    logits = jax.jit(reader.model.apply)(reader.variables, jnp.asarray(image)[None])
    ids, _, confidence = greedy_decode(logits[0])
    [reading] = reader.read([image])
    assert isinstance(reading, Reading)
    assert reading.text == reader.charset.decode(ids) != ""
    assert reading.confidence == pytest.approx(float(confidence), rel=1e-3)
    assert 0 < reading.confidence <= 1


def test_with_a_lexicon_the_text_is_chosen_from_the_beams(reader):
    images = [reader.fit(image) for image in noise_images(3)]
    for image, logits in zip(images, reader.logits(images), strict=True):
        beams = jax.jit(beam_search)(jnp.asarray(logits))
        texts = [reader.charset.decode(ids) for ids in beams.ids]
        other = next(text for text in texts if core(text) not in ("", core(texts[0])))
        [reading] = reader.read([image], lexicon=Lexicon.of([other], bonus=50.0))
        assert core(reading.text) == core(other)
        [reading] = reader.read([image], lexicon=Lexicon.of([other], bonus=0.0))
        assert reading.text == texts[0]
        share = jax.nn.softmax(beams.log_probs / reader.lexicon_temperature)[0]
        assert reading.confidence == pytest.approx(float(share), rel=1e-3)


def test_a_lexicon_can_be_named(reader, tmp_path):
    (tmp_path / "words").write_text("one two")
    [image] = noise_images(1)
    path = tmp_path / "words"
    named, by_path, made = (reader.read([image], lexicon=x) for x in (str(path), path, Lexicon.of(["one", "two"])))
    assert named == by_path == made
    assert reader.read([image], lexicon=["one", "two"]) == named
    with pytest.raises(LexiconError, match="No such file or directory; a lexicon is a file of words, or 'english'"):
        reader.read([image], lexicon="englisch")


def test_readings_do_not_depend_on_the_batch_or_its_order(reader):
    images = noise_images(130)
    alone = [reader.read([image])[0] for image in images]
    assert len({reading.text for reading in alone}) > 50  # else the rest would say little
    for count in (0, 1, 3, 65, 130):
        assert_same(reader.read(images[:count]), alone[:count])
    order = np.random.default_rng(2).permutation(130)
    assert_same(reader.read(images[i] for i in order), [alone[i] for i in order])


class Columns(CRNN):
    """Stands in for the network: one frame per 20 columns, whose class is their darkness."""

    traced: ClassVar[list] = []  # the shape of the images at every tracing

    def setup(self):
        """No submodules."""

    def __call__(self, images, *, train: bool = False):
        self.traced.append(images.shape)
        batch, height, width = images.shape
        dark = jnp.mean(255.0 - images.reshape(batch, height, width // 20, 20), axis=(1, 3))
        return -jnp.square(dark[..., None] - jnp.linspace(0.0, 255.0, 95)[None, None])


def columns_reader(reader, config):
    replaced = Reader(Config(model=config), reader.variables)
    replaced._prepared = reader.variables  # this network has no kernels, and its tracings are counted
    replaced.model = Columns(config)
    return replaced


def test_compiled_once_for_each_bucket_and_batch_size(reader, monkeypatch):
    monkeypatch.setattr("crnn_jax.batches.cores", lambda: 1)
    counted = columns_reader(reader, dataclasses.replace(PAD, dropout=0.5))  # a config that no other test compiles
    Columns.traced.clear()
    narrow, wide, wider = (np.zeros((16, width), np.uint8) for width in (30, 60, 500))
    for images in ([narrow], [wide] * 7, [wider] * 9, [narrow] * 3, [narrow, wide, wider] * 30, [wide] * 73):
        for _ in range(2):
            assert len(counted.read(images)) == len(images)
    expected = [*((1, width) for width in (100, 200, 300)), *((n, width) for n in (8, 32) for width in (100, 200, 300))]
    assert sorted(Columns.traced) == sorted((size, PAD.height, width) for size, width in expected)


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_that_are_read_side_by_side_keep_their_order(reader, workers, monkeypatch):
    monkeypatch.setattr("crnn_jax.batches.cores", lambda: workers)
    images = [reader.fit(image) for image in noise_images(100)]
    assert len({reading.confidence for reading in reader.read_fitted(images)}) > 90
    alone = [reader.read_fitted([images[i]])[0] for i in (0, 31, 32, 63, 64, 99)]
    assert_same([reader.read_fitted(images)[i] for i in (0, 31, 32, 63, 64, 99)], alone)
    np.testing.assert_allclose(reader.logits(images)[99], reader.logits([images[99]])[0], atol=3e-4)


def test_it_reads_with_the_variables_that_are_set(reader):
    """Even if it has read before, and prepared the variables that it had."""
    mine, images = Reader(reader.config, reader.variables), noise_images(2)
    assert mine.read(images) == reader.read(images)
    other = jax.tree.map(lambda leaf: leaf[..., ::-1], reader.variables)
    mine.variables = other
    assert mine.read(images) == Reader(reader.config, other).read(images) != reader.read(images)


def test_a_wide_word_keeps_its_frames_in_a_wider_bucket(reader):
    stripes = np.repeat(np.array([0, 255] * 7 + [0], np.uint8), 20)[None].repeat(32, axis=0)
    text = {config.fit: columns_reader(reader, config).read([stripes])[0].text for config in (SMALL, PAD)}
    assert text["pad"] == 8 * reader.charset.characters[-1]  # the darkest class; the lightest is the blank
    assert len(text["resize"]) <= SMALL.width // 20


def test_a_padded_word_is_read_the_same_alone_and_among_others(reader):
    padding = Reader(Config(model=PAD), reader.variables)
    images = [image[:, : 8 * columns] for image, columns in zip(noise_images(6), (3, 10, 4, 9, 10, 5), strict=True)]
    images = [np.kron(image, np.ones((1, 2), np.uint8)) for image in images]
    assert [padding.fit(image).shape for image in images] == [(32, w) for w in (100, 200, 100, 200, 200, 100)]
    alone = [padding.read([image])[0] for image in images]
    assert len({reading.text for reading in alone}) == 6
    assert_same(padding.read(images), alone)
    assert_same(padding.read(images[::-1]), alone[::-1])


def test_all_kinds_of_images_are_the_same_word(reader, tmp_path):
    grey = noise_images(1)[0]
    Image.fromarray(grey).save(tmp_path / "word.png")
    colour = np.repeat(grey[..., None], 3, axis=2)
    path = tmp_path / "word.png"
    kinds = [path, str(path), path.read_bytes(), Image.open(path), Image.fromarray(colour), grey, colour]
    [expected, *others] = reader.read([*kinds, jnp.asarray(grey)])
    assert others == [expected] * len(kinds)


def test_an_array_of_images_is_a_list_and_one_image_is_not(reader):
    images = np.stack([image[:, :80] for image in noise_images(3)])
    assert reader.read(images) == reader.read(list(images))
    colour = images[0][..., None].repeat(3, axis=2)
    paths = ("word.png", Path("word.png"))
    for single in (*paths, io.BytesIO(b""), Image.fromarray(images[0]), images[0], images[0][..., None], colour):
        with pytest.raises(TypeError, match=r"a list of images, even for one: \[image\]"):
            inspect.unwrap(Reader.read)(reader, single)  # without the tests' own checks of types


def test_the_first_bad_image_is_named(reader, tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    with pytest.raises(ImageError, match=r"^\S*notes.png: not an image of a known format$"):
        reader.read([noise_images(1)[0], tmp_path / "notes.png", tmp_path / "missing.png"])
    with pytest.raises(ImageError, match=r"missing.png: No such file"):
        reader.read([str(tmp_path / "missing.png")])


def test_damaged_images_are_told_and_the_others_read_in_their_places(reader, tmp_path, caplog):
    (tmp_path / "notes.png").write_text("no image")
    first, last = noise_images(2)
    images = [tmp_path / "notes.png", first, tmp_path / "missing.png", last]
    whole = reader.read([first, last])
    assert reader.read(images, damaged_ok=True) == [None, whole[0], None, whole[1]]
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == f"image 0: {tmp_path}/notes.png: not an image of a known format"
    assert len(told) == 2 and told[1].startswith(f"image 2: {tmp_path}/missing.png: No such file")
    among = ["one", "two"]
    [chosen] = reader.choose([first], among)
    assert reader.choose(images[:3], among, damaged_ok=True) == [None, chosen, None]
    assert reader.read([images[0]], damaged_ok=True) == [None]


def test_a_workdir_gives_its_best_checkpoint(tmp_path, caplog):
    caplog.set_level("ERROR", logger="absl")
    config = toy_config()
    tx = make_optimizer(config.optimizer, config.run.steps)
    create = jax.jit(lambda key: create_state(key, build(config.model), tx, config.model))
    states = [jax.device_get(create(jax.random.key(seed))) for seed in range(3)]
    checkpoints = Checkpoints(tmp_path, config)
    for step, accuracy in enumerate((40.0, 60.0, 50.0)):
        checkpoints.save(step, states[step], {"word_accuracy": accuracy})
    checkpoints.close()
    caplog.set_level("WARNING", logger="absl")
    reader = crnn_jax.load(str(tmp_path))
    assert reader.config == config and not caplog.records  # a notebook would show them
    best = {"params": states[1].ema_params, "batch_stats": states[1].batch_stats}
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(reader.variables), best)
    assert set(reader.read(noise_images(1))[0].text) <= set("0123456789")


def one_line(name) -> str:
    with pytest.raises(CheckpointError) as error:
        crnn_jax.load(name)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_unknown_name_lists_the_bundled_models(monkeypatch, tmp_path):
    for name in ("second", "first"):
        save_small(tmp_path / "pretrained" / name, ModelConfig(charset="abc", lstm_features=4))
    monkeypatch.setattr("crnn_jax.training.checkpoint.resources.files", lambda package: tmp_path)
    assert one_line("third") == "third is neither a folder nor a bundled model (first, second)"
    assert crnn_jax.load("second").charset.characters == "abc"


def test_a_folder_that_is_no_model_is_named(tmp_path):
    assert one_line(tmp_path) == f"{tmp_path} holds no checkpoint"


@pytest.mark.parametrize("size", [0, 100])
def test_a_model_cut_short_is_named(model, tmp_path, size):
    """Here its table of contents; test_checkpoint.py has every other file, arrays included."""
    folder = tmp_path / "short"
    shutil.copytree(model, folder)
    contents = folder / "variables" / "_METADATA"
    contents.write_bytes(contents.read_bytes()[:size])
    assert one_line(folder).startswith(f"{folder}/variables is not a checkpoint, or was cut short: ")


def test_a_model_whose_charset_is_another_is_named(model, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(model, folder)
    (folder / "charset.txt").write_text("abc\n")
    assert one_line(folder).startswith(f"{folder} was trained on the charset 'abc', but its config says '0123")


def test_a_config_of_a_newer_version_is_told(tmp_path):
    config = save_small(tmp_path / "model") / "config.json"
    config.write_text(config.read_text().replace('"lstm_features"', '"attention_heads": 4, "lstm_features"'))
    told = one_line(tmp_path / "model")
    assert told.startswith(f"{tmp_path}/model: this version cannot read its configuration: unknown configuration")
    assert "field model.attention_heads" in told


def test_weights_of_another_network_are_told(tmp_path):
    save_small(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"lstm_features": 8', '"lstm_features": 16'))
    told = one_line(tmp_path / "model")
    assert told.startswith(f"{tmp_path}/model: its weights do not fit the network that its config describes: ")
    assert "/lstm1" in told and told.endswith(" but the existing parameter it received has shape (192, 64).")
    config.write_text(config.read_text().replace('"height": 32', '"height": 4'))
    assert one_line(tmp_path / "model").startswith(f"{tmp_path}/model: model.height = 4 and model.width")
