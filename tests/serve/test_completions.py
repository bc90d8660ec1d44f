"""Plain completions: texts and ids, echo, and what lm-evaluation-harness asks for."""

import pytest
import torch

from glassbox.generate.score import logprobs
from glassbox.tokens.tokenizer import END_OF_TEXT, decode, encode, special_id, token_bytes
from tests.serve.asking import chunks, complete, refusal


def test_text_and_its_ids_are_continued_alike(client, loaded):
    ids = [special_id(loaded.tokenizer, END_OF_TEXT), *encode(loaded.tokenizer, "Tom has")]
    by_text = complete(client, prompt="Tom has", temperature=0).json()
    by_ids = complete(client, prompt=ids, temperature=0).json()
    assert by_text["object"] == "text_completion"
    assert by_text["choices"] == by_ids["choices"]
    assert by_text["usage"] == by_ids["usage"]
    assert by_text["usage"]["completion_tokens"] <= 16  # OpenAI's default


def test_several_prompts_and_choices_come_in_order(client):
    both = complete(client, prompt=["Tom has", "47+"], n=2, seed=4, max_tokens=20).json()
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    alone = complete(client, prompt="47+", n=2, seed=4, max_tokens=20).json()
    assert [c["text"] for c in both["choices"][2:]] == [c["text"] for c in alone["choices"]]


def test_a_streamed_completion_joins_to_the_whole_one(client):
    whole = complete(client, seed=1, max_tokens=50).json()
    events = chunks(complete(client, seed=1, max_tokens=50, stream=True, stream_options={"include_usage": True}))
    assert "".join(c["text"] for event in events for c in event["choices"]) == whole["choices"][0]["text"]
    assert events[-1]["usage"] == whole["usage"]
    assert events[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


def test_echo_with_logprobs_scores_prompts_as_lm_eval_asks(client, loaded):
    rows = [encode(loaded.tokenizer, text) for text in ("Tom has 12 apples.", "日本語 🙂", "47+85=132")]
    ask = {"max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0}
    choices = complete(client, prompt=rows, **ask).json()["choices"]
    for row, choice, expected in zip(rows, choices, logprobs(loaded.model, rows), strict=True):
        found = choice["logprobs"]
        if choice["finish_reason"] == "length":
            assert len(found["token_logprobs"]) == len(row) + 1
        assert found["token_logprobs"][0] is found["top_logprobs"][0] is None
        torch.testing.assert_close(torch.tensor(found["token_logprobs"][1 : len(row)]), expected, atol=1e-4, rtol=0)
        for token, logprob, top in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True):
            if top is not None:
                assert (max(top.values()) <= logprob + 1e-6) == (token in top)  # lm_eval's is_greedy
        assert choice["text"].startswith(decode(loaded.tokenizer, row))
        for token, offset in zip(found["tokens"], found["text_offset"], strict=True):
            assert choice["text"][offset:].startswith(token) or token.startswith(("bytes:", "<|"))
        assert found["text_offset"] == sorted(found["text_offset"])


def test_scoring_alone(client, loaded):
    reply = complete(client, prompt="Tom has 7 pears.", max_tokens=0, echo=True, logprobs=0).json()
    [choice] = reply["choices"]
    assert choice["text"] == "Tom has 7 pears."
    assert reply["usage"]["completion_tokens"] == 0
    assert "".join(choice["logprobs"]["tokens"]) == END_OF_TEXT + choice["text"]
    assert None not in choice["logprobs"]["token_logprobs"][1:]


@pytest.mark.parametrize("prompt", [[], [[]], [[1], []], [5000], [-1], {"a": 1}, [1.5], ["a", 1]])
def test_prompts_that_are_none(client, prompt):
    assert refusal(complete(client, prompt=prompt), 400)["param"].startswith("prompt")


def test_every_byte_is_a_token_that_can_be_named(client, loaded):
    byte = token_bytes(loaded.tokenizer).index(b"\xf0")
    reply = complete(client, prompt=[70, byte, 70], max_tokens=0, echo=True, logprobs=2).json()
    assert reply["choices"][0]["logprobs"]["tokens"][1] == "bytes:\\xf0"
