"""Byte-level BPE: trained here, read back everywhere, and never fooled by text that looks like a special token.

Ids: 0-255 the bytes in a fixed order, then the merges in rank order, then the special tokens, reserved ones at the end.
No normaliser: every text comes back from its ids unchanged.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from glassbox.errors import RequestError
from glassbox.tokens.layout import byte_of_character

END_OF_TEXT = "<|endoftext|>"
"""Ends every document."""
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, START_OF_TURN, END_OF_TURN)
RESERVED = "<|reserved_{}|>"
"""The name of the reserved special token of that number, from 0: no text means it, a stage may (`tangle.py` does)."""

PRE_TOKENIZER = "qwen2"
"""The name under which llama.cpp knows the pattern below (`tokenizer.ggml.pre` in a GGUF file)."""
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where a token can never reach across: words with one leading sign, single digits, runs of signs, line ends."""


def train_tokenizer(texts: Iterable[str], vocab_size: int, reserved: int = 0) -> Tokenizer:
    """Train on texts; `vocab_size` counts bytes, merges and special tokens, `reserved` ones included.

    A merge must have been seen twice, so a small corpus can give a smaller vocabulary: read `get_vocab_size()`.
    """
    special = [*SPECIAL_TOKENS, *map(RESERVED.format, range(reserved))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(special),
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(special)
    tokenizer.encode_special_tokens = True
    return tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read `tokenizer.json`. Special tokens in a text are encoded as the plain characters they are; a frame of special
    tokens is put around texts by id (`chat.py`), so no text can open or close a turn."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise RequestError(f"{path}: no such file; a tokenizer folder holds tokenizer.json")
    tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    tokenizer.encode_special_tokens = True
    return tokenizer


def special_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token. Raises RequestError when the tokenizer lacks it."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise RequestError(f"the tokenizer has no special token {token}; train one with a `tokenizer` stage")
    return found


def reserved_ids(tokenizer: Tokenizer, count: int) -> list[int]:
    """The ids of the first `count` reserved tokens. Raises RequestError when the tokenizer has fewer."""
    found = [tokenizer.token_to_id(RESERVED.format(number)) for number in range(count)]
    ids = [i for i in found if i is not None]
    if len(ids) < count:
        raise RequestError(
            f"the tokenizer has {len(ids)} of the {count} reserved tokens that are needed; "
            f"train one with a `tokenizer` stage that has `reserved: {count}`"
        )
    return ids


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of one text, special tokens inside it taken as plain characters; many are for `encoder.py`."""
    return tokenizer.encode(text, add_special_tokens=False).ids


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ids, special tokens shown by name; bytes that are no UTF-8 become U+FFFD."""
    return tokenizer.decode(list(ids), skip_special_tokens=False)


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes each id stands for, special tokens as none: concatenated over ids they are the text in UTF-8.

    Knows byte-level tokens (ours, GPT-2's) and SentencePiece's (Mistral's), whose first token of a text may bring the
    space that stands before it.
    """
    of_character = byte_of_character()
    byte_level = tokenizer.decoder is not None and b'"ByteLevel"' in tokenizer.decoder.__getstate__()
    added = tokenizer.get_added_tokens_decoder()
    vocabulary = tokenizer.get_vocab()
    pieces = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for token, i in vocabulary.items():
        if i in added:
            pieces[i] = b"" if added[i].special else token.encode()
        elif byte_level:
            pieces[i] = bytes(of_character[character] for character in token)
        elif byte := re.fullmatch(r"<0x([0-9A-F]{2})>", token):
            pieces[i] = bytes.fromhex(byte[1])
        else:
            pieces[i] = token.replace("\u2581", " ").encode()
    return pieces


def byte_lengths(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """(vocab,) UTF-8 bytes per id; 0 for special tokens."""
    return np.array([len(piece) for piece in token_bytes(tokenizer)], dtype=np.int64)
