"""Pages with gold text, parted before any curation into those to train on and those to measure on.

A page is held out by the hash of its address alone. What is measured on is its gold text: text that people wrote and
that no curation of ours has shaped. A paragraph of it that shares 8 words in a row with any page to train on, as it was
before curation, is left out, so that no arm has seen it, whatever it keeps of its pages.
"""

import ast
import gzip
import json
import re
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from glassbox.curate.html.page import all_text
from glassbox.curate.parts import parts_of
from glassbox.curate.reading.extract import decode
from glassbox.curate.reading.readers import read
from glassbox.errors import RequestError
from glassbox.ledger.writing import atomic_open, write_json, write_lines
from glassbox.recipe.files import ENDINGS, files_of
from glassbox.recipe.sources import Source
from glassbox.tokens.documents import share_of

NGRAM = 8
"""Words in a row that a held-out paragraph may not share with a page to train on."""
PROSE_WORDS = 12
"""Fewest words of a paragraph of prose."""
PROSE_LETTERS = 0.9
"""Smallest share of letters and white space in a paragraph of prose."""
WORD = re.compile(r"\w+")
PARAGRAPH = re.compile(r"\n\s*\n")
FORMATS: tuple[Literal["warc", "jsonl", "html"], ...] = ("warc", "jsonl", "html")


@dataclass(frozen=True)
class Page:
    """A page as stored."""

    url: str
    """Its address, or where it was read if it has none."""
    text: str
    """The decoded page: HTML if `markup`, else plain text."""
    markup: bool

    def all_text(self) -> str:
        """All text of the page, navigation and all, as a WET file has it."""
        return all_text(self.text) if self.markup else self.text


def read_pages(folder: Path) -> list[Page]:
    """The pages of all WARC, JSONL (field `html`, else `text`) and HTML files of a folder, in order of their addresses;
    of pages with one address the first."""
    found: dict[str, Page] = {}
    for page in _stored(folder):
        found.setdefault(page.url, page)
    if not found:
        raise RequestError(f"{folder}: no page in it; give a folder of WARC, JSONL or HTML files")
    return [found[url] for url in sorted(found)]


def _stored(folder: Path) -> Iterator[Page]:
    for name in FORMATS:
        paths = [path for path in folder.rglob("*") if path.name.endswith(ENDINGS[name])]
        for path in sorted(paths):
            html = name == "jsonl" and '"html"' in _first_line(path)
            source = Source(name="pages", format=name, path=str(path), fields={"html": "html"} if html else {})
            for part in parts_of(source, files_of(source, {})[0]):
                for raw in read(source, part):
                    text = None if raw.skipped else decode(raw.payload, raw.charset, raw.markup)
                    if text is not None:
                        where = path.relative_to(folder).as_posix()
                        yield Page(raw.url or (where if name == "html" else f"{where}:{raw.offset}"), text, raw.markup)


def _first_line(path: Path) -> str:
    if path.suffix not in (".jsonl", ".ndjson"):
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(1 << 20)


def read_gold(path: Path) -> dict[str, str]:
    """The gold text of pages: JSON lines {"url": address or file name, "text": ...}."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {row["url"]: row["text"] for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = 'gold text is JSON lines {"url": ..., "text": ...}'
        raise RequestError(f"{path}: {what}, which this is not: {error!r}") from error


def library_gold(pages: Iterable[Page]) -> dict[str, str]:
    """The gold text of pydoc's pages: a module's docstrings as its source has them, each once; the text a topic is
    made from. Modules without Python source have none."""
    found = {}
    for page in pages:
        address = urlsplit(page.url)
        topic = parse_qs(address.query).get("key")
        text = topic_text(topic[0]) if topic else module_text(unquote(address.path).strip("/").removesuffix(".html"))
        if text:
            found[page.url] = text
    return found


def topic_text(name: str) -> str:
    """The text of one of `help()`'s topics, or "" if it has none under that very name."""
    from pydoc_data.topics import topics

    return topics.get(name) or topics.get(name.lower()) or ""


def module_text(name: str) -> str:
    """The docstrings of a module of the standard library, of its classes and functions, in the order of the source."""
    base = Path(sysconfig.get_path("stdlib")).joinpath(*name.split("."))
    path = next((path for path in (base.with_name(base.name + ".py"), base / "__init__.py") if path.is_file()), None)
    if path is None or not name:
        return ""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, documented)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    return "\n\n".join(text for node in nodes if (text := (ast.get_docstring(node) or "").strip()))


def split(pages: list[Page], gold: Mapping[str, str], share: float, folder: Path) -> dict[str, int]:
    """Part the pages; returns the counts written to `pages.json`. Leaves in `folder`

    - `train.warc.gz`: pages to train on, as they are; `train.jsonl`: all text of the same pages, in the same order;
    - `held_out.json`: {"gold": texts, "prose": texts, "pages": texts}: the held-out pages' gold text without what
      stands on a page to train on, the prose of it, and all text of those pages.

    Only pages with gold text are held out, a `share` of them. Raises RequestError if either side is empty.
    """
    held = [page for page in pages if page.url in gold and share_of(page.url, "held out") < share]
    kept = {page.url for page in held}
    train = [page for page in pages if page.url not in kept]
    raw = [page.all_text() for page in train]
    seen = np.unique(np.concatenate([ngrams(text) for text in raw] or [np.zeros(0, np.uint64)]))
    gold_paragraphs = [paragraphs(gold[page.url]) for page in held]
    unseen = [[one for one in text if is_unseen(one, seen)] for text in gold_paragraphs]
    prose = [[one for one in text if is_prose(one)] for text in unseen]
    sets = {"gold": _joined(unseen), "prose": _joined(prose), "pages": [page.all_text() for page in held]}
    if not train or not sets["prose"]:
        raise RequestError(
            f"of {len(pages)} pages, {len(gold)} with gold text, {len(train)} are left to train on and "
            f"{len(sets['prose'])} have prose to measure on: give more pages with gold text, or another --held-out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_open(folder / "train.warc.gz", "wb") as file:
        for page in train:
            file.write(warc_record(page))
    write_lines(
        folder / "train.jsonl", [{"url": page.url, "text": text} for page, text in zip(train, raw, strict=True)]
    )
    write_json(folder / "held_out.json", sets)
    counts = {
        "pages": len(pages),
        "pages_with_gold": len(gold),
        "pages_to_train_on": len(train),
        "pages_held_out": len(held),
        "paragraphs_held_out": sum(map(len, gold_paragraphs)),
        "paragraphs_seen_in_training_left_out": sum(map(len, gold_paragraphs)) - sum(map(len, unseen)),
        **{f"bytes_{name}": sum(len(text.encode()) for text in texts) for name, texts in sets.items()},
    }
    write_json(folder / "pages.json", counts)
    return counts


def paragraphs(text: str) -> list[str]:
    """What stands between blank lines."""
    return [one.strip("\n") for one in PARAGRAPH.split(text) if one.strip()]


def is_unseen(paragraph: str, seen: NDArray[np.uint64]) -> bool:
    """Whether no n-gram of the paragraph is among those `seen` (sorted); one too short to have any counts as seen."""
    grams = ngrams(paragraph)
    places = np.searchsorted(seen, grams)
    inside = places < len(seen)
    return len(grams) > 0 and not (seen[places[inside]] == grams[inside]).any()


def is_prose(paragraph: str) -> bool:
    """Sentences: words enough, nearly all letters, no indented line, a full stop at the end."""
    letters = sum(letter.isalpha() or letter.isspace() for letter in paragraph)
    return (
        len(paragraph.split()) >= PROSE_WORDS
        and paragraph.rstrip().endswith((".", "!", "?", "。", "！", "？"))
        and letters >= PROSE_LETTERS * len(paragraph)
        and not any(line[:1].isspace() for line in paragraph.split("\n"))
    )


def ngrams(text: str, n: int = NGRAM) -> NDArray[np.uint64]:
    """A hash of every n words in a row (runs of letters and digits, lower case), (max(0, words - n + 1),)."""
    words = np.array([hash(word) for word in WORD.findall(text.lower())], np.int64).view(np.uint64)
    if len(words) < n:
        return np.zeros(0, np.uint64)
    total = np.zeros(len(words) - n + 1, np.uint64)
    for k in range(n):
        total = total * np.uint64(0x9E3779B97F4A7C15) + words[k : k + len(total)]
    return total


def warc_record(page: Page) -> bytes:
    """The page as one gzip member of a WARC file."""
    media = "text/html" if page.markup else "text/plain"
    body = page.text.encode("utf-8", "replace")
    http = f"HTTP/1.1 200 OK\r\nContent-Type: {media}; charset=UTF-8\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    head = (
        f"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: {quote(page.url, safe=':/?&=#%+.,;@~')}\r\n"
        "WARC-Date: 2000-01-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000000>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http) + len(body)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + http + body + b"\r\n\r\n", compresslevel=6, mtime=0)


def _joined(texts: list[list[str]]) -> list[str]:
    return ["\n\n".join(text) for text in texts if text]
