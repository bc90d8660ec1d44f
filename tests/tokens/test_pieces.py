"""Pieces: the regular expressions themselves, asked of the library, on texts made of their border cases."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from tokenizers import Regex, pre_tokenizers

from glassbox.tokens.pieces import (
    LETTER,
    NEWLINE,
    NUMBER,
    OTHER,
    SPACE,
    character_classes,
    contraction,
    next_piece,
    patterns,
)
from tests.tokens.layouts import HARD, hard_texts

EXPRESSIONS = sorted(patterns())


def cut(text, pattern):
    data, pieces, i = np.frombuffer(text.encode(), np.uint8), [], 0
    classes = character_classes(pattern.marks)
    while i < len(data):
        stop = next_piece(data, i, len(data), classes, pattern.signed, pattern.digits)
        assert stop > i
        pieces.append(data[i:stop].tobytes().decode())
        i = stop
    return pieces


def assert_cut_as_by(expression, text):
    library = pre_tokenizers.Split(Regex(expression), behavior="isolated")
    parts = [part for part, _ in library.pre_tokenize_str(text)]
    assert cut(text, patterns()[expression]) == parts


@pytest.mark.parametrize("expression", EXPRESSIONS)
@settings(max_examples=40)
@given(text=hard_texts)
def test_pieces_are_those_of_the_regular_expression(expression, text):
    assert_cut_as_by(expression, text)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_border_cases_in_a_row(expression):
    for shift in (1, 3, 7, 11):
        order = [HARD[i * shift % len(HARD)] for i in range(len(HARD))]
        assert_cut_as_by(expression, "".join(order))


def test_the_library_cuts_by_itself_like_gpt2():
    library = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = "".join(HARD)
    (gpt2,) = {pattern for expression, pattern in patterns().items() if expression.startswith("'s|")}
    spans = [text[start:end] for _, (start, end) in library.pre_tokenize_str(text)]
    assert cut(text, gpt2) == spans


def test_classes_of_characters():
    classes = character_classes(False)
    expected = {"a": LETTER, "\u4e00": LETTER, "7": NUMBER, "\u00bd": NUMBER, " ": SPACE, "\u3000": SPACE}
    expected |= {"\n": NEWLINE, "\r": NEWLINE, "\x1c": OTHER, "!": OTHER, "\u0301": OTHER, "\U0001f600": OTHER}
    assert {character: classes[ord(character)] for character in expected} == expected
    assert character_classes(True)[0x301] == LETTER


@pytest.mark.parametrize(
    ("text", "fold", "size"),
    [
        *(("'s", False, 2), ("'S", False, 0), ("'S", True, 2), ("'re", False, 3), ("'rE", True, 3), ("'r", True, 0)),
        *(("'", True, 0), ("'\u017f", True, 3), ("'\u017f", False, 0), ("'ll", False, 3), ("'vx", True, 0)),
    ],
)
def test_contractions(text, fold, size):
    data = np.frombuffer(text.encode(), np.uint8)
    assert contraction(data, 0, len(data), fold) == size


@pytest.mark.parametrize("marks", [False, True])
def test_every_letter_number_space_and_mark_of_this_interpreter_has_its_class(marks):
    """Up to Unicode's last plane; what only the library knows is asked of it where characters may be assigned."""
    classes = character_classes(marks)
    wrong = []
    for point in range(0x110000):
        category = unicodedata.category(chr(point))
        kind = {"L": LETTER, "N": NUMBER, "M": LETTER if marks else OTHER}.get(category[0], OTHER)
        if category[0] == "Z" or chr(point) in "\t\n\v\f\r\x85":
            kind = NEWLINE if chr(point) in "\r\n" else SPACE
        if classes[point] != kind and category not in ("Cn", "Cs"):
            wrong.append(hex(point))
    assert not wrong
