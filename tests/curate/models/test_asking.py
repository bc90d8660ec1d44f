"""Asking a scripted endpoint: answers by key, patience, refusals, giving up, and a stop that loses no answer."""

import threading
from collections import Counter

import pytest

from glassbox.curate.models import asking
from glassbox.curate.models.asking import Answer, Server, ask
from glassbox.errors import Interrupted, RequestError
from tests.completions import completion, question, serving


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(asking, "BACK_OFF", 0.005)


def server(url, parallel=4, gone=""):
    return Server(f"the sage at {url}", url, "m", "OPENAI_API_KEY", parallel, gone)


def asked(url, *questions, parallel=4):
    return dict(ask(server(url, parallel), {one: (one, {}) for one in questions}))


def test_every_key_gets_its_answer(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", " secret\n")
    names = [f"q{i}" for i in range(30)]
    with serving(lambda body: (200, completion(f"{question(body)} {body['seed']}", "length"))) as (url, bodies):
        found = dict(ask(server(url), {name: (name, {"seed": i}) for i, name in enumerate(names)}))
    assert found == {name: Answer(f"{name} {i}", "length") for i, name in enumerate(names)}
    assert len(bodies) == 30
    assert {(body["path"], body["key"], body["model"]) for body in bodies} == {
        ("/v1/chat/completions", "Bearer secret", "m")
    }


def test_busy_and_broken_answers_are_asked_again():
    tries = Counter()

    def moody(body):
        tries[question(body)] += 1
        said = {1: (429, b"slow down", {"retry-after": "0.01"}), 2: (503, b"restarting")}
        return said.get(tries[question(body)], "done")

    with serving(moody) as (url, _):
        assert asked(url, "a", "b") == {"a": ("done", "stop"), "b": ("done", "stop")}
    assert set(tries.values()) == {3}


@pytest.mark.parametrize(
    ("said", "seconds"), [("7", 7.0), ("-1", 0.0), ("nan", 0.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)]
)
def test_retry_after_is_seconds_or_nothing(said, seconds):
    assert asking._asked_wait({"retry-after": said}) == seconds


def test_a_question_that_is_declined_stops_nothing():
    answers = {"bad": (400, b"too long"), "odd": (200, b"{}"), "deep": (200, b"[" * 100_000)}
    with serving(lambda body: answers.get(question(body), "yes")) as (url, bodies):
        found = asked(url, "fine", *answers, "well", parallel=1)
        assert len(bodies) == 5
        assert {name for name, answer in found.items() if answer is None} == set(answers)
        assert asked(url, "bad") == {"bad": None}  # even where it is all that is left


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((401, b"who are you"), r"sage at .* refuses \(HTTP 401: who are you\); check its address.*OPENAI_API_KEY"),
        ((500, b"no"), "sage at .* does not answer: HTTP 500: no; so be it"),
        ((400, b"no"), "does not answer: HTTP 400"),
        ((200, b"<html>"), "does not answer: the response has no choices"),
    ],
)
def test_an_endpoint_that_gives_nothing_is_one_sentence(answer, sentence):
    with serving(lambda body: answer) as (url, _), pytest.raises(RequestError, match=sentence):
        list(ask(server(url, gone="; so be it"), {str(i): ("q", {}) for i in range(50)}))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1:9/v1", "does not answer"),
        ("ftp://here/v1", "is no address"),
        ("127.0.0.1:1/v1", "is no address"),
        ("nothing", "is no address"),
        ("http://", "is no address"),
        ("http://[::1/v1", "is no address: "),
    ],
)
def test_a_url_where_nothing_listens_is_one_sentence(url, sentence):
    with pytest.raises(RequestError, match=sentence):
        asked(url, "q")


def test_a_key_that_no_header_carries_is_one_sentence(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sécret")
    with pytest.raises(RequestError, match="the key in OPENAI_API_KEY has characters"):
        asked("http://127.0.0.1:9/v1", "q")


def test_a_response_without_end_is_not_read(monkeypatch):
    monkeypatch.setattr(asking, "LARGEST", 100_000)
    with serving(lambda body: (200, b" " * 10_000_000)) as (url, _), pytest.raises(RequestError, match="is larger"):
        asked(url, "q")


def test_half_a_surrogate_pair_is_no_text():
    content = b'{"choices": [{"message": {"content": "a\\ud800b"}, "finish_reason": null}]}'
    assert asking._read(content) == Answer("a?b", "stop")


@pytest.mark.parametrize(
    ("first", "ending", "error"), [("yes", True, Interrupted), ((401, b"no"), False, RequestError)]
)
def test_what_is_being_asked_at_the_end_is_still_given(first, ending, error):
    others, release = threading.Semaphore(0), threading.Event()

    def slow(body):
        if question(body) == "0":
            assert all(others.acquire(timeout=10) for _ in range(3))
            threading.Timer(0.2, release.set).start()
            return first
        others.release()
        release.wait(10)
        return "later"

    def check():
        if ending:
            raise Interrupted("stopped")

    found = {}
    with serving(slow) as (url, bodies):
        with pytest.raises(error, match=r"stopped|refuses"):
            found.update(ask(server(url), {str(i): (str(i), {}) for i in range(100)}, check))
        answered = {question(body) for body in bodies} - (set() if ending else {"0"})
    # dict.update keeps what came before the error.
    assert set(found) == answered
    assert 3 <= len(found) < 100
    assert None not in found.values()
