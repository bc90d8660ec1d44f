"""Text to ids in bulk: byte-level BPE as kernels over Arrow buffers, with the very ids of the `tokenizers` library.

A text is cut into pieces (`pieces.py`); a piece that was met before has its ids in a cache, any other is merged
(`merges.py`). What a tokenizer.json may ask for and these kernels do not know is left to the library (`layout.py` says
what): `Encoder.reason` names it.
"""

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from glassbox.errors import RequestError
from glassbox.tokens.encode_kernels import SLOTS, Cache, Tables, encode_documents, fill_whole
from glassbox.tokens.layout import Layout, Unsupported, read_layout
from glassbox.tokens.merges import merge_tables
from glassbox.tokens.normal_form import nfc_suspects
from glassbox.tokens.pieces import character_classes

Ids = tuple[NDArray[np.uint32], NDArray[np.int64]]
"""Ids of all texts in a row, and where each text's begin (texts + 1,)."""


class Encoder:
    """Encodes as the tokenizer it is made from, special tokens as that one's `encode_special_tokens` says; may be used
    from several threads, one at a time."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self.reason: str | None = None
        """Why the library does the work, or None if the kernels do."""
        try:
            layout = read_layout(tokenizer.to_str(), tokenizer.encode_special_tokens)
        except Unsupported as unsupported:
            self.reason = str(unsupported)
            return
        self._nfc = layout.nfc
        self._raw_tokens = layout.raw_tokens
        self._tables = _tables(layout)
        self._cache = Cache(
            np.zeros((SLOTS, 3), np.uint64),
            np.zeros(2 * SLOTS, np.int32),
            np.zeros(8 * SLOTS, np.uint8),
            np.zeros(3, np.int64),
        )

    @classmethod
    def from_file(cls, path: Path, encode_special_tokens: bool = False) -> "Encoder":
        """From a tokenizer.json. `encode_special_tokens`: special tokens spelled out in a text are plain characters."""
        try:
            tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises nothing narrower
            raise RequestError(f"{path}: is no tokenizer.json ({error})") from error
        tokenizer.encode_special_tokens = encode_special_tokens
        return cls(tokenizer)

    def encode_batch(self, texts: pa.Array) -> Ids:
        """(texts,) large_string without nulls -> ids. Raises RequestError for bytes that are no UTF-8."""
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid as error:
            raise RequestError(f"a text is not valid UTF-8 ({error})") from error
        if not len(texts):
            return np.zeros(0, np.uint32), np.zeros(1, np.int64)
        if self.reason is not None:
            return self._by_library(texts.to_pylist())
        if self._nfc:
            normal = self._normalised(texts)
            if normal is None:
                return self._by_library(texts.to_pylist())
            texts = normal
        return self._by_kernel(texts)

    def _normalised(self, texts: pa.Array) -> pa.Array | None:
        """The texts in NFC, by the library's own tables; None if an added token stands in a text that this changes, for
        the library normalises what is left and right of it by itself."""
        data, offsets = _utf8(texts)
        suspects = nfc_suspects(data, offsets)
        if not suspects.any():
            return texts
        normalizer, changed = self._tokenizer.normalizer, texts.to_pylist()
        for n in np.flatnonzero(suspects):
            before, after = changed[n], normalizer.normalize_str(changed[n])
            if any(token in before or token in after for token in self._raw_tokens):
                return None
            changed[n] = after
        return pa.array(changed, pa.large_string())

    def _by_kernel(self, texts: pa.Array) -> Ids:
        data, offsets = _utf8(texts)
        ids, bounds = np.empty(int(offsets[-1] - offsets[0]), np.uint32), np.zeros(len(texts) + 1, np.int64)
        with self._lock:
            count = encode_documents(data, offsets, self._tables, self._cache, ids, bounds)
        return ids[:count], bounds

    def _by_library(self, texts: list[str]) -> Ids:
        found = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        bounds = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(ids) for ids in found], out=bounds[1:])
        return np.concatenate([np.array(ids, np.uint32) for ids in found] or [np.zeros(0, np.uint32)]), bounds


def encode_texts(encoder: Encoder, texts: list[str]) -> Ids:
    """As `Encoder.encode_batch`, of Python strings. Raises RequestError for a lone surrogate."""
    try:
        return encoder.encode_batch(pa.array(texts, pa.large_string()))
    except UnicodeEncodeError as error:
        raise RequestError(f"a text is not valid Unicode ({error})") from error


def _utf8(texts: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of a large_string array of at least one text, and offsets (texts + 1,) into them; no copy."""
    _, offsets, data = texts.buffers()
    starts = np.frombuffer(offsets, np.int64, len(texts) + 1, texts.offset * 8)
    return np.frombuffer(data or b"", np.uint8), starts


def _tables(layout: Layout) -> Tables:
    pattern = layout.pattern
    raw, normal = ((tree.nodes, tree.leaves) for tree in layout.added)
    merges = merge_tables(layout.byte_ids, layout.merges)
    return Tables(
        character_classes(pattern.marks),
        pattern.signed,
        pattern.digits,
        merges,
        raw,
        normal,
        _whole_tokens(layout.whole),
    )


def _whole_tokens(whole: Mapping[bytes, int]) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    text = np.frombuffer(b"".join(whole), np.uint8)
    ends = np.cumsum([len(token) for token in whole], dtype=np.int64)
    starts = ends - np.array([len(token) for token in whole], np.int64)
    entries = np.stack([starts, ends, np.array(list(whole.values()), np.int64)], axis=1)
    table = np.zeros(1 << (4 * len(whole)).bit_length() if whole else 0, np.int64)
    fill_whole(table, text, entries)
    return table, text, entries
