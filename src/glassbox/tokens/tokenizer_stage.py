"""The stage `tokenizer`: train on a sample of the documents, write the tokenizer, its chat format and a report."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import atomic_open, write_json
from glassbox.recipe.text import TokenizerStage
from glassbox.tokens.chat import chat_format
from glassbox.tokens.documents import Document, document_batches, share_of, text_bytes
from glassbox.tokens.encoder import Encoder, encode_texts
from glassbox.tokens.tokenizer import byte_lengths, train_tokenizer

LONGEST_TEXT = 100_000
"""Characters of a document that are trained on: one huge table must not shape the vocabulary."""
MEASURED_BYTES = 32_000_000
"""Bytes of the sample that the report is measured on."""


def run(config: TokenizerStage, inputs: Inputs, workspace: Workspace) -> None:
    """Write `tokenizer.json`, `chat.json` and `report.json`. Raises RequestError when there are no documents."""
    share = min(1.0, config.sample_bytes / max(1, text_bytes(inputs)))
    workspace.progress(0, 2, "training")
    tokenizer = train_tokenizer(
        (document.text[:LONGEST_TEXT] for batch in _sample(inputs, share) for document in batch),
        config.vocab_size,
        config.reserved,
    )
    with atomic_open(workspace.path("tokenizer.json")) as file:
        file.write(tokenizer.to_str(pretty=True))
    write_json(workspace.path("chat.json"), chat_format(tokenizer))
    workspace.progress(1, 2, "measuring")
    report = {"vocab_size": tokenizer.get_vocab_size(), "vocab_size_asked": config.vocab_size, "sample_share": share}
    write_json(workspace.path("report.json"), report | measure(tokenizer, _sample(inputs, share)))
    workspace.progress(2, 2)


def measure(tokenizer: Tokenizer, batches: Iterator[list[Document]]) -> dict[str, Any]:
    """Bytes per token of each source, and how many entries no token of these texts uses."""
    lengths, encoder = byte_lengths(tokenizer), Encoder(tokenizer)
    tokens: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    used = np.zeros(len(lengths), bool)
    for batch in batches:
        ids, bounds = encode_texts(encoder, [document.text for document in batch])
        used[ids] = True
        for document, count in zip(batch, np.diff(bounds).tolist(), strict=True):
            tokens[document.source] += count
            sizes[document.source] += len(document.text.encode())
        if sizes.total() >= MEASURED_BYTES:
            break
    return {
        "bytes_per_token": {source: sizes[source] / tokens[source] for source in sorted(tokens) if tokens[source]},
        "measured_bytes": dict(sorted(sizes.items())),
        "unused": int((~used & (lengths > 0)).sum()),
    }


def _sample(inputs: Inputs, share: float) -> Iterator[list[Document]]:
    for batch in document_batches(inputs):
        yield [document for document in batch if share >= 1 or share_of(document.id, "tokenizer sample") < share]
