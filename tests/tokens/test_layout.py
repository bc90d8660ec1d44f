"""Reading tokenizer.json: published layouts are understood, everything else is named."""

import json

import pytest

from glassbox.tokens.layout import PLAIN, Unsupported, read_layout
from tests.tokens.layouts import LAYOUTS, added, in_layout


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_layouts(tokenizer, name):
    layout = read_layout(in_layout(tokenizer, name), encode_special_tokens=True)
    assert layout.pattern.signed == (name not in ("gpt2", "gpt2 as a pattern", "neox"))
    assert layout.nfc == (name in ("qwen2", "qwen3-next", "neox"))
    assert bool(layout.whole) == (name == "llama 3")
    assert len(layout.merges) == 700 - 256 - 3
    assert {int(i) for tree in layout.added for i in tree.leaves if i >= 0} == {
        token["id"] for token in LAYOUTS[name].get("added_tokens", []) if not token["special"]
    }


def test_special_tokens_are_looked_for_or_passed_over(tokenizer):
    text = in_layout(tokenizer, "qwen2")
    taken, passed = (read_layout(text, as_text).added[0].leaves for as_text in (False, True))
    assert PLAIN not in taken
    assert (passed == PLAIN).sum() == (taken >= 0).sum() - (passed >= 0).sum() == 4
    assert read_layout(text, True).raw_tokens == ("<tool_call>", "</tool_call>", "<tool", "K>")


def test_a_space_between_the_halves_of_a_merge_is_read_as_well(tokenizer):
    table = json.loads(in_layout(tokenizer, "gpt2"))
    pairs = read_layout(json.dumps(table), True).merges
    table["model"]["merges"] = [" ".join(pair) for pair in table["model"]["merges"]]
    assert read_layout(json.dumps(table), True).merges == pairs


def changed(table, path, value):
    for name in path[:-1]:
        table = table[name]
    table[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("model", "type"), "Unigram", "model Unigram"),
        (("model", "dropout"), 0.1, "model option dropout"),
        (("model", "end_of_word_suffix"), "</w>", "model option end_of_word_suffix"),
        (("normalizer",), {"type": "NFKC"}, "normalizer NFKC"),
        (("normalizer",), {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}, "normalizer Lowercase"),
        (("pre_tokenizer",), None, "no pre-tokenizer"),
        (("pre_tokenizer",), {"type": "Metaspace"}, "pre-tokenizer Metaspace"),
        (("pre_tokenizer", "pretokenizers", 1, "add_prefix_space"), True, "add_prefix_space"),
        (("pre_tokenizer", "pretokenizers", 1, "use_regex"), True, "two patterns"),
        (("pre_tokenizer", "pretokenizers", 0, "pattern"), {"Regex": r"\w+"}, r"pattern Isolated \\w\+"),
        (("pre_tokenizer", "pretokenizers", 0, "pattern"), {"String": " "}, "pattern Isolated"),
        (("pre_tokenizer", "pretokenizers", 0, "behavior"), "Removed", "pattern Removed"),
        (("added_tokens",), added(9, ["x"], special=False, lstrip=True), "added token 'x' with lstrip"),
        (("added_tokens",), added(9, ["\u00e9"], special=False, normalized=True), "which normalisation may change"),
        (("added_tokens",), added(9, [str(n) * 9 for n in range(5000)], special=False), "5000 added tokens"),
    ],
)
def test_anything_else_is_named(tokenizer, path, value, reason):
    table = json.loads(in_layout(tokenizer, "qwen2"))
    changed(table, path, value)
    with pytest.raises(Unsupported, match=reason):
        read_layout(json.dumps(table), True)


def test_a_vocabulary_without_a_byte_is_named(tokenizer):
    table = json.loads(in_layout(tokenizer, "gpt2"))
    table["model"]["vocab"].pop("\u0100")
    with pytest.raises(Unsupported, match="no token for the byte 0"):
        read_layout(json.dumps(table), True)
