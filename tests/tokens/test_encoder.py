"""The encoder gives the ids of the `tokenizers` library for every layout, vocabulary and text, or says why it does not
try."""

import gzip
import json
import random
import threading
import unicodedata
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from glassbox.errors import RequestError
from glassbox.tokens import encode_kernels, encoder
from glassbox.tokens.encoder import Encoder, encode_texts
from tests.tokens.layouts import HARD, LAYOUTS, hard_texts, in_layout, large_tokenizer

LONGEST = 6_000
"""Bytes of each file of real text that are encoded: the library is slow."""
CASES = [(name, as_text) for name in LAYOUTS for as_text in (False, True)]


@pytest.fixture(scope="module")
def pairs(tokenizer):
    """(layout, whether special tokens are plain text) -> (library, encoder), both of 700 entries."""
    return {case: both(in_layout(tokenizer, case[0]), case[1]) for case in CASES}


@pytest.fixture(scope="module")
def large():
    """The same of 150,000 entries."""
    tokenizer = large_tokenizer(150_000)
    assert tokenizer.get_vocab_size() == 150_000
    return {name: both(in_layout(tokenizer, name), True) for name in ("qwen2", "llama 3")}


def both(text, as_text):
    library = Tokenizer.from_str(text)
    library.encode_special_tokens = as_text
    return library, Encoder(library)


def assert_same_ids(pair, texts):
    library, own = pair
    assert own.reason is None
    ids, bounds = encode_texts(own, texts)
    assert (ids.dtype, bounds.dtype, len(bounds)) == (np.uint32, np.int64, len(texts) + 1)
    expected = [encoding.ids for encoding in library.encode_batch_fast(texts, add_special_tokens=False)]
    found = [ids[start:end].tolist() for start, end in pairwise(bounds)]
    wrong = [text for text, mine, theirs in zip(texts, found, expected, strict=True) if mine != theirs]
    assert not wrong


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=100)
@given(texts=st.lists(hard_texts, max_size=5))
def test_hard_texts_have_the_ids_of_the_library(pairs, case, texts):
    assert_same_ids(pairs[case], texts)


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=100)
@given(texts=st.lists(st.text(), max_size=5))
def test_any_text_has_the_ids_of_the_library(pairs, case, texts):
    assert_same_ids(pairs[case], texts)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_pair_of_hard_pieces(pairs, case):
    assert_same_ids(pairs[case], [left + right for left in HARD for right in HARD])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_character_alone_and_after_a_letter(pairs, case):
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    known = [point for point in points if unicodedata.category(point) not in ("Cn", "Co")]
    known = known if case[1] else random.Random(1).sample(known, 10_000)
    assert_same_ids(
        pairs[case], [" ".join(f"{c}x{c}1{c}" for c in known[i : i + 50]) for i in range(0, len(known), 50)]
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_source_code(pairs, corpus, case):
    assert_same_ids(pairs[case], [row["text"] for row in corpus])


def test_source_code_through_a_large_vocabulary(large, corpus):
    for pair in large.values():
        assert_same_ids(pair, [row["text"] for row in corpus])


@settings(max_examples=100)
@given(texts=st.lists(hard_texts | st.text(), max_size=5))
def test_texts_through_a_large_vocabulary(large, texts):
    for pair in large.values():
        assert_same_ids(pair, texts)


def test_made_up_words_through_a_large_vocabulary(large):
    """Where most merges apply, and where Llama 3 takes a word that the merges would not make."""
    library, _ = large["llama 3"]
    words = [library.decode([i]) for i in range(300, 150_000, 37)]
    draw = random.Random(2)
    texts = [" ".join(draw.choices(words, k=200)) for _ in range(50)] + words
    for pair in large.values():
        assert_same_ids(pair, texts)


def real_texts(data):
    """A piece of every text file of the data, and documents out of every JSON Lines file."""
    for path in sorted(data.rglob("*")):
        if path.is_file() and path.suffix not in (".parquet", ".zst") and not path.name.endswith((".tar.gz", ".tgz")):
            try:
                with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                    content = file.read(LONGEST)
            except EOFError:
                continue  # a file that is cut off on purpose
            yield from content.decode("utf-8", errors="replace").split("\n", 4)


@pytest.mark.parametrize("name", ["qwen2", "neox"])
def test_real_text(pairs, data, name):
    texts = list(real_texts(data))
    assert sum(map(len, texts)) > 1_000_000
    assert_same_ids(pairs[name, True], texts)


def test_real_text_through_a_large_vocabulary(large, data):
    assert_same_ids(large["qwen2"], list(real_texts(data)))


@pytest.mark.parametrize(
    "text",
    [
        *("a" * 1_000_000, "ab" * 300_000, " " * 500_000 + "x", "\n" * 300_000, "=" * 500_000, "\u4f60\u597d" * 50_000),
        *("1" * 100_000, "\u0301" * 20_000, "'" * 100_000, " \n" * 100_000 + " " * 100_000, "the cat" * 30_000),
    ],
    ids=lambda text: repr(text[:7]),
)
def test_long_runs_of_one_kind(pairs, text):
    """A million equal letters are one piece: a merge that looked at every pair each time would never end."""
    for name in ("qwen2", "gpt2"):
        assert_same_ids(pairs[name, True], [text])


def test_the_cache_starts_anew_when_it_is_full(tokenizer, corpus, monkeypatch):
    monkeypatch.setattr(encoder, "SLOTS", 256)
    pair = both(in_layout(tokenizer, "qwen2"), True)
    texts = [row["text"] for row in corpus] + ["x" * size + "y" * 20 for size in range(100)]
    for _ in range(2):
        assert_same_ids(pair, texts)
    assert 0 < pair[1]._cache.fill[0] <= 160


def test_batches_do_not_matter(pairs, corpus):
    texts = [row["text"] for row in corpus][:60]
    own = pairs["qwen2", True][1]
    together, bounds = encode_texts(own, texts)
    alone = [encode_texts(own, [text])[0].tolist() for text in texts]
    assert [together[a:b].tolist() for a, b in pairwise(bounds)] == alone


def test_slices_of_an_array_and_no_text_at_all(pairs):
    own = pairs["qwen2", True][1]
    texts = pa.array(["one", "", "two three", "vier"], pa.large_string())
    ids, bounds = own.encode_batch(texts.slice(1, 2))
    assert ids.tolist() == encode_texts(own, ["two three"])[0].tolist()
    assert bounds.tolist() == [0, 0, len(ids)]
    for empty in (pa.array([], pa.large_string()), texts.slice(4)):
        ids, bounds = own.encode_batch(empty)
        assert (ids.tolist(), bounds.tolist()) == ([], [0])


def test_threads_share_an_encoder(pairs, corpus):
    own, texts = pairs["qwen2", True][1], [row["text"] for row in corpus]
    expected = encode_texts(own, texts)[0].tolist()
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append(encode_texts(own, texts)[0].tolist())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_bytes_that_are_no_text_are_a_clear_error(pairs):
    own = pairs["qwen2", True][1]
    for bad in (b"\xff", b"ab\xe4\xbd", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"):
        array = pa.Array.from_buffers(
            pa.large_string(), 1, [None, pa.py_buffer(np.array([0, len(bad)], np.int64)), pa.py_buffer(bad)]
        )
        with pytest.raises(RequestError, match="a text is not valid UTF-8"):
            own.encode_batch(array)
    with pytest.raises(RequestError, match="a text is not valid Unicode"):
        encode_texts(own, ["a\ud800b"])


def test_what_the_kernels_do_not_know_is_left_to_the_library(tokenizer):
    table = json.loads(in_layout(tokenizer, "qwen2"))
    table["pre_tokenizer"]["pretokenizers"].insert(0, {"type": "Digits", "individual_digits": True})
    library, own = both(json.dumps(table), True)
    assert own.reason == "pre-tokenizer Digits + Split + ByteLevel"
    ids, bounds = encode_texts(own, ["hello 42", "", "x"])
    assert [ids[a:b].tolist() for a, b in pairwise(bounds)] == [
        library.encode(text, add_special_tokens=False).ids for text in ("hello 42", "", "x")
    ]


def test_from_file(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str())
    end = tokenizer.token_to_id("<|endoftext|>")
    assert encode_texts(Encoder.from_file(path), ["<|endoftext|>"])[0].tolist() == [end]
    assert len(encode_texts(Encoder.from_file(path, encode_special_tokens=True), ["<|endoftext|>"])[0]) > 1
    path.write_text("{}")
    with pytest.raises(RequestError, match=r"tokenizer\.json: is no tokenizer\.json"):
        Encoder.from_file(path)


def test_the_size_of_a_piece_fits_into_its_key():
    assert encode_kernels.LONGEST_CACHED < 128
