"""Encodings."""

import pytest

from glassbox.curate.reading.extract import decode, decode_code, page_text, plain_text

WORDS = "Zażółć gęślą jaźń, przyjaciele."
GERMAN = "Größe und Übermut führen zu großen Mühen, fünf schöne Äpfel."


@pytest.mark.parametrize(
    ("data", "declared", "expected"),
    [
        (WORDS.encode(), "", WORDS),
        (WORDS.encode("utf-8-sig"), "iso-8859-2", WORDS),
        (WORDS.encode("utf-16"), "", WORDS),
        (WORDS.encode("iso-8859-2"), "iso-8859-2", WORDS),
        (b'<meta charset="iso-8859-2">' + WORDS.encode("iso-8859-2"), "", f'<meta charset="iso-8859-2">{WORDS}'),
        (WORDS.encode(), "no-such-encoding", WORDS),
        (GERMAN.encode("cp1252"), "", GERMAN),
        # The declaration is wrong: these bytes are not UTF-8.
        (GERMAN.encode("cp1252"), "utf-8", GERMAN),
    ],
)
def test_encodings_are_told_in_order(data: bytes, declared: str, expected: str) -> None:
    assert decode(data, declared, markup=True) == expected


def test_binary_data_is_refused() -> None:
    assert decode(b"\x7fELF\x00\x00\x00\x01 text", "", markup=False) is None


def test_python_says_its_encoding_itself() -> None:
    assert decode_code("# coding: latin-1\nx = 'é'\n".encode("latin-1"), python=True) == "# coding: latin-1\nx = 'é'\n"
    assert decode_code(b"# coding: nonsense\n", python=True) is None
    assert decode_code(b"x = '\xff'\n", python=True) is None


def test_pages_keep_paragraphs_lists_and_code_as_lines() -> None:
    html = """<html><body><nav><a href=x>Home</a> <a href=y>About</a></nav><article><h1>Title</h1>
    <p>First   paragraph
    of text.</p><ul><li>the first thing</li>
    <li>the <b>second</b> thing</li></ul><pre>def f():
    return 1</pre></article></body></html>"""
    text = page_text(html)
    assert "First paragraph of text." in text.split("\n")
    assert "def f():\n    return 1" in text
    assert "Home" not in text
    assert "• the first thing\n• the second thing" in text


def test_line_ends_become_newlines() -> None:
    assert plain_text("a\r\nb\rc\n") == "a\nb\nc\n"
