"""The columns of a document, kept or dropped, and the id that names it for good."""

import hashlib
from typing import Any

import pyarrow as pa

from glassbox.curate.rules.statistics import STATISTICS

MEASURED = [name for name in STATISTICS if name not in ("characters", "words")]
CUT = pa.struct(
    [
        ("step", pa.string()),
        ("line", pa.int32()),
        ("column", pa.int32()),
        ("rule", pa.string()),
        ("text", pa.large_string()),
    ]
)
"""What a step removed from a text; line and column as `edits.Cut` counts them, in the text that the step was given."""
PLACE = (
    ("id", pa.string()),
    ("text", pa.large_string()),
    ("source", pa.string()),
    ("origin", pa.string()),
    ("offset", pa.int64()),
    ("url", pa.string()),
)
"""Columns that every document has, whoever made it: its text and where that was read."""
DOCUMENT = pa.schema(
    [
        *PLACE,
        ("meta", pa.string()),
        ("lang", pa.string()),
        ("lang_score", pa.float32()),
        ("category", pa.string()),
        ("scores", pa.map_(pa.string(), pa.float32())),
        ("copies", pa.int32()),
        ("duplicates", pa.int32()),
        ("lines_cut", pa.int32()),
        ("cuts", pa.list_(CUT)),
        ("masked", pa.map_(pa.string(), pa.int32())),
        ("n_chars", pa.int64()),
        ("n_words", pa.int64()),
        *((name, pa.float32()) for name in MEASURED),
    ]
)
"""Columns of `documents/*.parquet`. `copies`: how often to use it (sampling); `duplicates`: documents dropped as its
copies; `scores`: what classifiers said, as model.class; `masked`: personal data masked, by kind; `cuts` in the order
of the steps."""
VERDICT = (
    ("stage", pa.string()),
    ("rule", pa.string()),
    ("value", pa.float32()),
    ("threshold", pa.float32()),
    ("other", pa.string()),
)
"""Columns that a dropped document has beside its own."""
DROPPED = pa.schema([*DOCUMENT, *VERDICT])
"""Columns of `dropped/*.parquet`: of a duplicate, `other` is the id of the document that stayed; of a contaminated
document, the evaluation and the problem it holds."""

BYTES_PER_TOKEN = 4
"""For the funnel's rough token counts; true counts come with a tokenizer."""


def document_id(source: str, origin: str, offset: int) -> str:
    """32 hex digits that name a document for good: a hash of where it was read, never of its text."""
    return hashlib.blake2b(f"{source}\0{origin}\0{offset}".encode(), digest_size=16).hexdigest()


def funnel_row(step: str, source: str, documents: int, size: int) -> dict[str, Any]:
    """A row of `funnel.json`: what is left of a source after a step, `size` in bytes of text."""
    tokens = round(size / BYTES_PER_TOKEN)
    return {"step": step, "source": source, "documents": documents, "bytes": size, "tokens": tokens}
