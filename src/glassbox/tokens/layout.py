"""Reading a tokenizer.json: what the kernels need of it, or the reason why they cannot stand in for the library."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glassbox.tokens.merges import MOST_ENTRIES
from glassbox.tokens.pieces import GPT2, Pattern, patterns

MOST_NODES = 1 << 14
"""Nodes of the tree of added tokens: 1 kB each."""
PLAIN = -2
"""A leaf of the tree that is found and left in the text: a special token that is to be read as its characters."""


class Unsupported(Exception):
    """The tokenizer does something that the kernels do not know; the message names it."""


@dataclass(frozen=True)
class Tree:
    """Added tokens by their bytes."""

    nodes: NDArray[np.int32]
    """(nodes, 256) the next node, 0 for none; (0, 256) without tokens."""
    leaves: NDArray[np.int32]
    """(nodes,) the id of the token that ends here, -1 for none, PLAIN."""


@dataclass(frozen=True)
class Layout:
    """A byte-level BPE tokenizer."""

    pattern: Pattern
    byte_ids: NDArray[np.int32]
    """(256,)"""
    merges: dict[tuple[int, int], tuple[int, int]]
    """(left id, right id) -> (rank, new id)"""
    whole: dict[bytes, int]
    """Pieces that are tokens as they stand, whatever the merges say (Llama 3); else empty."""
    added: tuple[Tree, Tree]
    """Added tokens looked for in the text as it is, and in the normalised text between those."""
    nfc: bool
    """Texts are normalised to NFC first."""
    raw_tokens: tuple[str, ...]
    """Added tokens that are looked for before a text is normalised."""


def byte_of_character() -> dict[str, int]:
    """The byte-level alphabet of GPT-2: printable Latin-1 characters stand for themselves, the other bytes for the
    characters from U+0100 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


def read_layout(text: str, encode_special_tokens: bool) -> Layout:
    """The layout of a tokenizer.json's text. Raises Unsupported."""
    table = json.loads(text)
    model, nfc = table["model"], _nfc(table["normalizer"])
    if model["type"] != "BPE":
        raise Unsupported(f"model {model['type']}")
    odd = [name for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]
    if odd:
        raise Unsupported(f"model option {odd[0]}")
    pattern = _pattern(table["pre_tokenizer"])
    of_character, vocabulary = byte_of_character(), model["vocab"]
    missing = [character for character in of_character if character not in vocabulary]
    if missing:
        raise Unsupported(f"no token for the byte {of_character[missing[0]]}")
    if max(vocabulary.values()) >= MOST_ENTRIES or len(model["merges"]) >= MOST_ENTRIES:
        raise Unsupported(f"more than {MOST_ENTRIES} entries")
    byte_ids = np.zeros(256, np.int32)
    for character, byte in of_character.items():
        byte_ids[byte] = vocabulary[character]
    merges = {}
    for rank, pair in enumerate(model["merges"]):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        merges[vocabulary[left], vocabulary[right]] = (rank, vocabulary[left + right])
    whole = {}
    if model.get("ignore_merges"):
        for token, i in vocabulary.items():
            if all(character in of_character for character in token):
                whole[bytes(of_character[character] for character in token)] = i
    added = [token | {"plain": encode_special_tokens and token["special"]} for token in table["added_tokens"]]
    raw = tuple(token["content"] for token in added if not token["normalized"] and not token["plain"])
    return Layout(pattern, byte_ids, merges, whole, _added(added, nfc), nfc, raw)


def _nfc(normalizer: Any) -> bool:
    if normalizer is None:
        return False
    parts = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    other = [part["type"] for part in parts if part["type"] != "NFC"]
    if other:
        raise Unsupported(f"normalizer {other[0]}")
    return bool(parts)


def _pattern(pre_tokenizer: Any) -> Pattern:
    """The pattern of `ByteLevel` alone, or of `Split` and then `ByteLevel` without a pattern of its own."""
    if pre_tokenizer is None:
        raise Unsupported("no pre-tokenizer")
    parts = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    kinds = [part["type"] for part in parts]
    if kinds not in (["ByteLevel"], ["Split", "ByteLevel"]):
        raise Unsupported(f"pre-tokenizer {' + '.join(kinds)}")
    if parts[-1]["add_prefix_space"]:
        raise Unsupported("pre-tokenizer ByteLevel with add_prefix_space")
    own = parts[-1].get("use_regex", True)
    if own == (len(parts) == 2):
        raise Unsupported("pre-tokenizer with two patterns or with none")
    if own:
        return GPT2
    split = parts[0]
    expression = split["pattern"].get("Regex", "")
    if expression not in patterns() or (split["behavior"], split["invert"]) not in (
        ("Isolated", False),
        ("Removed", True),
    ):
        raise Unsupported(f"pattern {split['behavior']} {expression or split['pattern']}")
    return patterns()[expression]


def _added(tokens: list[dict], nfc: bool) -> tuple[Tree, Tree]:
    """A special token that is to be read as its characters still ends the search for others inside it, so it stays in
    the tree unless there is nothing else to look for."""
    groups: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
    for token in tokens:
        if not token["plain"]:
            odd = [name for name in ("single_word", "lstrip", "rstrip") if token[name]]
            if odd:
                raise Unsupported(f"added token {token['content']!r} with {odd[0]}")
            if nfc and token["normalized"] and not token["content"].isascii():
                raise Unsupported(f"added token {token['content']!r}, which normalisation may change")
        groups[token["normalized"]][token["content"].encode()] = PLAIN if token["plain"] else token["id"]
    return _tree(groups[False]), _tree(groups[True])


def _tree(tokens: Mapping[bytes, int]) -> Tree:
    if all(i == PLAIN for i in tokens.values()):
        return Tree(np.zeros((0, 256), np.int32), np.zeros(0, np.int32))
    if 1 + sum(map(len, tokens)) > MOST_NODES:
        raise Unsupported(f"{len(tokens)} added tokens")
    nodes, leaves, count = np.zeros((1 + sum(map(len, tokens)), 256), np.int32), [-1], 1
    for content, i in tokens.items():
        node = 0
        for byte in content:
            if not nodes[node, byte]:
                nodes[node, byte] = count
                leaves.append(-1)
                count += 1
            node = nodes[node, byte]
        leaves[node] = i
    return Tree(nodes[:count].copy(), np.array(leaves, np.int32))
