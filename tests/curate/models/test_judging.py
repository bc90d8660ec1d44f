"""The judge against local HTTP servers: a scripted one, and glassbox's own. How one is asked: test_asking.py."""

import json
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glassbox.curate.models import judging
from glassbox.curate.models.judging import label, parse_class, parse_scores, scores
from glassbox.errors import Interrupted, RequestError
from glassbox.model.folder import LoadedModel
from glassbox.model.transformer import Transformer
from glassbox.recipe.classify import Judge
from glassbox.recipe.network import Attention, Network
from glassbox.serve.app import create_app
from glassbox.tokens.tokenizer import train_tokenizer
from tests.completions import question, serving

CLASSES = ("science", "sport", "Other things")


def judge_at(url, **changes):
    return Judge(url=url, model="m", characters=50, **changes)


def by_word(body):
    """An oracle: the class that stands in the text, or small talk."""
    text = question(body).split("<<<")[1]
    return "science" if "atom" in text else "**Sport**." if "goal" in text else "I think this is about cooking."


def test_labels_come_back_in_order_and_nothing_is_asked_twice(tmp_path):
    with serving(by_word) as (url, bodies):
        texts = [f"{i} atoms" if i % 3 == 0 else f"{i} goals" if i % 3 == 1 else f"{i} soups" for i in range(30)] * 2
        expected = ["science", "sport", None] * 20
        assert label(texts, judge_at(url), CLASSES, tmp_path) == expected
        assert len({question(body) for body in bodies}) == len(bodies) == 30
        assert {(body["temperature"], body["max_tokens"]) for body in bodies} == {(0, 1024)}
        assert all("science, sport, Other things" in question(body) for body in bodies)
        assert label(texts, judge_at(url), CLASSES, tmp_path) == expected
        assert len(bodies) == 30
        label(texts[:2], judge_at(url).model_copy(update={"model": "other"}), CLASSES, tmp_path)
        assert len(bodies) == 32


def test_a_stage_stopped_in_the_middle_goes_on_from_what_was_answered(tmp_path):
    texts = [f"atom {i}" for i in range(40)]
    seen = []

    def stop():
        seen.append(1)
        if len(seen) == 10:
            raise Interrupted("stopped")

    with serving(by_word) as (url, bodies):
        with pytest.raises(Interrupted):
            label(texts, judge_at(url), CLASSES, tmp_path, stop)
        with (tmp_path / judging.ANSWERS).open("ab") as file:
            file.write(b'{"key": "torn')
        assert label(texts, judge_at(url), CLASSES, tmp_path) == ["science"] * 40
        assert len(bodies) == 40
    rows = [json.loads(line) for line in (tmp_path / judging.ANSWERS).read_bytes().splitlines()]
    assert len({row["key"] for row in rows}) == len(rows) == 40


def test_a_text_that_is_declined_is_no_label(tmp_path):
    with serving(lambda body: (400, b"too long") if "bad" in question(body) else "sport") as (url, bodies):
        assert label(["fine", "bad", "well"], judge_at(url), CLASSES, tmp_path) == ["sport", None, "sport"]
        assert label(["fine", "bad"], judge_at(url), CLASSES, tmp_path) == ["sport", None]
        assert len(bodies) == 4


def test_a_judge_that_goes_leaves_what_it_answered(tmp_path):
    def two_then_none(body):
        return "sport" if question(body)[-1] in "01" else (400, b"no")

    with serving(two_then_none) as (url, bodies):
        judge = judge_at(url, parallel=1, prompt="{text}")
        for asked in (10, 18):
            with pytest.raises(RequestError, match=r"the judge at .* does not answer: .*; what it has answered so far"):
                label([str(i) for i in range(10)], judge, CLASSES, tmp_path)
            assert len(bodies) == asked


def test_scores_are_numbers_for_every_name(tmp_path):
    def rate(body):
        good = "good" in question(body)
        return '```json\n{"depth": 4, "style": 2.5}\n```' if good else '{"depth": "high", "style": 1}'

    with serving(rate) as (url, _):
        found = scores(["good one", "other"], judge_at(url), ("depth", "style"), tmp_path)
    assert found == [{"depth": 4.0, "style": 2.5}, None]


def test_the_prompt_is_the_recipes_and_the_text_is_not_read_as_one(tmp_path):
    with serving(lambda body: "sport") as (url, bodies):
        label(["{classes} {text}" + "x" * 100], judge_at(url, prompt="{classes}? {text}"), CLASSES, tmp_path)
    assert [question(body) for body in bodies] == ["science, sport, Other things? {classes} {text}" + "x" * 34]


def test_answers_are_read_strictly():
    assert parse_class(' "Science".\n', CLASSES) == "science"
    assert parse_class("<think>sport? no</think>\nother THINGS", CLASSES) == "Other things"
    assert parse_class("science or sport", CLASSES) is None
    assert parse_class("", CLASSES) is None
    assert parse_class("A", ("a", "A")) is None
    assert parse_scores('{"a": 1, "b": 0.5, "c": 9}', ("a", "b")) == {"a": 1.0, "b": 0.5}
    assert parse_scores("<think>3</think> 4", ("a",)) == {"a": 4.0}
    for wrong in (
        '{"a": true}',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": 1' + "0" * 400 + "}",
        "[1]",
        "4 of 5",
        "[" * 9999,
    ):
        assert parse_scores(wrong, ("a",)) is None


@given(st.text())
def test_no_answer_breaks_the_readers(answer):
    assert parse_class(answer, CLASSES) in (*CLASSES, None)
    assert parse_scores(answer, ("a",)) is None or isinstance(parse_scores(answer, ("a",))["a"], float)


@pytest.fixture
def own_server():
    """Our own server with a random tiny model, on a free port; the judge that asks it."""
    uvicorn = pytest.importorskip("uvicorn")
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(["What is 47 + 85? science sport\n"] * 3, 300)
    network = Network(dim=16, layers=1, attention=Attention(heads=2, kv_heads=1), hidden=32, init_std=0.3)
    model = Transformer(network, tokenizer.get_vocab_size())
    model.init_weights(3)
    app = create_app(LoadedModel(model, network, tokenizer.get_vocab_size(), 96, tokenizer), name="tiny", slots=2)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Judge(url=f"http://127.0.0.1:{port}/v1", model="tiny", prompt="{text}?", answer_tokens=4)
    server.should_exit = True
    thread.join()


def test_our_own_server_is_understood(own_server, tmp_path):
    found = label(["one", "two", "x" * 4000], own_server, CLASSES, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / judging.ANSWERS).read_bytes().splitlines()]
    assert len(rows) == 2  # the third is longer than the context: refused, and no label
    assert all(isinstance(row["answer"], str) and row["answer"] for row in rows)
    assert found == [None, None, None]  # a random model names no class
    with pytest.raises(RequestError, match=r"refuses.*404"):
        label(["one"], own_server.model_copy(update={"model": "other"}), CLASSES, tmp_path)
