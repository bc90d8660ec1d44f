"""Documents as vectors of length 1, whose cosine says how alike they are.

`word_vectors` needs no model: words and pairs of words, hashed with random signs to 256 numbers (Weinberger et al.,
Feature Hashing, ICML 2009), weighted by 1 + ln(count) and by length, since long words are rare ones (Zipf). It stands
in for TF-IDF with weights that do not depend on the other documents: a weak measure of meaning, and an honest one of
shared vocabulary. `encoder_vectors` asks an encoder model for the mean of its last hidden states.
"""

import json
from typing import Any

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.characters import mix, utf8_buffer
from glassbox.curate.staging import read_once
from glassbox.curate.words import BASE, read_words, word_characters
from glassbox.errors import RequestError
from glassbox.recipe.paths import home

WIDTH = 256
"""Numbers of a word vector."""
ENCODER_TOKENS = 512
"""Tokens of a document that an encoder reads, at most."""
_COUNTED_LENGTH = 15
_SPREAD = 4
"""Numbers that one word is added to."""


def word_vectors(texts: pa.Array) -> NDArray[np.float32]:
    """(documents,) large_string -> (documents, 256); zeros for a document without words."""
    data, offsets = utf8_buffer(texts)
    out = np.zeros((len(texts), WIDTH), np.float32)
    _vectors(data, offsets, word_characters(), out)
    return out


def encoder_vectors(texts: pa.Array, folder: str) -> NDArray[np.float32]:
    """(documents,) large_string -> (documents, hidden size) from the first 512 tokens of each document.

    Documents go through the model one by one, so that padding and neighbours change nothing.
    """
    import torch

    tokenizer, model = _encoder(folder)
    longest = min(ENCODER_TOKENS, getattr(model.config, "max_position_embeddings", ENCODER_TOKENS))
    out = np.zeros((len(texts), model.config.hidden_size), np.float32)
    with torch.inference_mode():
        for row, text in enumerate(texts.to_pylist()):
            batch = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
            if batch["input_ids"].shape[1]:
                mean = model(**batch).last_hidden_state[0].float().mean(0)
                out[row] = torch.nn.functional.normalize(mean, dim=0).numpy()
    return out


def encoder_width(folder: str) -> int:
    """Hidden size of the encoder in the folder."""
    try:
        return int(json.loads((home(folder) / "config.json").read_text(encoding="utf-8"))["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RequestError(
            f"{folder} holds no encoder: a folder with config.json (with hidden_size), weights and tokenizer is needed"
        ) from None


@read_once
def _encoder(folder: str) -> tuple[Any, Any]:
    encoder_width(folder)
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError:
        raise RequestError(f"embedding with the model in {folder} needs `pip install transformers`") from None
    path = str(home(folder))
    try:
        model = AutoModel.from_pretrained(path, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"{folder} cannot be loaded as an encoder: {str(error).splitlines()[0]}") from None
    return tokenizer, model.eval()


@numba.njit(nogil=True, cache=True)
def _vectors(data, offsets, characters, out) -> None:  # type: ignore[no-untyped-def]
    for d in range(len(out)):
        most = (offsets[d + 1] - offsets[d]) // 2 + 1
        words, starts, ends = np.empty(most, np.uint64), np.empty(most, np.int64), np.empty(most, np.int64)
        n = read_words(data, offsets[d], offsets[d + 1], characters, words, starts, ends)
        # The lowest bits of a feature say what it weighs: the bytes of a word, 0 for a pair of words.
        features = np.empty(max(2 * n - 1, 0), np.uint64)
        low = np.uint64(_COUNTED_LENGTH)
        for i in range(n):
            features[i] = (words[i] & ~low) | np.uint64(min(ends[i] - starts[i], _COUNTED_LENGTH))
        for i in range(n - 1):
            features[n + i] = mix(words[i] * BASE + words[i + 1]) & ~low
        features.sort()
        _add(features, out[d])


@numba.njit(nogil=True, cache=True)
def _add(features, row) -> None:  # type: ignore[no-untyped-def]
    total = np.zeros(len(row), np.float64)
    i = 0
    while i < len(features):
        j = i
        while j < len(features) and features[j] == features[i]:
            j += 1
        length = features[i] & np.uint64(_COUNTED_LENGTH)
        weight = (1.0 + np.log(np.float64(j - i))) * (0.5 * np.float64(length) if length else 2.0)
        where = features[i]
        for _ in range(_SPREAD):
            where = mix(where + BASE)
            sign = 1.0 if where >> np.uint64(63) else -1.0
            total[np.int64(where & np.uint64(len(row) - 1))] += sign * weight
        i = j
    norm = np.sqrt((total * total).sum())
    if norm > 0:
        for k in range(len(row)):
            row[k] = total[k] / norm
