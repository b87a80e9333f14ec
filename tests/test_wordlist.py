"""Closed lists of words: how they are spelled, and which of them an image shows."""

import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small import assert_same, load_script, noise_images

from crnn_jax.charset import Charset
from crnn_jax.ctc import ctc_loss, text_log_probs
from crnn_jax.lexicon import LexiconError
from crnn_jax.wordlist import WordList, load_words, load_words_or_lists

evaluate, read = load_script("evaluate"), load_script("read")
LOWER, BOTH = Charset.of("36"), Charset.of("94")


def spellings(words: WordList, charset: Charset) -> list[list[str]]:
    """The spellings of each word."""
    ends = [*words.starts[1:], len(words.lengths)]
    rows = [charset.decode(row[:n]) for row, n in zip(words.labels, words.lengths, strict=True)]
    return [rows[start:end] for start, end in zip(words.starts, ends, strict=True)]


def test_a_word_is_spelled_in_every_case_that_the_charset_has():
    words = WordList.of(["McCoy", "12", "don't", "EXIT", "exit", "new york"], BOTH)
    assert words.words == ("McCoy", "12", "don't", "EXIT", "new york")
    first, *others, last = spellings(words, BOTH)
    assert first == ["McCoy", "mccoy", "MCCOY", "Mccoy"] and last == ["newyork", "NEWYORK", "NewYork"]
    assert others == [["12"], ["don't", "DON'T", "Don't"], ["EXIT", "exit", "Exit"]]
    assert spellings(WordList.of(["McCoy", "don't", "New York"], LOWER), LOWER) == [["mccoy"], ["dont"], ["newyork"]]


def test_what_a_model_cannot_spell_is_told():
    words = WordList.of(["Öl", "Ol", "&", "Öl", "ÖL", "x" * 13, "xyz" * 8], LOWER, frames=24)
    assert words.words == ("Ol", "xyz" * 8) and words.unread == ("Öl", "&", "ÖL", "x" * 13)  # a blank between two x
    assert list(words.warnings()) == ["4 of 6 words cannot be spelled by the model: 'Öl', '&', 'ÖL', ..."]
    assert list(WordList.of(["a"], LOWER).warnings()) == []
    for given, error, message in (
        ([], LexiconError, "^the list has no words$"),
        (["Öl", "&"], LexiconError, "^the model can spell none of the words: 'Öl', '&'$"),
        ("word", TypeError, r"expected a list of words, even for one: \[word\]"),
    ):
        with pytest.raises(error, match=message):
            WordList.of(given, LOWER)


def test_of_words_that_are_spelled_alike_one_is_read():
    words = WordList.of(["C++", "C", "c", "-5", "5", "it’s", "its'"], LOWER)
    assert words.words == ("C", "5", "it’s")
    assert words.taken_for == (("C++", "C"), ("-5", "5"), ("its'", "it’s"))
    told = (
        "3 of 6 words are spelled like others, since the charset lacks some marks: "
        "'C++' as 'C', '-5' as '5', 'its'' as 'it’s'"
    )
    assert list(words.warnings()) == [told.replace("'its''", '"its\'"')]
    assert WordList.of(["C++", "C", "C#"], BOTH).taken_for == ()
    german = Charset.of("straßeSTRAE")
    assert spellings(WordList.of(["straße"], german), german) == [["straße", "Straße"]]  # STRASSE is another word
    composed = WordList.of(["DON’T", "e\u0301"], Charset.of("DONT'é"))
    assert spellings(composed, composed.charset) == [["DON'T"], ["é"]]


def test_spellings_are_grouped_by_length_and_lists_of_like_sizes_have_one_shape():
    def shapes(*groups):
        words = [f"{i:0{length}}" for count, length in groups for i in range(count)]
        return [labels.shape for labels, _ in WordList.of(words, LOWER).groups]

    assert shapes((1, 3)) == shapes((16, 4)) == [(16, 4)]
    assert shapes((33, 8), (1, 17)) == shapes((1, 20), (48, 5)) == [(48, 8), (16, 20)]
    assert shapes((17, 9)) == [(32, 12)] and shapes((1025, 4)) == shapes((1280, 4)) == [(1280, 4)]
    words = WordList.of(["a" * 20, "b", "c" * 12, "d" * 8], LOWER)
    rows = np.concatenate([np.pad(labels, ((0, 0), (0, 20 - labels.shape[1]))) for labels, _ in words.groups])
    np.testing.assert_array_equal(rows[words.places], words.labels)
    np.testing.assert_array_equal(np.concatenate([lengths for _, lengths in words.groups])[words.places], words.lengths)


def test_a_file_has_a_word_a_line(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("\ufeffParis\r\n\nNew York \n", encoding="utf-8")
    assert load_words(file) == ["Paris", "New York"]
    for content, message in (
        (b"\xff\xfe", "not UTF-8 text"),
        (b"0.png\tParis\tRome\n", r"expected one word per line and nothing else, got '0.png\\tParis\\tRome'"),
        (b"0.png\tParis\n", r"expected one word per line, or several per image, not its label: '0.png\\tParis'"),
        (b"\n", "the file has no words"),
    ):
        file.write_bytes(content)
        with pytest.raises(LexiconError, match=f"{file}: {message}"):
            load_words(file)
    with pytest.raises(LexiconError, match="none: No such file or directory; expected a file with one word per line"):
        load_words(tmp_path / "none")


def test_looks_and_spellings_add_up():
    words = WordList.of(["I", "on", "no"], LOWER)
    looks = np.full((3, 1, words.labels.shape[0]), -np.inf)
    looks[0, 0] = np.log([0.2, 0.1, 0.05])
    looks[1, 0] = np.log([0.9, 0.05, 0.3])  # turned: a single character does not count
    looks[2, 0, [0, 2]] = np.log([0.9, 0.1])
    assert words.choose([looks[0]]) == ("I", pytest.approx(0.2 / 0.35))
    assert words.choose(list(looks)) == ("no", pytest.approx(0.45 / 0.8))
    assert words.choose(list(np.full_like(looks, -np.inf))) == ("", 0.0)
    both = WordList.of(["in", "on"], BOTH)
    looks = np.full((1, 2, both.labels.shape[0]), -50.0)
    looks[0, 0] = np.log([0.35, 0.05, 0.0001, 0.2, 0.2, 0.1])  # no spelling of on is likelier than in
    assert both.choose(list(looks)) == ("on", pytest.approx(0.5 / 0.9001))
    assert both.choose(list(looks[:, ::-1])) == both.choose(list(looks))


def test_the_word_of_least_loss_is_read(reader):
    """Over all spellings of a word; some of these words are not what would be read without a list."""
    given = ["39", "zebra", "a", "0"]
    words = WordList.of(given, reader.charset)
    images = noise_images(5)
    readings = reader.choose(images, given)
    for image, reading in zip(images, readings, strict=True):
        [logits] = reader.logits([reader.fit(image)])
        rows = jnp.broadcast_to(logits, (len(words.labels), *logits.shape))
        loss, _ = ctc_loss(rows, jnp.asarray(words.labels), jnp.asarray(words.lengths))
        of_words = np.logaddexp.reduceat(-np.asarray(loss), words.starts)
        assert reading.text == given[of_words.argmax()]
        shares = jax.nn.softmax(of_words)
        assert reading.confidence == pytest.approx(float(shares.max()), rel=1e-3)
    assert {reading.text for reading in readings} - {reading.text for reading in reader.read(images)}
    assert reader.choose(images[:1], words)[0].text == readings[0].text
    with pytest.raises(ValueError, match="made for a model with another charset"):
        reader.choose(images, WordList.of(given, LOWER))
    with pytest.raises(TypeError, match=r"expected a list of images, even for one: \[image\]"):
        reader.choose("word.png", given)


def test_every_look_at_an_image_counts(reader):
    images = [np.rot90(image) if i % 2 else image for i, image in enumerate(noise_images(4))]
    given = ["39", "1", "0"]  # of one spelling each
    together = reader.choose(images, given, thorough=True)
    assert_same(together, [reader.choose([image], given, thorough=True)[0] for image in images])
    words = reader.word_list(given)
    score = jax.jit(text_log_probs)
    for image, reading in zip(images, together, strict=True):
        total = np.full(len(given), -np.inf)  # logarithms
        for turn, margins in enumerate(reader.views(image, thorough=True)):
            for logits in reader.logits(margins):
                found = score(jnp.asarray(logits), jnp.asarray(words.labels), jnp.asarray(words.lengths))
                total = np.logaddexp(total, np.where((words.lengths > 1) | (turn == 0), found, -np.inf))
        assert reading.text == given[total.argmax()]
        assert reading.confidence == pytest.approx(float(jax.nn.softmax(total).max()), rel=1e-3)


def test_each_image_is_read_among_words_of_its_own(reader, tmp_path):
    """As `choose` reads each alone; a tall one, too, with all of its views."""
    images = [np.rot90(image) if i == 1 else image for i, image in enumerate(noise_images(3))]
    own = [["39", "zebra", "on"], ["a", "1", "0 1"], ["C", "C++"]]
    alone = [reader.choose([image], words, thorough=True)[0] for image, words in zip(images, own, strict=True)]
    assert_same(reader.choose_each(iter(images), iter(own), thorough=True), alone)
    damaged = [images[0], tmp_path / "none.png", images[2]]
    assert reader.choose_each(damaged, own, damaged_ok=True)[1] is None
    with pytest.raises(ValueError, match="2 lists of words for 3 images"):
        reader.choose_each(images, own[:2])
    with pytest.raises(TypeError, match="expected a list of words for each image"):
        inspect.unwrap(type(reader).choose_each)(reader, images, ["a", "b", "c"])
    with pytest.raises(LexiconError, match="the model can spell none of the words: 'Ö'"):
        reader.choose_each(images, [*own[:2], ["Ö"]])


def test_a_file_of_words_by_image(tmp_path):
    file = tmp_path / "words.tsv"
    file.write_text("\ufeffa.png\tParis\tNew York\r\n\nb/c.png\tRome\t\n", encoding="utf-8")
    assert load_words_or_lists(file) == {"a.png": ["Paris", "New York"], "b/c.png": ["Rome"]}
    file.write_text("Paris\nRome")
    assert load_words_or_lists(file) == ["Paris", "Rome"]
    for content, message in (
        ("a\tb\tc\nParis\n", "an image without words: 'Paris'"),
        ("a\tb\tc\na\tc", "a is listed twice"),
    ):
        file.write_text(content)
        with pytest.raises(LexiconError, match=f"{file}: {message}"):
            load_words_or_lists(file)


def test_evaluate_reads_each_image_among_its_own_words(model, reader, tmp_path, capsys):
    folder, file, table = tmp_path / "data", tmp_path / "words.tsv", tmp_path / "table.json"
    folder.mkdir()
    images, own = noise_images(3), [["39", "zebra"], ["on", "Off"], ["a", "b", "c"]]
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    texts = [reading.text for reading in reader.choose_each(images, own)]
    labels = [texts[0].upper(), "neither", texts[2]]
    (folder / "labels.tsv").write_text("".join(f"{i}.png\t{label}\n" for i, label in enumerate(labels)))
    lines = [f"{i}.png\t" + "\t".join(words) for i, words in enumerate(own)]
    file.write_text("\n".join(lines))
    arguments = ["--model", str(model), "--data", str(folder), "--among", str(file)]
    assert evaluate.main([*arguments, "--json", str(table), "--html", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().err == f"evaluate.py: data: 1 labels are not among the words of {file}\n"
    row = json.loads(table.read_text())["datasets"]["data"]
    assert row["count"] == 3 and row["word_accuracy"] == pytest.approx(100 * 2 / 3)
    assert f"only each image&#x27;s own words of {file} can be read" in (tmp_path / "page.html").read_text()
    file.write_text("\n".join([*lines[:2], "x.png\tÖ\tÄ"]))
    assert evaluate.main(arguments) == 0  # of an image without words nothing is read
    out, err = capsys.readouterr()
    assert float(out.splitlines()[1].split()[2]) == pytest.approx(33.33)
    assert err == (
        f"evaluate.py: {file}: 2 of 6 words cannot be spelled by the model\n"
        f"evaluate.py: data: 2 labels are not among the words of {file}\n"
    )
    for among, data, message in (
        (folder / "labels.tsv", [folder], f"{folder}/labels.tsv is part of --data"),
        (file, [folder, "rendered"], f"{file} has a list for each image of one dataset: give a single --data"),
    ):
        given = ["--model", str(model), "--among", str(among), "--data", *map(str, data)]
        assert evaluate.main(given) == 1
        assert capsys.readouterr().err.startswith(f"evaluate.py: {message}")


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
    told = f"{file}: 1 of 3 words cannot be spelled by the model: 'Öl'\n"

    assert read.main([str(folder), "--model", str(model), "--among", str(file)]) == 0
    out, err = capsys.readouterr()
    assert [line.split("\t")[1] for line in out.splitlines()] == texts and err == f"read.py: {told}"

    arguments = ["--model", str(model), "--data", str(folder)]
    assert evaluate.main([*arguments, "--among", str(file), "--json", str(table)]) == 0
    assert capsys.readouterr().err == f"evaluate.py: {told}"
    assert evaluate.main([*arguments, "--among", str(file), "--html", str(tmp_path / "page.html")]) == 0
    assert f"only the 2 words of {file} can be read" in (tmp_path / "page.html").read_text()
    (folder / "labels.tsv").write_text((folder / "labels.tsv").read_text() + "0.png\tneither\n")
    assert evaluate.main([*arguments, "--among", str(file), "--punctuation"]) == 0
    assert capsys.readouterr().err.endswith(f"evaluate.py: data: 1 labels are not among the words of {file}\n")
    whole = json.loads(table.read_text())
    assert whole["datasets"]["data"]["word_accuracy"] == 100 and whole["compared"]["among"] == str(file)

    for name, script, options in (("read", read, [str(folder)]), ("evaluate", evaluate, arguments)):
        assert script.main([*options, "--model", str(model), "--among", str(tmp_path / "none")]) == 1
        assert capsys.readouterr().err.startswith(f"{name}.py: {tmp_path}/none: No such file or directory; expected")
        with pytest.raises(SystemExit):
            script.main([*options, "--among", str(file), "--lexicon", "english"])
        assert "choose either --lexicon, which prefers its words, or --among" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate.main([*arguments, "--among", str(file), "--cased"])
    assert "--cased does not work with --among" in capsys.readouterr().err
