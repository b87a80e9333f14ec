"""Scripts that run from right to left: what stands where in the image, and that nothing is lost on the way back."""

import random

import pytest

from crnn_jax.charset import Charset
from crnn_jax.data.target import class_ids
from crnn_jax.direction import reorder
from crnn_jax.wordlist import WordList

# As the Unicode bidirectional algorithm orders them in a right-to-left paragraph; escaped, or editors reorder them.
ALEF, BET, GIMEL = "\u05d0\u05d1\u05d2"
SEEN, LAM = "\u0633\u0644"
WORDS = {
    f"{ALEF}{BET}{GIMEL}": f"{GIMEL}{BET}{ALEF}",
    f"{ALEF}{BET}.": f".{BET}{ALEF}",
    f"{ALEF}12{BET}": f"{BET}12{ALEF}",  # a number keeps its order
    f"{ALEF}1.50": f"1.50{ALEF}",  # with the sign inside
    f"{ALEF}50%": f"50%{ALEF}",  # and the one beside it
    f"{ALEF}-50": f"50-{ALEF}",  # but not a hyphen beside it
    f"{ALEF}USB{BET}": f"{BET}USB{ALEF}",
    f"{ALEF}A-B{BET}": f"{BET}A-B{ALEF}",
    f"{ALEF}A4{BET}": f"{BET}A4{ALEF}",
    f"{SEEN}{LAM}": f"{LAM}{SEEN}",
    f"{SEEN}\u0663\u0664": f"\u0663\u0664{SEEN}",  # Arabic-Indic digits
    f"{SEEN}\u0663%": f"%\u0663{SEEN}",  # whose sign stands on the left
    f"{SEEN}5%": f"%5{SEEN}",  # and among Arabic letters all numbers are like that
    f"{ALEF}({BET})": f"({BET}){ALEF}",  # a bracket opens towards what is in it
    f"{ALEF}\u05b8{BET}": f"{BET}{ALEF}\u05b8",  # a vowel stays behind its letter
    "caf\u00e9(1)": "caf\u00e9(1)",
    "12%": "12%",
    "": "",
}


@pytest.mark.parametrize("logical", WORDS)
def test_the_order_in_which_a_word_is_seen(logical):
    assert reorder(logical) == WORDS[logical]
    assert reorder(WORDS[logical]) == logical


def test_every_word_comes_back():
    letters = f"{ALEF}{BET}{SEEN}{LAM}ab12\u0663\u0664+-%$,./:!()\u00ab\u05b0\u0301&"
    rng = random.Random(0)
    words = {"".join(rng.choices(letters, k=rng.randint(1, 9))).lstrip("\u05b0\u0301") for _ in range(5000)}
    assert len(words) > 4000
    assert not [word for word in words if reorder(reorder(word)) != word]


def test_a_bracket_that_the_charset_lacks_is_left_out():
    """Brackets count as drawn: what is typed as ( is drawn as )."""
    one, both = Charset(f"{ALEF}{BET}("), Charset(f"{ALEF}{BET}()")
    assert both.decode(class_ids(f"{ALEF}({BET})", both)) == f"{ALEF}({BET})"
    assert one.decode(class_ids(f"{ALEF}({BET})", one)) == f"{ALEF}{BET})"
    assert [one.decode(row) for row in WordList.of([f"{ALEF}({BET}"], one).labels.tolist()] == [ALEF + BET]


def test_the_leftmost_character_is_the_first_class():
    charset = Charset(ALEF + BET + GIMEL + "12")
    word = f"{ALEF}{BET}{GIMEL}12"
    assert charset.encode(word) == class_ids(word, charset) == [4, 5, 3, 2, 1]
    assert charset.decode([4, 5, 3, 0, 2, 1]) == word
    with pytest.raises(ValueError, match=f"label '{SEEN}{ALEF}' has characters outside the charset: '{SEEN}'"):
        charset.encode(SEEN + ALEF)
