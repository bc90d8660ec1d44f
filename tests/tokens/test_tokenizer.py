"""The tokenizer: lossless, single digits, fixed ids, deaf to special tokens spelled out in a text."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from glassbox.errors import RequestError
from glassbox.recipe.text import TokenizerStage
from glassbox.tokens.encoder import Encoder, encode_texts
from glassbox.tokens.tokenizer import (
    END_OF_TEXT,
    PATTERN,
    SPECIAL_TOKENS,
    byte_lengths,
    decode,
    encode,
    load_tokenizer,
    reserved_ids,
    special_id,
    token_bytes,
    train_tokenizer,
)

TEXTS = ["the cat sat on the mat 123 times", "the hat and the bat, don't you think?\n\n  x = 1\n"] * 20


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return Encoder(tokenizer)


def test_ids_are_bytes_then_merges_then_special_tokens(tokenizer):
    table = json.loads(tokenizer.to_str())
    size = tokenizer.get_vocab_size()
    pieces = token_bytes(tokenizer)
    assert size == 700
    assert sorted(piece[0] for piece in pieces[:256]) == list(range(256))
    merges = table["model"]["merges"]
    assert len(merges) == size - 256 - 3
    for i, pair in enumerate(merges):
        left, right = (table["model"]["vocab"][part] for part in pair)
        assert pieces[256 + i] == pieces[left] + pieces[right]
    assert [special_id(tokenizer, token) for token in SPECIAL_TOKENS] == [size - 3, size - 2, size - 1]
    assert table["normalizer"] is None


def test_reserved_tokens_stand_last_and_no_text_means_them():
    plain, more = train_tokenizer(TEXTS, 300), train_tokenizer(TEXTS, 304, reserved=4)
    size = more.get_vocab_size()
    assert reserved_ids(more, 4) == list(range(size - 4, size))
    assert size == plain.get_vocab_size() + 4
    assert token_bytes(more) == token_bytes(plain) + [b""] * 4
    assert encode(more, "<|reserved_0|>") == encode(plain, "<|reserved_0|>")
    assert decode(more, [size - 3]) == "<|reserved_1|>"
    with pytest.raises(RequestError, match=r"has 4 of the 9 reserved tokens that are needed; .*`reserved: 9`"):
        reserved_ids(more, 9)


def test_a_vocabulary_without_room_for_reserved_tokens_is_refused():
    with pytest.raises(ValidationError, match="leaves no room: 256 bytes, 3 special tokens and 9 reserved"):
        TokenizerStage(kind="tokenizer", vocab_size=267, reserved=9)


def test_the_ids_of_bytes_do_not_depend_on_the_corpus(tokenizer):
    assert token_bytes(train_tokenizer(TEXTS, 300))[:256] == token_bytes(tokenizer)[:256]


def test_training_is_deterministic():
    assert train_tokenizer(TEXTS, 320).to_str() == train_tokenizer(iter(TEXTS), 320).to_str()


@given(text=st.text())
def test_any_text_comes_back(tokenizer, text):
    ids = encode(tokenizer, text)
    assert decode(tokenizer, ids) == text
    assert b"".join(token_bytes(tokenizer)[i] for i in ids) == text.encode()
    assert byte_lengths(tokenizer)[ids].sum() == len(text.encode())


@given(data=st.binary())
def test_any_bytes_that_are_text_come_back(tokenizer, data):
    text = data.decode("utf-8", errors="replace")
    assert decode(tokenizer, encode(tokenizer, text)) == text


def test_real_text_in_many_languages_comes_back(tokenizer, data):
    for path in sorted((data / "udhr").rglob("*.txt"))[:50]:
        text = path.read_text(encoding="utf-8", errors="replace")
        assert decode(tokenizer, encode(tokenizer, text)) == text


def test_digits_stand_alone(tokenizer):
    assert len(encode(tokenizer, "1234567890")) == 10
    assert not [piece for piece in token_bytes(tokenizer) if re.search(rb"[0-9].|.[0-9]", piece)]


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
@given(before=st.text(max_size=5), after=st.text(max_size=5))
def test_a_special_token_spelled_out_is_plain_text(tokenizer, encoder, token, before, after):
    text = before + token + after
    for ids in (encode(tokenizer, text), encode_texts(encoder, [text])[0].tolist()):
        assert not set(ids) & {special_id(tokenizer, name) for name in SPECIAL_TOKENS}
        assert decode(tokenizer, ids) == text


def test_pretokens_are_those_of_qwen2(tokenizer):
    """Splits written down by hand from the pattern that llama.cpp calls qwen2."""
    splits = {
        "Hello world": ["Hello", " world"],
        "don't WE'LL": ["don", "'t", " WE", "'LL"],
        "x=12+3": ["x", "=", "1", "2", "+", "3"],
        "a  b": ["a", " ", " b"],
        "end.\n\nnext": ["end", ".\n\n", "next"],
        "  \n  y": ["  \n", " ", " y"],
        "(foo)": ["(foo", ")"],
    }
    for text, parts in splits.items():
        assert [text[a:b] for _, (a, b) in tokenizer.pre_tokenizer.pre_tokenize_str(text)] == parts
    assert PATTERN in json.loads(tokenizer.to_str())["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]


def test_a_small_corpus_gives_a_smaller_vocabulary():
    assert train_tokenizer(["ab"], 4096).get_vocab_size() == 259


def test_a_missing_tokenizer_is_a_clear_error(tmp_path):
    with pytest.raises(RequestError, match=r"tokenizer\.json: no such file"):
        load_tokenizer(tmp_path)


def test_decode_names_special_tokens(tokenizer):
    assert decode(tokenizer, [special_id(tokenizer, END_OF_TEXT)]) == END_OF_TEXT
