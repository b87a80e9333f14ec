import functools
import itertools
import math

import pytest

from crnn_jax.metrics import Score, edit_distance, normalise, score_compared, wilson_interval


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "abc", 0),
        ("kitten", "sitting", 3),
        ("flaw", "lawn", 2),
        ("ab", "ba", 2),
        ("intention", "execution", 5),
    ],
)
def test_edit_distance_of_known_pairs(a, b, distance):
    assert edit_distance(a, b) == distance
    assert edit_distance(b, a) == distance


def test_edit_distance_is_its_recursive_definition():
    @functools.cache
    def definition(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        same = definition(a[1:], b[1:])
        return same if a[0] == b[0] else 1 + min(same, definition(a[1:], b), definition(a, b[1:]))

    words = ["".join(letters) for n in range(5) for letters in itertools.product("ab", repeat=n)]
    for a, b in itertools.product(words, words):
        assert edit_distance(a, b) == definition(a, b), (a, b)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "itscafe24"),
        ({"cased": True}, "ItsCafe24"),
        ({"punctuation": True}, "it's-cafe24!"),
        ({"cased": True, "punctuation": True}, "It's-Cafe24!"),
    ],
)
def test_the_protocol(options, expected):
    assert normalise("It's -\tCafeé 24!´", **options) == expected


def score_words(predictions, truths, confidences, **protocol):
    """Scores words as an evaluation does: both brought to the form that is compared."""
    compared = functools.partial(normalise, **protocol)
    return score_compared(map(compared, predictions), map(compared, truths), confidences)


def test_a_score_by_hand():
    score = score_words(["Hello", "w0rld", "abc", ""], ["hello!", "world", "", "a-b"], [1.0, 0.5, 0.25, 0.25])
    # distances 0, 1, 3, 2; longer lengths 5, 5, 3, 2
    assert score == Score(count=4, correct=1, ned_sum=1 + 0.8 + 0 + 0, edits=6, characters=12, confidence_sum=2.0)
    assert score.word_accuracy == 25
    assert score.one_minus_ned == pytest.approx(45)
    assert score.cer == 50
    assert score.confidence == 0.5


def test_two_empty_words_are_equal():
    score = score_words(["", "?"], ["", " "], [0.5, 0.5])
    assert (score.word_accuracy, score.one_minus_ned) == (100, 100)


def test_cased_and_punctuation_are_compared_where_asked():
    assert score_words(["It's"], ["its"], [1.0]).correct == 1
    assert score_words(["It's"], ["its"], [1.0], cased=True).correct == 0
    assert score_words(["It's"], ["its"], [1.0], punctuation=True).edits == 1
    assert score_words(["It's"], ["its"], [1.0], cased=True, punctuation=True).edits == 2


def test_letters_beyond_ascii_count_where_the_charset_has_them():
    charset = "αβγδÄ\u0e33\u0e48’"
    assert normalise("Αβ’x", charset=charset) == "αβx"
    assert normalise("Αβ’x", charset=charset, cased=True, punctuation=True) == "β’x"
    assert normalise("ä\u0e33\u0e48é", charset=charset) == "ä\u0e33\u0e48"
    assert score_words(["αβ"], ["γδ"], [1.0], charset=charset).word_accuracy == 0
    assert score_words(["Αβ"], ["αβ’"], [1.0], charset=charset).word_accuracy == 100


def test_ways_to_type_the_same_label_are_one():
    assert normalise("Cafe\u0301", charset="acefé") == "café" == normalise("café", charset="acefé")
    assert normalise("cafe\u0301") == normalise("café") == "caf"
    assert normalise("It’s—“a”", punctuation=True) == 'it\'s-"a"'
    assert normalise("It’s", charset="its’", punctuation=True) == "it’s"


def test_the_ratios_of_nothing_are_nan():
    score = score_words([], [], [])
    assert score == Score()
    assert all(math.isnan(x) for x in (score.word_accuracy, score.one_minus_ned, score.cer, score.confidence))


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="argument 2 is longer"):
        score_words(["a"], ["a", "b"], [1.0, 1.0])


def test_the_interval_of_a_share():
    low, high = wilson_interval(8, 10)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson 1927, as tables have it
    assert wilson_interval(0, 5)[0] == 0 and wilson_interval(5, 5)[1] == 1
    assert all(map(math.isnan, wilson_interval(0, 0)))
