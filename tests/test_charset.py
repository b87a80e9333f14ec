import string

import numpy as np
import pytest

from crnn_jax.charset import PRESETS, Charset, respell


def test_presets_have_the_sizes_of_their_names():
    assert {name: len(characters) for name, characters in PRESETS.items()} == {"36": 36, "62": 62, "94": 94}
    assert set(PRESETS["94"]) == set(string.printable) - set(string.whitespace)
    assert Charset.of("36").num_classes == 37


def test_class_ids_start_behind_the_blank():
    charset = Charset.of("36")
    assert charset.encode("09az") == [1, 10, 11, 36]
    assert Charset.of("94").encode("aAzZ") == [11, 37, 36, 62]
    assert charset.encode("") == []


def test_any_string_is_a_charset():
    charset = Charset.of("äß0")
    assert charset.characters == "äß0"
    assert charset.encode("ß0ä") == [2, 3, 1]


@pytest.mark.parametrize("name", PRESETS)
def test_decode_undoes_encode(name):
    charset = Charset.of(name)
    text = charset.characters[::-1] + charset.characters
    assert charset.decode(charset.encode(text)) == text


def test_decode_skips_blanks_and_keeps_repeats():
    charset = Charset.of("36")
    assert charset.decode([0, 11, 11, 0, 12, 0]) == "aab"
    assert charset.decode(np.array([11, 12, 0, 0], np.int32)) == "ab"
    assert charset.decode([]) == ""


@pytest.mark.parametrize("ids", [[37], [1, -1]])
def test_decode_refuses_ids_without_a_class(ids):
    with pytest.raises(ValueError, match="from 0 to 36"):
        Charset.of("36").decode(ids)


def test_encode_names_the_unknown_characters_once_each():
    with pytest.raises(ValueError, match=r"label 'A-b-A' has characters outside the charset: '-' 'A'$"):
        Charset.of("36").encode("A-b-A")


def test_fold_takes_the_case_of_a_charset_that_has_but_one():
    assert Charset.of("36").fold("It's MINE") == "it's mine"
    assert Charset.of("62").fold("It's") == "It's"
    assert Charset("0123456789ABCD").fold("a1-x") == "A1-x"  # number plates
    assert Charset("0123456789").fold("It") == "It"
    assert Charset("ABEGRSTUß").fold("Straße") == "STRAßE"  # letter by letter
    assert Charset("οδσς").fold("ΟΔΟΣ") == "οδος" and Charset("ΟΔΣ").fold("οδος") == "ΟΔΟΣ"
    assert Charset("iıstanbul").fold("İSTANBUL") == "istanbul"


@pytest.mark.parametrize(
    ("text", "characters", "expected"),
    [
        ("cafe\u0301", "abcdeé", "café"),
        *((label, "acfe\u0301", label) for label in ("cafe\u0301", "Cafe\u0301", "cafe\u0301 .")),  # keeps the accent
        ("CAFE\u0301", "acfé", "CAFÉ"),
        ("\u0958 \u0915", "\u0915\u0958", "\u0958 \u0915"),
        ("\u0958 \u0915", "\u0915\u093c", "\u0915\u093c \u0915"),
        ("e\u0301a\u0300", "é", "éà"),
        ("\u0e01\u0e33", "\u0e01\u0e33", "\u0e01\u0e33"),
        ("“It’s”–‚so‘", "its'", "\"It's\"-'so'"),
        ("It’s", "its’", "It’s"),
        ("naïve", "naive", "naïve"),  # ï is another letter
        ("plain", "", "plain"),
    ],
)
def test_labels_are_spelled_as_the_charset_spells_them(text, characters, expected):
    assert respell(text, characters) == expected


def test_a_charset_is_hashable_and_equal_by_its_characters():
    assert Charset.of("36") == Charset(PRESETS["36"])
    assert len({Charset.of("36"), Charset(PRESETS["36"]), Charset.of("62")}) == 2


@pytest.mark.parametrize(("spec", "message"), [("", "at least one"), ("abca", "repeated: 'a'")])
def test_a_charset_that_cannot_be(spec, message):
    with pytest.raises(ValueError, match=message):
        Charset.of(spec)
