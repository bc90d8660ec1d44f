"""Scores against one forward pass per row, and files with bad lines."""

import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import glassbox.generate.score as score
from glassbox.errors import RequestError
from glassbox.generate.score import batches, logprobs, score_file
from glassbox.model.folder import LoadedModel

from .models import MIXTURE, V, build, prompts


def test_rows_of_many_lengths_equal_single_rows(monkeypatch):
    monkeypatch.setattr(score, "BATCH_TOKENS", 64)
    monkeypatch.setattr(score, "CHUNK_LOGITS", 5 * V)
    model = build(MIXTURE)
    rows = [*prompts(15), [], [7]]
    for row, values in zip(rows, logprobs(model, rows), strict=True):
        if len(row) < 2:
            assert values.tolist() == []
            continue
        logits = model(torch.tensor([row])).hidden_BTD[0] @ model.head_VD.T
        expected = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(row[1:])[:, None])[:, 0]
        torch.testing.assert_close(values, expected.detach(), atol=1e-5, rtol=1e-5)
    assert logprobs(model, []) == []
    with pytest.raises(RequestError, match=f"row 1 holds token id {V}"):
        logprobs(model, [[1], [2, V]])


def test_batches_hold_each_row_once_within_the_budget():
    lengths = [5, 9, 1, 40, 9, 0, 3]
    groups = batches(lengths, 18)
    assert sorted(i for group in groups for i in group) == list(range(7))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= 18


def test_a_file_is_scored_line_by_line_and_bad_lines_are_told(tmp_path):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i % V for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    loaded = LoadedModel(build(MIXTURE), MIXTURE, V, 16, tokenizer)
    path = tmp_path / "texts.jsonl"
    good = {"text": "a b\u00e9"}
    lines = [
        json.dumps(good).encode(),
        b"{broken",
        b'{"other": 1}',
        b"\xff",
        b'{"text": ""}',
        json.dumps({"text": "x" * 17}).encode(),
    ]
    path.write_bytes(b"\n".join(lines))
    first, broken, other, invalid, empty, long = score_file(loaded, path)
    assert first["line"] == 1
    assert first["tokens"][:3] == ["a", " ", "b"]
    assert first["logprobs"][0] is None
    torch.testing.assert_close(torch.tensor(first["logprobs"][1:]), logprobs(loaded.model, [first["ids"]])[0])
    assert first["sum"] == pytest.approx(sum(first["logprobs"][1:]))
    assert (empty["ids"], empty["logprobs"], empty["sum"]) == ([], [], 0)
    assert [row["line"] for row in (broken, other, invalid, long)] == [2, 3, 4, 6]
    assert "not JSON" in broken["error"]
    assert "text" in other["error"]
    assert "error" in invalid
    assert "17 tokens" in long["error"]
    with pytest.raises(RequestError, match="no such file"):
        list(score_file(loaded, tmp_path / "nothing"))
