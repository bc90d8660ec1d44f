"""The judge against local HTTP servers: a scripted one, one that fails, and glassbox's own."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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

CLASSES = ("science", "sport", "Other things")


class Endpoint:
    """An OpenAI-compatible server: `answer(question, tries)` gives the text, or (status, headers, body)."""

    def __init__(self, answer):
        self.questions, self.headers, lock = Counter(), [], threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                question = body["messages"][0]["content"]
                with lock:
                    outer.questions[question] += 1
                    outer.headers.append(dict(self.headers))
                    outer.body = body
                    outer.path = self.path
                said = answer(question, outer.questions[question])
                status, headers, content = said if isinstance(said, tuple) else (200, {}, reply(said))
                self.send_response(status)
                for name, value in {"content-length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.judge = Judge(url=f"http://127.0.0.1:{self.server.server_port}/v1/", model="m", characters=50)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def reply(text):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def by_word(question, tries):
    """An oracle: the class that stands in the text, or small talk."""
    text = question.split("<<<")[1]
    return "science" if "atom" in text else "**Sport**." if "goal" in text else "I think this is about cooking."


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(judging, "BACK_OFF", 0.005)


def test_labels_come_back_in_order_and_nothing_is_asked_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with Endpoint(by_word) as endpoint:
        texts = [f"{i} atoms" if i % 3 == 0 else f"{i} goals" if i % 3 == 1 else f"{i} soups" for i in range(30)] * 2
        expected = ["science", "sport", None] * 20
        assert label(texts, endpoint.judge, CLASSES, tmp_path) == expected
        assert set(endpoint.questions.values()) == {1}
        assert endpoint.path == "/v1/chat/completions"
        assert endpoint.body["temperature"] == 0
        assert endpoint.headers[0]["Authorization"] == "Bearer secret"
        assert "science, sport, Other things" in next(iter(endpoint.questions))
        assert label(texts, endpoint.judge, CLASSES, tmp_path) == expected
        assert sum(endpoint.questions.values()) == 30
        other = endpoint.judge.model_copy(update={"model": "other"})
        label(texts[:2], other, CLASSES, tmp_path)
        assert sum(endpoint.questions.values()) == 32


def test_a_stage_stopped_in_the_middle_goes_on_from_what_was_answered(tmp_path):
    with Endpoint(by_word) as endpoint:
        texts = [f"atom {i}" for i in range(40)]
        seen = []

        def stop():
            seen.append(1)
            if len(seen) == 10:
                raise Interrupted("stopped")

        with pytest.raises(Interrupted):
            label(texts, endpoint.judge, CLASSES, tmp_path, stop)
        with (tmp_path / judging.ANSWERS).open("ab") as file:
            file.write(b'{"key": "torn')
        assert label(texts, endpoint.judge, CLASSES, tmp_path) == ["science"] * 40
        again = sum(endpoint.questions.values()) - 40
        assert again <= endpoint.judge.parallel + 1  # those in flight when it was stopped
        rows = [json.loads(line) for line in (tmp_path / judging.ANSWERS).read_bytes().splitlines()]
        assert len({row["key"] for row in rows}) == len(rows) == 40


def test_busy_and_broken_answers_are_asked_again(tmp_path):
    def moody(question, tries):
        if tries == 1:
            return 429, {"retry-after": "0.01"}, b"slow down"
        if tries == 2:
            return 503, {}, b"restarting"
        return "sport"

    with Endpoint(moody) as endpoint:
        assert label(["a", "b"], endpoint.judge, CLASSES, tmp_path) == ["sport", "sport"]
        assert set(endpoint.questions.values()) == {3}


def test_a_text_that_is_refused_is_no_label_and_stops_nothing(tmp_path):
    def refuses(question, tries):
        if "bad" in question:
            return 400, {}, b"too long"
        return (200, {}, b"{}") if "odd" in question else (200, {}, b"[" * 100_000) if "deep" in question else "sport"

    with Endpoint(refuses) as endpoint:
        texts = ["fine", "bad", "odd", "deep", "well"]
        judge = endpoint.judge.model_copy(update={"parallel": 1})
        assert label(texts, judge, CLASSES, tmp_path) == ["sport", None, None, None, "sport"]
        assert set(endpoint.questions.values()) == {1}
        # An interrupted stage may have none but such texts left.
        assert label(["fine", "bad"], judge, CLASSES, tmp_path) == ["sport", None]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [((401, {}, b"who are you"), "refuses.*401.*OPENAI_API_KEY"), ((500, {}, b"no"), "does not answer.*500")],
)
def test_an_endpoint_that_gives_nothing_is_one_sentence(tmp_path, answer, sentence):
    with Endpoint(lambda *_: answer) as endpoint, pytest.raises(RequestError, match=sentence):
        label([f"text {i}" for i in range(50)], endpoint.judge, CLASSES, tmp_path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "ftp://here/v1", "nothing", "http://[::1/v1"])
def test_a_url_where_nothing_listens_is_one_sentence(tmp_path, url):
    with pytest.raises(RequestError, match="the judge"):
        label(["text"], Judge(url=url, model="m"), CLASSES, tmp_path)


def test_an_answer_without_end_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "LARGEST_ANSWER", 100_000)
    with Endpoint(lambda *_: (200, {}, b" " * 10_000_000)) as endpoint, pytest.raises(RequestError, match="choices"):
        label(["text"], endpoint.judge, CLASSES, tmp_path)


def test_scores_are_numbers_for_every_name(tmp_path):
    def rate(question, tries):
        return '```json\n{"depth": 4, "style": 2.5}\n```' if "good" in question else '{"depth": "high", "style": 1}'

    with Endpoint(rate) as endpoint:
        found = scores(["good one", "other"], endpoint.judge, ("depth", "style"), tmp_path)
    assert found == [{"depth": 4.0, "style": 2.5}, None]


def test_the_prompt_is_the_recipes_and_the_text_is_not_read_as_one(tmp_path):
    with Endpoint(lambda *_: "sport") as endpoint:
        judge = endpoint.judge.model_copy(update={"prompt": "{classes}? {text}"})
        label(["{classes} {text}" + "x" * 100], judge, CLASSES, tmp_path)
        (question,) = endpoint.questions
    assert question == "science, sport, Other things? {classes} {text}" + "x" * 34


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
