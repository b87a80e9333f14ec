"""A lexicon makes its words likelier, and no others impossible."""

import math

import pytest

from crnn_jax.lexicon import Lexicon, LexiconError, core, load_lexicon


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Word", "word"), ('"WORD!"', "word"), ("Women's", "women"), ("it's", "it"), ("24.50", "24.50"), ("-", "")],
)
def test_what_is_looked_up(text, expected):
    assert core(text) == expected


def test_an_apostrophe_is_one_however_it_is_set():
    lexicon = Lexicon.of(["don’t", "boss’s"])
    assert all(text in lexicon for text in ("don't", "DON’T", "dont", "boss", "boss's")) and "bosss" not in lexicon


def test_an_accent_is_one_however_it_is_typed():
    assert all(text in Lexicon.of([word]) for text in ("café", "Cafe\u0301") for word in ("CAFÉ", "cafe\u0301"))


def test_a_word_with_marks_is_known_without_them_too():
    lexicon = Lexicon.of(["O'Neill", "AB-1234", "New York"])
    assert all(text in lexicon for text in ("o'neill", "ONEILL", "ab-1234", "ab1234", "newyork"))
    assert "new.york" not in lexicon and "a-b1234" not in lexicon


def test_its_words_count_as_likelier():
    lexicon = Lexicon.of(["Hotel", "bar"], bonus=0.4)  # nats per character: 2 for Hotel
    assert "HOTEL." in lexicon and "hotels" not in lexicon
    texts, log_probs = ["h0tel", "hotel", "hote1"], [-0.5, -1.5, -3.0]
    place, share = lexicon.choose(texts, log_probs)
    assert texts[place] == "hotel"
    assert share == pytest.approx(math.exp(0.5) / (math.exp(0.5) + math.exp(-0.5) + math.exp(-3.0)))
    assert lexicon.choose(texts, log_probs, temperature=1e9) == (place, pytest.approx(1 / 3))
    assert lexicon.scores(["h0tel", "'Bar'"], [-1.0, -2.0]) == [-1.0, pytest.approx(-0.8)]
    place, share = lexicon.choose(texts, [-0.5, -2.6, -math.inf])  # further apart than the bonus
    assert texts[place] == "h0tel"
    assert share == pytest.approx(math.exp(-0.5) / (math.exp(-0.5) + math.exp(-0.6)))


def test_a_file_of_words(tmp_path):
    (tmp_path / "words.txt").write_text("Zürich Bern\n\nGenf\n", encoding="utf-8")
    assert load_lexicon(str(tmp_path / "words.txt")).words == {"zürich", "bern", "genf"}
    (tmp_path / "words.txt").write_text("Bern\n", encoding="utf-8-sig")  # as Notepad writes it
    assert load_lexicon(str(tmp_path / "words.txt")).words == {"bern"}


@pytest.mark.parametrize("bonus", [math.inf, math.nan])
def test_a_bonus_is_a_number(bonus):
    with pytest.raises(LexiconError, match=f"bonus = {bonus}: expected a number of nats"):
        Lexicon.of(["word"], bonus=bonus)


def test_a_single_word_is_no_list():
    with pytest.raises(TypeError, match=r"a list of words, even for one: \[word\]"):
        Lexicon.of("word")


def test_the_english_one_has_words():
    lexicon = load_lexicon("english")
    assert len(lexicon.words) > 100_000
    assert "Restaurant" in lexicon and "restaurnat" not in lexicon


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory; a lexicon is a file of words, or 'english'"),
        (b" \n", "a lexicon needs at least one word"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(tmp_path, content, message):
    path = tmp_path / "words"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LexiconError) as error:
        load_lexicon(str(path))
    assert str(error.value) == f"{path}: {message}"
