"""Stored bytes to text: the encoding, then for web pages the main content.

Web pages go through resiliparse's main-content extraction, which keeps paragraphs, lists and preformatted text as
lines.
"""

import re
import tokenize
from collections.abc import Iterator
from io import BytesIO

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree

BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
META_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
META_BYTES = 4096
MAX_REPLACED = 0.01
"""Most replacement characters, as a share of the text, that a decoded document may hold."""
LIST = re.compile(r"<ul\b[^>]*>((?:[^<]|<(?!/?ul\b))*)</ul\s*>", re.IGNORECASE)
ITEM = re.compile(r"<li\b[^>]*>", re.IGNORECASE)
ITEM_END = re.compile(r"</li\s*>", re.IGNORECASE)
LINK = re.compile(r"<a\b[^>]*>(.*?)</a\s*>", re.IGNORECASE | re.DOTALL)
TAG = re.compile(r"<[^>]*>")
LIST_LINKS = 0.2
"""Largest share of its text that links may have in a list that is content; menus are nearly all links."""
LIST_WORDS = 3
"""Fewest words an item of such a list has on average."""
LIST_DEPTH = 3
LAYOUT = re.compile(r"[ \t]*\t[ \t]*")
BLANK_LINES = re.compile(r"\n{3,}")


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


def page_text(html: str) -> str:
    """The main content of a web page as lines of text, blank lines between paragraphs."""
    if "<ul" in html or "<UL" in html:
        for _ in range(LIST_DEPTH):
            html = LIST.sub(_content_list, html)
    text = extract_plain_text(
        HTMLTree.parse(html),
        main_content=True,
        preserve_formatting=True,
        alt_texts=False,
        comments=False,
        post_meta=False,
    )
    # Cells of layout tables come out with runs of blanks and tabs before and between them.
    lines = (LAYOUT.sub("\t", line.replace("\xa0", " ").rstrip()).lstrip("\t") for line in text.split("\n"))
    return BLANK_LINES.sub("\n\n", "\n".join(lines)).strip("\n")


def _content_list(found: re.Match[str]) -> str:
    """An innermost bullet list as lines of a paragraph, if it is content: the extractor takes every list for a menu."""
    body = found[1]
    size, items = _letters(body), len(ITEM.findall(body))
    linked = sum(_letters(link) for link in LINK.findall(body))
    if not items or linked > LIST_LINKS * size or len(TAG.sub(" ", body).split()) < LIST_WORDS * items:
        return found[0]
    return "<p>" + ITEM_END.sub("", ITEM.sub("<br>• ", body)) + "</p>"


def _letters(html: str) -> int:
    return len("".join(TAG.sub("", html).split()))


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
