"""Closed lists of words: how they are spelled, and which of them an image shows."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small import load_script, noise_images, save_small

import crnn_jax
from crnn_jax.charset import Charset
from crnn_jax.ctc import ctc_loss
from crnn_jax.lexicon import LexiconError
from crnn_jax.wordlist import WordList, load_word_list

evaluate, read = load_script("evaluate"), load_script("read")
LOWER, BOTH = Charset.of("36"), Charset.of("94")


def spellings(words: WordList, charset: Charset) -> list[list[str]]:
    """Of each word."""
    ends = [*words.starts[1:], np.count_nonzero(words.lengths)]
    rows = [charset.decode(row[:n]) for row, n in zip(words.labels, words.lengths, strict=True)]
    return [rows[start:end] for start, end in zip(words.starts, ends, strict=True)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def reader(model):
    return crnn_jax.load(model)


def test_a_word_is_spelled_in_every_case_that_the_charset_has():
    words = WordList.of(["McCoy", "12", "don't", "EXIT", "exit"], BOTH)
    assert words.words == ("McCoy", "12", "don't", "EXIT")
    first, *others = spellings(words, BOTH)
    assert first == ["McCoy", "mccoy", "MCCOY", "Mccoy"]
    assert others == [["12"], ["don't", "DON'T", "Don't"], ["EXIT", "exit", "Exit"]]
    assert spellings(WordList.of(["McCoy", "don't", "New York"], LOWER), LOWER) == [["mccoy"], ["dont"], ["newyork"]]


def test_words_whose_letters_the_charset_lacks_are_left_out_and_told():
    words = WordList.of(["Öl", "Ol", "&", "Öl"], LOWER)
    assert words.words == ("Ol",) and words.left_out == ("Öl", "&")
    assert words.warning == "the model lacks characters of 2 of 3 words, which it will never read: 'Öl', '&'"
    assert WordList.of(["a"], LOWER).warning == ""
    for given, message in (
        ([], "there is no word$"),
        (["Öl", "&"], "there is no word that the model can spell, as 'Öl', '&'$"),
        ("word", r"expected a list of words, also of one: \[word\]"),
    ):
        with pytest.raises(LexiconError, match=message):
            WordList.of(given, LOWER)


def test_lists_of_like_sizes_have_one_shape():
    few, more = WordList.of(["a"], LOWER), WordList.of([f"word{i}" for i in range(16)], LOWER)
    assert few.labels.shape == more.labels.shape == (16, 16)
    assert WordList.of([f"word{i}" for i in range(33)], LOWER).labels.shape == (64, 16)
    assert WordList.of(["x" * 17], LOWER).labels.shape == (16, 32)


def test_a_file_has_a_word_a_line(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("\ufeffParis\r\n\nNew York \n", encoding="utf-8")
    assert load_word_list(file, LOWER).words == ("Paris", "New York")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(LexiconError, match=f"{file}: not a text in UTF-8"):
        load_word_list(file, LOWER)
    with pytest.raises(LexiconError, match="none: No such file or directory; expected a file with a word a line"):
        load_word_list(tmp_path / "none", LOWER)


def test_looks_and_spellings_add_up():
    words = WordList.of(["I", "on", "no"], LOWER)
    looks = np.full((3, 1, words.labels.shape[0]), -np.inf)
    looks[0, 0, :3] = np.log([0.2, 0.1, 0.05])
    looks[1, 0, :3] = np.log([0.9, 0.05, 0.3])  # turned: a single character does not count
    looks[2, 0, [0, 2]] = np.log([0.9, 0.1])
    assert words.choose([looks[0]]) == ("I", pytest.approx(0.2 / 0.35))
    assert words.choose(list(looks)) == ("no", pytest.approx(0.45 / 0.8))
    assert words.choose(list(looks), temperature=2.0).confidence < words.choose(list(looks)).confidence
    assert words.choose(list(np.full_like(looks, -np.inf))) == ("", 0.0)
    both = WordList.of(["in", "on"], BOTH)
    looks = np.full((1, 2, both.labels.shape[0]), -50.0)
    looks[0, 0, :6] = np.log([0.35, 0.05, 0.0001, 0.2, 0.2, 0.1])  # no spelling of on is likelier than in
    assert both.choose(list(looks)) == ("on", pytest.approx(0.5 / 0.9001))
    assert both.choose(list(looks[:, ::-1])) == both.choose(list(looks))


def test_the_word_of_least_loss_is_read(reader):
    """Of words of one spelling; that it is not the word that would be read without them is the point."""
    given = ["39", "zebra", "a", "0"]
    words = WordList.of(given, reader.charset)
    images = noise_images(5)
    readings = reader.choose(images, given)
    for image, reading in zip(images, readings, strict=True):
        [logits] = reader.logits([reader.fit(image)])
        rows = jnp.broadcast_to(logits, (len(words.labels), *logits.shape))
        loss, _ = ctc_loss(rows, jnp.asarray(words.labels), jnp.asarray(words.lengths))
        of_words = np.logaddexp.reduceat(-np.asarray(loss)[: np.count_nonzero(words.lengths)], words.starts)
        assert reading.text == given[of_words.argmax()]
        shares = jax.nn.softmax(of_words / reader.lexicon_temperature)
        assert reading.confidence == pytest.approx(float(shares.max()), rel=1e-3)
    assert {reading.text for reading in readings} - {reading.text for reading in reader.read(images)}
    assert reader.choose(images[:1], words)[0].text == readings[0].text
    assert len(reader.choose([np.rot90(images[0])], given, thorough=True)) == 1
    with pytest.raises(TypeError, match=r"expected a list of images, also of one: \[image\]"):
        reader.choose("word.png", given)


def test_scripts_read_among_the_words_of_a_file(model, reader, tmp_path, capsys):
    folder, file, table = tmp_path / "data", tmp_path / "words.txt", tmp_path / "table.json"
    folder.mkdir()
    images = noise_images(4)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    given = ["Zebra", "on", "Öl"]
    file.write_text("\n".join(given), encoding="utf-8")
    texts = [reading.text for reading in reader.choose(images, given)]
    (folder / "labels.tsv").write_text("".join(f"{i}.png\t{text.upper()}\n" for i, text in enumerate(texts)))
    told = f"{file}: the model lacks characters of 1 of 3 words, which it will never read: 'Öl'\n"

    assert read.main([str(folder), "--model", str(model), "--among", str(file)]) == 0
    out, err = capsys.readouterr()
    assert [line.split("\t")[1] for line in out.splitlines()] == texts and err == f"read.py: {told}"

    arguments = ["--model", str(model), "--data", str(folder)]
    assert evaluate.main([*arguments, "--among", str(file), "--json", str(table)]) == 0
    assert capsys.readouterr().err == f"evaluate.py: {told}"
    whole = json.loads(table.read_text())
    assert whole["datasets"]["data"]["word_accuracy"] == 100 and whole["compared"]["among"] == str(file)

    for name, script, options in (("read", read, [str(folder)]), ("evaluate", evaluate, arguments)):
        assert script.main([*options, "--model", str(model), "--among", str(tmp_path / "none")]) == 1
        assert capsys.readouterr().err.startswith(f"{name}.py: {tmp_path}/none: No such file or directory; expected")
        with pytest.raises(SystemExit):
            script.main([*options, "--among", str(file), "--lexicon", "english"])
        assert "either --lexicon, whose words are likelier, or --among" in capsys.readouterr().err
