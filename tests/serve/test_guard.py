"""Refusals: wrong types, sizes, queues, keys; always a status, a sentence and OpenAI's form, never a traceback."""

import json
import threading

import pytest
from fastapi.testclient import TestClient

from glassbox.serve.app import create_app
from glassbox.serve.guard import Limits
from tests.serve.asking import QUESTION, chat, chunks, complete, refusal, until

WRONG = [
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": "0.5"}, "temperature"),
    ({"temperature": 3}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": -1}, "top_k"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"seed": -1}, "seed"),
    ({"n": 17}, "n"),
    ({"stream": "yes"}, "stream"),
    ({"stop": ""}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages.0.content"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG)
def test_wrong_values_are_named(client, fields, param):
    body = json.dumps({"messages": QUESTION, **fields})
    response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    error = refusal(response, 400)
    assert error["param"] == param
    assert param in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"messages": 1', b"messages=1"])
def test_bodies_that_are_no_request(client, body):
    for path in ("/v1/chat/completions", "/v1/completions"):
        assert refusal(client.post(path, content=body, headers={"content-type": "application/json"}), 400)
        assert refusal(client.post(path, content=body), 400)


def test_fields_of_openai_that_mean_nothing_here_are_let_through(client):
    fields = {"user": "me", "frequency_penalty": 0.5, "tools": [], "response_format": {"type": "text"}, "x": {"y": 1}}
    assert chat(client, max_tokens=1, **fields).status_code == 200


def test_unknown_paths_and_methods(client):
    assert refusal(client.get("/v2"), 404)
    assert refusal(client.get("/v1/chat/completions"), 405)
    assert refusal(client.get("/v1/models/other"), 404)


def test_sizes(loaded):
    app = create_app(loaded, name="tiny", limits=Limits(body_bytes=2000, messages=3))
    with TestClient(app) as client:
        assert "2,000 bytes" in refusal(chat(client, user="x" * 3000), 413)["message"]
        pieces = (b"x" * 500 for _ in range(6))  # sent in chunks, without a length
        refusal(client.post("/v1/completions", content=pieces), 413)
        refusal(client.post("/v1/chat/completions", json={"messages": QUESTION * 4}), 400)
        assert chat(client, max_tokens=1).status_code == 200


def test_a_full_queue_says_come_back_and_lets_in_again_later(scripted):
    client, engine = scripted("", pause=0.005, slots=1, limits=Limits(waiting=1))
    threads = [threading.Thread(target=chat, args=(client,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: engine.submitted == 2)
    response = chat(client)
    assert refusal(response, 429)["code"] == "queue_full"
    assert response.headers["retry-after"] == "1"
    assert "at most 2" in refusal(complete(client, n=3), 400)["message"]
    for thread in threads:
        thread.join()
    assert chat(client, max_tokens=1).status_code == 200


def test_api_key(loaded):
    with TestClient(create_app(loaded, name="tiny", api_key="sécret")) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "sécret".encode()}):
            response = client.post("/v1/chat/completions", json={"messages": QUESTION}, headers=headers)
            assert refusal(response, 401)["code"] == "invalid_api_key"
            refusal(client.get("/v1/models", headers=headers), 401)
        key = {"authorization": "Bearer sécret".encode()}
        assert client.get("/v1/models", headers=key).status_code == 200
        for open_path in ("/", "/health", "/version"):
            assert client.get(open_path).status_code == 200


def test_a_failed_engine_is_told_to_all_and_the_server_stays_up(scripted, caplog):
    client, engine = scripted("47+85=132", pause=0.01)
    assert client.get("/health").json() == {"status": "ok"}
    engine.failing = True
    assert refusal(chat(client), 500)["type"] == "server_error"
    assert "no more memory" in caplog.text  # the log says why; the reply does not
    refusal(client.get("/health"), 503)
    refusal(chat(client), 503)
    assert client.get("/version").status_code == 200


def test_a_failure_within_a_stream_is_an_event(scripted):
    client, engine = scripted("47+85=132\n#### 132" * 3, pause=0.02)
    threading.Timer(0.1, lambda: setattr(engine, "failing", True)).start()
    assert chunks(chat(client, stream=True))[-1]["error"]["type"] == "server_error"
