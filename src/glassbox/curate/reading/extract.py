"""Stored bytes to text: the encoding. What of a web page is its content is decided in page.py."""

import re
import tokenize
from collections.abc import Iterator
from io import BytesIO

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from glassbox.curate.html.page import page_text

__all__ = ["decode", "decode_code", "page_text", "plain_text"]

BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
META_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
META_BYTES = 4096
MAX_REPLACED = 0.01
"""Most replacement characters, as a share of the text, that a decoded document may hold."""


def decode(data: bytes, declared: str, markup: bool) -> str | None:
    """The text of `data`, or None if it is binary or in no encoding that can be told.

    Tried in order: a byte-order mark, what the server declared, what the page declares, UTF-8, and a detector.
    """
    for encoding in _encodings(data, declared, markup):
        try:
            return _checked(data.decode(encoding))
        except (UnicodeError, LookupError):
            continue
    text = data.decode(detect_encoding(data, from_html_meta=False) or "utf-8", "replace")
    return None if text.count("\ufffd") > MAX_REPLACED * len(text) else _checked(text)


def decode_code(data: bytes, python: bool) -> str | None:
    """The text of a source file; Python files say their encoding in a comment (PEP 263)."""
    if python:
        try:
            return _checked(data.decode(tokenize.detect_encoding(BytesIO(data).readline)[0]))
        except (SyntaxError, UnicodeError, LookupError):
            return None
    return decode(data, "", False)


def plain_text(text: str) -> str:
    """Text with Unix line ends and nothing else changed."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _encodings(data: bytes, declared: str, markup: bool) -> Iterator[str]:
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            yield encoding
    meta = META_CHARSET.search(data, 0, META_BYTES) if markup else None
    for name in (declared, meta.group(1).decode("ascii", "replace") if meta else "", "utf-8"):
        known = map_encoding_to_html5(name, fallback_utf8=False) if name else None
        if known:
            yield known
    detected = detect_encoding(data, from_html_meta=False)
    if detected:
        yield detected


def _checked(text: str) -> str | None:
    return None if "\0" in text else text
