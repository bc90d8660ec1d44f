"""Tokenizers in the layouts of published families, and texts that are hard to cut."""

import json
import random

from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from glassbox.tokens.tokenizer import PATTERN

GPT4 = PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
MARKS = PATTERN.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]+", r"[^\s\p{L}\p{M}\p{N}]+")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def split(pattern: str, behavior: str = "Isolated", invert: bool = False) -> dict:
    """A pattern, then bytes to characters."""
    first = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}
    return {"type": "Sequence", "pretokenizers": [first, BYTE_LEVEL | {"use_regex": False}]}


def added(first_id: int, contents: list[str], **options: bool) -> list[dict]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": first_id + n, "content": content} | plain | options for n, content in enumerate(contents)]


NFC = {"type": "NFC"}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|a  b|>"]
TOOLS = ["<tool_call>", "</tool_call>", "<tool", "K>"]
BLANKS = [" " * count for count in range(2, 25)]
SPECIALS, TOOL_TOKENS = added(200_000, SPECIAL), added(200_100, TOOLS, special=False)
BLANK_TOKENS = added(200_200, BLANKS, special=False, normalized=True)

LAYOUTS: dict[str, dict] = {
    "gpt2": {"pre_tokenizer": BYTE_LEVEL, "added_tokens": SPECIALS},
    "gpt2 as a pattern": {"pre_tokenizer": split(GPT2)},
    "gpt-4": {"pre_tokenizer": split(GPT4, "Removed", True), "added_tokens": SPECIALS},
    "qwen2": {"pre_tokenizer": split(PATTERN), "normalizer": NFC, "added_tokens": SPECIALS + TOOL_TOKENS},
    "qwen3-next": {"pre_tokenizer": split(MARKS), "normalizer": NFC, "added_tokens": SPECIALS},
    "llama 3": {"pre_tokenizer": split(GPT4), "added_tokens": SPECIALS, "model": {"ignore_merges": True}},
    "neox": {
        "pre_tokenizer": BYTE_LEVEL,
        "normalizer": {"type": "Sequence", "normalizers": [NFC]},
        "added_tokens": SPECIALS + BLANK_TOKENS,
    },
}


def in_layout(tokenizer: Tokenizer, name: str) -> str:
    """The tokenizer.json of the tokenizer's merges in a published layout."""
    table = json.loads(tokenizer.to_str())
    changes = {"normalizer": None, "added_tokens": [], "post_processor": None, **LAYOUTS[name]}
    changes["model"] = table["model"] | changes.get("model", {})
    return json.dumps(table | changes)


def large_tokenizer(size: int) -> Tokenizer:
    """A vocabulary of made-up words, half in Latin letters, half in Han characters."""
    draw = random.Random(0)
    syllables = [a + b + c for a in "bcdfghklmnprstvz" for b in "aeiou" for c in ("", "n", "s", "r", "l")]
    han = [chr(point) for point in range(0x4E00, 0x4E00 + 3000)]
    words = ["".join(draw.choices(kind, k=draw.randint(1, 5))) for kind in (syllables, han) for _ in range(60_000)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(words)], trainer)
    return tokenizer


HARD = [
    *(
        "'",
        "'s",
        "'S",
        "'LL",
        "'ve",
        "'r",
        "'\u017f",
        "don't",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u00a0",
        "\u3000",
        "\x1c",
    ),
    *(
        "\u2028",
        "\x85",
        "1",
        "12",
        "\u0663",
        "\u00bd",
        "\u2460",
        "a",
        "Z",
        "\u00e9",
        "e\u0301",
        "\u0301",
        "\u0338",
        ">",
    ),
    *("\u212b", "\u212a", "\uac00", "\u1100\u1161\u11a8", "\u0928\u093c", "\u0e01\u0e33", "\u4f60\u597d", "\U0001f469"),
    *(
        "\u200d",
        "\U0001f1e9",
        "\ufe0f",
        "\ufeff",
        "\ufffd",
        "\x00",
        "#",
        "...",
        "->",
        "_",
        "/",
        "\U0001d4d0",
        "\U00013000",
    ),
    *("\U0010ffff", "\U000323af", "\u0378", "hello", " world", "self.assertEqual(", *SPECIAL, *TOOLS, "<|a", "</tool"),
]
"""Pieces of text at the borders of every pattern."""
hard_texts = st.lists(st.sampled_from(HARD) | st.text(max_size=3), max_size=30).map("".join)
