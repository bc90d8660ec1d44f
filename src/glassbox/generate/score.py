"""The log-probability of each token of given rows: for `glassbox score`, reference passes and evaluation.

Letters: B rows of a batch, T tokens, D model width, V vocabulary, N tokens.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glassbox.errors import RequestError
from glassbox.model.folder import LoadedModel
from glassbox.model.transformer import Transformer

BATCH_TOKENS = 8192
"""Tokens of one forward pass, padding included."""
CHUNK_LOGITS = 1 << 22
"""Logits held at a time: 16 MB in fp32."""
FILE_LINES = 256
"""Lines of a file scored together."""


@torch.inference_mode()
def logprobs(model: Transformer, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """For each row of n token ids an fp32 tensor of n - 1 values in nats: [i] is log p(row[i + 1] | row[: i + 1]).

    The other rows change a row's values by rounding only. Raises `RequestError` for ids outside the vocabulary.
    """
    check_ids(rows, model.vocab_size)
    device = model.embedding.weight.device
    found: list[Tensor] = [torch.zeros(0)] * len(rows)
    for batch in batches([len(row) for row in rows], BATCH_TOKENS):
        width = max(len(rows[i]) for i in batch)
        if width < 2:
            continue
        ids_BT = torch.zeros(len(batch), width, dtype=torch.long)
        for line, i in zip(ids_BT, batch, strict=True):
            line[: len(rows[i])] = torch.as_tensor(rows[i])
        ids_BT = ids_BT.to(device)
        hidden_BTD = model(ids_BT[:, :-1]).hidden_BTD
        logprob_N = target_logprobs(hidden_BTD.flatten(0, 1), model.head_VD, ids_BT[:, 1:].flatten())
        for line, i in zip(logprob_N.view(len(batch), width - 1).cpu(), batch, strict=True):
            found[i] = line[: max(len(rows[i]) - 1, 0)].clone()
    return found


def target_logprobs(hidden_ND: Tensor, head_VD: Tensor, target_N: Tensor) -> Tensor:
    """log softmax(hidden @ head.T)[target] in fp32, (N,), a chunk of tokens at a time."""
    size = max(1, CHUNK_LOGITS // head_VD.shape[0])
    parts = []
    for hidden, target in zip(hidden_ND.split(size), target_N.split(size), strict=True):
        logits = (hidden @ head_VD.T).float()
        parts.append(logits.gather(1, target[:, None]).squeeze(1) - logits.logsumexp(dim=-1))
    return torch.cat(parts)


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices of rows grouped by length, longest first, so that a padded group holds at most `tokens` (or one row)."""
    groups: list[list[int]] = []
    room = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if room == 0:
            groups.append([])
            room = max(1, tokens // max(1, lengths[i]))
        groups[-1].append(i)
        room -= 1
    return groups


def score_file(loaded: LoadedModel, path: Path) -> Iterator[dict[str, Any]]:
    """Score each line {"text": ...} of a JSON-lines file, in order.

    A row: `line` (from 1), `ids`, `tokens` (each one's text), `logprobs` in nats (null for the first token, which has
    nothing before it) and their `sum`; or `line` and `error` for a line that cannot be scored.
    """
    if not path.is_file():
        raise RequestError(f'{path}: no such file; give a file of JSON lines {{"text": ...}}')
    with path.open("rb") as file:
        lines = enumerate(file, 1)
        while group := [_encoded(loaded, number, line) for number, line in islice(lines, FILE_LINES)]:
            scores = iter(logprobs(loaded.model, [row["ids"] for row in group if "ids" in row]))
            for row in group:
                if "ids" in row:
                    values = next(scores).tolist()
                    row |= {"logprobs": [None, *values] if row["ids"] else [], "sum": sum(values)}
                yield row


def _encoded(loaded: LoadedModel, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        return {"line": number, "error": f"not JSON: {error}"}
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        return {"line": number, "error": 'no "text" with a string'}
    encoding = loaded.tokenizer.encode(text, add_special_tokens=False)
    if len(encoding.ids) > loaded.context:
        return {"line": number, "error": f"{len(encoding.ids)} tokens; the model's context is {loaded.context}"}
    return {"line": number, "ids": encoding.ids, "tokens": [text[start:end] for start, end in encoding.offsets]}


def check_ids(rows: Sequence[Sequence[int]], vocab_size: int) -> None:
    """Raise `RequestError` if a row holds an id outside the vocabulary."""
    for i, row in enumerate(rows):
        if len(row) and (min(row) < 0 or max(row) >= vocab_size):
            bad = next(token for token in row if not 0 <= token < vocab_size)
            raise RequestError(f"row {i} holds token id {bad}, but the vocabulary has ids 0 to {vocab_size - 1}")
