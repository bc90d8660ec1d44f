"""Labelled texts for a classifier: from files, from the stage's own documents as a class, and from a judge.

Rows that cannot be read, or have no text or no label, are counted and passed over; a label of the wrong kind is the
user's mistake and raises RequestError.
"""

import gzip
import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from glassbox.curate.models import judging
from glassbox.curate.models.features import READ_BYTES
from glassbox.curate.reading.jsonl import lines
from glassbox.curate.reading.unpack import LARGEST, Damage
from glassbox.errors import RequestError
from glassbox.ledger.workspace import Inputs
from glassbox.recipe.classify import Judge, LabelFile, Labels

Label = str | dict[str, float]
"""A class, or numbers by name."""
SCORE = "score"
"""The name of scores that have none: a label file whose labels are bare numbers."""


@dataclass
class Labelled:
    """Texts with their labels, in the order they were read, each text once."""

    texts: list[str] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    """Where each label comes from: the path as the recipe has it, documents, or judge."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Why rows gave no labelled text, and how many."""


def read_labels(
    settings: Labels, task: str, inputs: Inputs, folder: Path, check: Callable[[], None] | None = None
) -> Labelled:
    """All labelled texts of the settings. `folder` keeps the judge's answers; `check` may raise between them."""
    found = Labelled()
    for file in settings.files:
        for text, label in _file(file, task, found.left_out):
            _add(found, text, label, file.path)
    documents = [path for one in inputs.all("documents") for path in sorted((one.path / "documents").glob("*.parquet"))]
    if not documents and (settings.documents or settings.judge):
        raise RequestError("labels ask for the stage's own documents, but no stage in `from` gives documents")
    if settings.documents:
        for text in _sample(documents, settings.documents_limit, "class"):
            _add(found, text, settings.documents, "documents")
    if settings.judge:
        _ask(found, settings.judge, task, _sample(documents, settings.judge.documents, "judge"), folder, check)
    return _once(found)


def names_of(labels: Sequence[Label]) -> tuple[str, ...]:
    """The classes, or the names of the scores, in alphabetical order."""
    return tuple(sorted({name for label in labels for name in ([label] if isinstance(label, str) else label)}))


def text_hash(text: str) -> str:
    """Names a text for good: 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _add(found: Labelled, text: str, label: Label, source: str) -> None:
    # What the features do not read is not kept: a character has at least a byte.
    found.texts.append(text[:READ_BYTES])
    found.labels.append(label)
    found.sources.append(source)


def _once(found: Labelled) -> Labelled:
    """Without repeated texts; of a text with two labels no copy stays."""
    first: dict[str, int] = {}
    clash = set()
    for number, text in enumerate(found.texts):
        before = first.setdefault(text, number)
        if found.labels[before] != found.labels[number]:
            clash.add(text)
    stay = [number for number in first.values() if found.texts[number] not in clash]
    left_out = Counter(found.left_out)
    left_out["repeated text"] += len(found.texts) - len(first)
    left_out["text with two labels"] += len(clash)
    return Labelled(
        [found.texts[number] for number in stay],
        [found.labels[number] for number in stay],
        [found.sources[number] for number in stay],
        +left_out,
    )


def _ask(
    found: Labelled, judge: Judge, task: str, texts: list[str], folder: Path, check: Callable[[], None] | None
) -> None:
    names = judge.classes or names_of(found.labels)
    if not names:
        raise RequestError("no labelled file names a class, so the judge has none to choose from; set judge.classes")
    ask = judging.label if task == "classes" else judging.scores
    for text, label in zip(texts, ask(texts, judge, names, folder, check), strict=True):
        if label is None:
            found.left_out["no clear answer of the judge"] += 1
        else:
            _add(found, text, label, "judge")


def _file(file: LabelFile, task: str, left_out: Counter[str]) -> Iterator[tuple[str, Label]]:
    """(text, label) of a label file's rows, at most `file.limit`."""
    key = file.label.removeprefix("field:") if file.label.startswith("field:") else ""
    if not file.label:
        raise RequestError(f"labels: {file.path} needs a label, a class or field:NAME")
    left = file.limit
    for path in file.files():
        for place, row in _rows(path, file.text, key):
            if left == 0:
                return
            if isinstance(row, str):
                left_out[row] += 1
                continue
            text, label = row.get(file.text), row.get(key) if key else file.label
            if not isinstance(text, str) or not text.strip():
                left_out[f"no text under '{file.text}'"] += 1
            elif label is None or label == "":
                left_out[f"no label under '{key}'"] += 1
            else:
                yield text, _label(label, task, f"{path.name}, {place}")
                left = left - 1 if left is not None else None


def _rows(path: Path, text: str, key: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """(where it stands, row), or a reason in place of the row."""
    name = path.name.lower()
    if name.endswith(".parquet"):
        yield from _table(path, [text, key] if key else [text])
    elif name.endswith((".jsonl", ".ndjson", ".json", ".gz", ".zst")) and not name.endswith(".txt.gz"):
        for number, (_, line) in enumerate(lines(path)):
            if isinstance(line, Damage):
                yield f"line {number + 1}", line.reason
            elif line.strip():
                yield f"line {number + 1}", _parsed(line)
    else:
        yield "the file", {text: _whole(path)}


def _parsed(line: bytes) -> dict[str, Any] | str:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return "broken JSON"
    return row if isinstance(row, dict) else "not a JSON object"


def _whole(path: Path) -> str:
    """A text file, its beginning if it is larger than LARGEST; unreadable bytes become U+FFFD."""
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
            return file.read(LARGEST).decode("utf-8", "replace")
    except (OSError, EOFError):
        return ""


def _table(path: Path, columns: list[str]) -> Iterator[tuple[str, dict[str, Any] | str]]:
    try:
        with pq.ParquetFile(path) as table:
            missing = [name for name in columns if name not in table.schema_arrow.names]
            if missing:
                known = ", ".join(table.schema_arrow.names)
                raise RequestError(f"labels: {path.name} has no column '{missing[0]}', only {known}")
            number = 0
            for batch in table.iter_batches(512, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pa.ArrowException, OSError):
        yield "the file", "damaged Parquet"


def _label(label: Any, task: str, place: str) -> Label:
    """A label as the task wants it."""
    if task == "classes":
        if isinstance(label, (str, int, bool)):
            return str(label)
        raise RequestError(f"labels: {place}: {label!r} is no class; a text or a whole number is meant")
    values = label if isinstance(label, dict) else {SCORE: label}
    values = {str(name): value for name, value in values.items() if value is not None}
    if not values or not all(judging.is_number(value) for value in values.values()):
        raise RequestError(f'labels: {place}: {label!r} is no score; a number or {{"name": number}} is meant')
    return {name: float(value) for name, value in values.items()}


def _sample(paths: list[Path], limit: int, salt: str) -> list[str]:
    """Texts of `limit` documents, those whose ids hash lowest, in that order; only so many are in memory."""
    lowest: list[tuple[int, str, str]] = []
    for path in paths:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(512, columns=["id", "text"]):
                for name, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True):
                    if not text or not text.strip():
                        continue
                    # Negative: a heap keeps its smallest on top, and the largest hash is to go first.
                    key = -int.from_bytes(hashlib.sha256(f"{salt}\n{name}".encode()).digest()[:8], "big")
                    push = heapq.heappush if len(lowest) < limit else heapq.heappushpop
                    push(lowest, (key, name, text[:READ_BYTES]))
    return [text for _, _, text in sorted(lowest, reverse=True)]
