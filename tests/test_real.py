"""Real words for fine-tuning: which are kept, what is drawn, and a run on them."""

import json
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from toy import toy_config, toy_model, toy_source, toy_words

from crnn_jax.config import ConfigError, override
from crnn_jax.data.augment import augment
from crnn_jax.data.real import load_real, load_validation, real_batch
from crnn_jax.data.sample import DatasetError
from crnn_jax.synth.style import PLAIN
from crnn_jax.training import loop, words
from crnn_jax.training.checkpoint import CheckpointError

KEY = jax.random.key(3)


def write_folder(folder, labels):
    """A dataset of images of random squares, all different."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(len(labels)):
        squares = rng.integers(0, 256, (4, 6), dtype=np.uint8)
        Image.fromarray(np.kron(squares, np.ones((8, 8), np.uint8))).save(folder / f"{i}.png")
    lines = [f"{i}.png\t{label}\n" for i, label in enumerate(labels)]
    (folder / "labels.tsv").write_text("".join(lines), encoding="utf-8")
    return str(folder)


@pytest.fixture
def config(tmp_path):
    """The toy's, with half of every batch real: 40 words of digits, of which the last four are held out."""
    path = write_folder(tmp_path / "real", [str(100 + i) for i in range(40)])
    return override(toy_config(), [f"data.real={path}", "data.share_real=0.5"])


def test_the_last_tenth_is_apart_and_what_does_not_fit_is_counted(tmp_path):
    labels = ["1", "23", "4 5", "6-7", "", "1234", "12a", "é1", "55", "777"]
    path = write_folder(tmp_path / "real", labels)
    config = override(toy_config(), ["data.max_length=3", f"data.real={path}", "data.share_real=1"])
    train, tenth, report = load_real(config)
    spelled = ["".join(str(i - 1) for i in row if i) for row in np.asarray(train.label)]
    assert spelled == ["1", "23", "45", "67", "55"]
    assert np.asarray(train.label_length).tolist() == [1, 2, 2, 2, 2]
    assert np.asarray(tenth.label_length).tolist() == [3] and train.image.shape == (5, 32, 40)
    assert report == (
        "6 real words, 1 of them held out; 2 left out: characters outside the charset; "
        "1 left out: longer than data.max_length = 3; 1 left out: no characters"
    )


def test_words_that_run_up_or_down_are_left_out(tmp_path):
    path = write_folder(tmp_path / "real", ["1", "23", "456", *["789"] * 7])
    for name in ("0", "1", "2"):  # three times as high as wide: room for one character, perhaps for two
        Image.fromarray(np.zeros((48, 16), np.uint8)).save(tmp_path / "real" / f"{name}.png")
    train, _, report = load_real(override(toy_config(), [f"data.real={path}", "data.share_real=1"]))
    assert np.asarray(train.label_length).tolist() == [1, 2, 3, 3, 3, 3, 3, 3]
    assert report == "9 real words, 1 of them held out; 1 left out: turned on its side"


def test_too_few_words_are_refused(tmp_path):
    path = write_folder(tmp_path / "real", ["1", "2"])
    others = write_folder(tmp_path / "others", ["3"])  # with other words to validate on, the tenth may be empty
    settings = [f"data.real={path}", "data.share_real=1"]
    train, tenth, _ = load_real(override(toy_config(), [*settings, f"data.validation={others}"]))
    assert (len(train.image), tenth) == (2, None)
    with pytest.raises(DatasetError, match="real: none of the 2 usable words is in the last tenth"):
        load_real(override(toy_config(), [f"data.real={path}", "data.share_real=1"]))


def test_damaged_words_are_left_out_up_to_a_limit(tmp_path):
    path = write_folder(tmp_path / "real", ["1"] * 20)
    image = tmp_path / "real" / "3.png"
    image.write_bytes(b"none")
    settings = [f"data.real={path}", "data.share_real=1", f"data.validation={path}"]
    with pytest.raises(
        DatasetError, match=f"{path}: 1 of 20 words are damaged, more than .* = 0.01; the first: {image}"
    ):
        load_real(override(toy_config(), settings))
    config = override(toy_config(), [*settings, "data.max_damaged=0.05"])
    train, tenth, report = load_real(config)
    assert (len(train.image), len(tenth.image)) == (17, 2)
    assert report == "19 real words, 2 of them not used, since data.validation is set; 1 left out: damaged"
    words, report = load_validation(config)
    assert len(words.image) == 19 and report == "19 words to validate on; 1 left out: damaged"


def test_a_share_goes_with_real_words_and_comes_in_quarters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "xy":
        write_folder(tmp_path / name, ["1"])
    with pytest.raises(ConfigError, match="share_real = 0.3: expected 0, 0.25, 0.5, 0.75 or 1"):
        override(toy_config(), ["data.real=x", "data.share_real=0.3"])
    with pytest.raises(ConfigError, match="data.real names real words, but data.share_real = 0"):
        words.load_words(override(toy_config(), ["data.real=x"]))
    for path in ("./x", f"{tmp_path}/x", "x/labels.tsv"):
        options = ["data.real=y, x", "data.share_real=0.5", f"data.validation={path}"]
        with pytest.raises(ConfigError, match=f"data.validation has {path}, which is also trained on: it would meas"):
            words.load_words(override(toy_config(), options))
        with pytest.raises(ConfigError, match=f"data.real has {path} twice, or another dataset that shares"):
            words.load_words(override(toy_config(), [f"data.real=x,y,{path}", "data.share_real=0.5"]))
    with pytest.raises(ConfigError, match="data.real = .*: expected each dataset only once"):
        override(toy_config(), ["data.real=x,x"])
    with pytest.raises(ConfigError, match="data.share_real = 0.5, but there are no real words"):
        words.load_words(override(toy_config(), ["data.share_real=0.5"]))


def test_a_batch_is_the_same_on_one_device_and_on_four(config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "load_source", toy_source)
        patch.setattr(words, "synth_batch", toy_words)
        loaded, reports = words.load_words(config)
        assert reports == ["40 real words, 4 of them held out"]

        def draw(first_index, size):
            return words.train_batch(KEY, loaded, first_index, config=config, size=size)

        whole = draw(jnp.int32(0), 64)
        pieces = [draw(jnp.int32(first), 16) for first in range(0, 64, 16)]
    rendered = np.concatenate([np.asarray(piece.image[:8]) for piece in pieces])
    real = np.concatenate([np.asarray(piece.image[8:]) for piece in pieces])
    np.testing.assert_array_equal(whole.image[:32], rendered)
    np.testing.assert_array_equal(whole.image[32:], real)
    assert len({image.tobytes() for image in real}) == 32


def test_a_charset_with_a_space_is_refused(config):
    with pytest.raises(ConfigError, match="model.charset has a space, but spaces are removed from labels"):
        words.load_words(replace(config, model=replace(config.model, charset="01 ")))


def test_real_words_have_keys_of_their_own():
    key = jax.random.key(5)
    rendered, real = jax.random.split(key), jax.random.fold_in(key, words.REAL)
    assert all(not np.array_equal(jax.random.key_data(k), jax.random.key_data(real)) for k in rendered)


def test_augmentation_moves_an_image_a_little(config):
    train, tenth, _ = load_real(config)
    batch = real_batch(KEY, train, batch_size=32, style=PLAIN)
    assert not {row.tobytes() for row in np.asarray(batch.label)} & {row.tobytes() for row in np.asarray(tenth.label)}
    image = jnp.asarray(np.kron(np.random.default_rng(1).integers(0, 256, (4, 10)), np.ones((8, 10))), jnp.uint8)
    warped = jax.vmap(lambda key: augment(key, image, style=PLAIN))(jax.random.split(KEY, 64))
    likeness = [abs(np.corrcoef(np.ravel(image), np.ravel(w))[0, 1]) for w in np.asarray(warped)]
    assert 0.5 < np.median(likeness) < 0.999 and len({w.tobytes() for w in np.asarray(warped)}) == 64


def test_a_run_fine_tunes_on_them_and_its_best_checkpoint_is_by_them(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "build", toy_model)
    monkeypatch.setattr(words, "load_source", toy_source)
    monkeypatch.setattr(words, "synth_batch", toy_words)
    result = loop.train(override(config, ["run.batch_size=128"]), tmp_path / "run")
    assert result["count"] == 4 and result["rendered_count"] == 40
    out = capsys.readouterr().out
    assert (
        "40 real words, 4 of them held out" in out
        and " of 4 samples\n" in out
        and "of 4 held-out real words read right" in out
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "rendered_word_accuracy" in next(line for line in lines if line["split"] == "held_out")
    assert loop.train(override(config, ["run.batch_size=128"]), tmp_path / "run") == result

    moved = shutil.copytree(config.data.real[0], tmp_path / "moved")  # another path, the same words
    elsewhere = override(config, [f"data.real={moved}", "run.batch_size=128"])
    assert loop.train(elsewhere, tmp_path / "run") == result
    for settings in (["data.validation=other"], ["data.real=", "data.share_real=0"]):  # no checksums to compare
        with pytest.raises(
            CheckpointError, match=f"holds a run with another configuration: .*{settings[0].split('=')[0]}"
        ):
            loop.train(override(elsewhere, settings), tmp_path / "run")
    labels = moved / "labels.tsv"
    labels.write_text(labels.read_text().replace("\t100", "\t109", 1))
    with pytest.raises(
        CheckpointError, match=r"real words: 36 \(\w+\) before, 36 \(\w+\) now: resume with the same files"
    ):
        loop.train(elsewhere, tmp_path / "run")


def test_no_rendered_words_are_held_out_of_a_charset_that_cannot_spell_them(config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "build", toy_model)
    monkeypatch.setattr(words, "load_source", toy_source)
    digits = override(config, ["data.share_real=1", "data.share_digits=0", "data.share_random=0", "run.batch_size=128"])
    result = loop.train(digits, tmp_path / "run")
    assert result["count"] == 4 and not [name for name in result if name.startswith("rendered")]
