"""Labelled lines for the line model of clutter: pages with their gold text, lines with labels, or a judge.

A line of a page is content if at least half of its 4-word shingles occur in the gold text, a line of fewer words if its
words occur there in order. Of a page in HTML the lines of its extracted text are labelled: what the model will see.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from glassbox.curate.html.page import page_text
from glassbox.curate.models import judging
from glassbox.curate.reading.jsonl import lines
from glassbox.curate.reading.unpack import Damage
from glassbox.errors import RequestError
from glassbox.ledger.workspace import Inputs
from glassbox.recipe.classify import Judge, LabelFile, Labels

MARKUP = re.compile(r"\s*<(?:!doctype|\?xml|html|head|body|div|p|!--)\b", re.IGNORECASE)
WORD = re.compile(r"[^\W_]+")
SHINGLE = 4
CONTENT, CLUTTER, UNKNOWN = 1, 0, -1
JUDGED = ("content", "clutter")
LINES_ASKED = 20
"""Lines of a document that a judge is asked about, evenly spread."""


@dataclass
class Pages:
    """Documents with a label for each line that is not blank."""

    texts: list[str] = field(default_factory=list)
    labels: list[list[int]] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    """Host of the page's address, or what else tells pages apart; a site is held out whole."""
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, text: str, labels: list[int], site: str) -> None:
        self.texts.append(text)
        self.labels.append(labels)
        self.sites.append(site)


def read_pages(settings: Labels, inputs: Inputs, folder: Path, check: Callable[[], None] | None = None) -> Pages:
    """All labelled pages of the settings; `folder` keeps a judge's answers, `check` may raise between them."""
    pages = Pages()
    for file in settings.files:
        _read(file, pages)
    if settings.judge:
        _ask(settings.judge, inputs, pages, folder, check)
    return pages


def by_gold_text(text: str, gold: str) -> list[int]:
    """Labels of the lines of a text that are not blank, by the gold text of its page."""
    words = WORD.findall(gold)
    shingles = set(_shingles(words))
    joined = f" {' '.join(words)} "
    found = []
    for line in text.split("\n"):
        if not line.strip():
            continue
        own = WORD.findall(line)
        if len(own) < SHINGLE:
            found.append(int(bool(own) and f" {' '.join(own)} " in joined))
        else:
            hits = [shingle in shingles for shingle in _shingles(own)]
            found.append(int(2 * sum(hits) >= len(hits)))
    return found


def _shingles(words: list[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1))


def _read(file: LabelFile, pages: Pages) -> None:
    if not file.label.startswith("field:"):
        raise RequestError(
            f"labels: {file.path} needs label: field:NAME, the field with a page's gold text or its lines' labels"
        )
    key = file.label.removeprefix("field:")
    left = file.limit
    for path in file.files():
        for row in _rows(path, [file.text, key, "url"]):
            if left == 0:
                return
            text, label = (row.get(file.text), row.get(key)) if isinstance(row, dict) else (None, None)
            if not isinstance(row, dict):
                pages.left_out[row] += 1
            elif not isinstance(text, str) or not text.strip():
                pages.left_out[f"no text under '{file.text}'"] += 1
            elif not label:
                pages.left_out[f"no label under '{key}'"] += 1
            else:
                _add(text, label, str(row.get("url") or ""), pages)
                left = left - 1 if left is not None else None


def _add(text: str, label: Any, url: str, pages: Pages) -> None:
    if MARKUP.match(text):
        text = page_text(text)
    rows = [line for line in text.split("\n") if line.strip()]
    host = urlsplit(url).hostname if "//" in url else ""
    # Pages without an address are told apart by how they begin, so that copies stay together.
    site = ".".join(host.split(".")[-2:]) if host else hashlib.sha256("\n".join(rows[:3]).encode()).hexdigest()
    if isinstance(label, str):
        pages.add(text, by_gold_text(text, label), site)
    elif isinstance(label, list) and len(label) == len(rows) and all(one in (0, 1) for one in label):
        pages.add(text, [int(one) for one in label], site)
    else:
        pages.left_out["labels that are neither a gold text nor a 0 or 1 for each line that is not blank"] += 1


def _rows(path: Path, columns: list[str]) -> Iterator[dict[str, Any] | str]:
    """Rows of JSON lines or Parquet, or a reason in place of one."""
    if path.name.lower().endswith(".parquet"):
        try:
            with pq.ParquetFile(path) as table:
                known = [name for name in columns if name in table.schema_arrow.names]
                for batch in table.iter_batches(64, columns=known):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError):
            yield "damaged Parquet"
        return
    for _, line in lines(path):
        if isinstance(line, Damage):
            yield line.reason
        elif line.strip():
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                row = None
            yield row if isinstance(row, dict) else "not a JSON object"


def _ask(judge: Judge, inputs: Inputs, pages: Pages, folder: Path, check: Callable[[], None] | None) -> None:
    """Asks a judge about lines of a sample of the stage's documents, each shown with its neighbours."""
    sample = _sample(inputs, judge.documents)
    if not sample:
        raise RequestError("labels have a judge, but no stage in `from` gives documents for it to read")
    asked, places = [], []
    for number, text in enumerate(sample):
        rows = [line for line in text.split("\n") if line.strip()]
        for k in range(0, len(rows), max(1, -(-len(rows) // LINES_ASKED))):
            before, after = "\n".join(rows[max(k - 2, 0) : k]), "\n".join(rows[k + 1 : k + 3])
            asked.append(f"{before}\n>>> {rows[k]} <<<\n{after}\n\n(Only the line between >>> and <<< is meant.)")
            places.append((number, k))
    classes = judge.classes or JUDGED
    labels = [[UNKNOWN] * sum(bool(line.strip()) for line in text.split("\n")) for text in sample]
    for (number, k), answer in zip(places, judging.label(asked, judge, classes, folder, check), strict=True):
        if answer is None:
            pages.left_out["no clear answer of the judge"] += 1
        else:
            labels[number][k] = int(answer == classes[0])
    for text, one in zip(sample, labels, strict=True):
        pages.add(text, one, hashlib.sha256(text.encode()).hexdigest())


def _sample(inputs: Inputs, limit: int) -> list[str]:
    """Texts of the documents whose ids hash lowest."""
    lowest: list[tuple[str, str]] = []
    for artefact in inputs.all("documents"):
        for path in sorted((artefact.path / "documents").glob("*.parquet")):
            with pq.ParquetFile(path) as table:
                for batch in table.iter_batches(512, columns=["id", "text"]):
                    rows = zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True)
                    lowest += [(hashlib.sha256(str(name).encode()).hexdigest(), text) for name, text in rows if text]
                    lowest = sorted(lowest)[:limit]
    return [text for _, text in lowest]
