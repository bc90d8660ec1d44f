"""The server as a whole: its page, its address, and clients that hang up on a real socket."""

import contextlib
import http.client
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from glassbox import __version__
from glassbox.errors import RequestError
from glassbox.generate.engine import Engine, Request
from glassbox.generate.replies import chat_prompt, stop_ids
from glassbox.model.folder import save_model
from glassbox.model.tensors import InMemory
from glassbox.serve import app as serving
from glassbox.tokens.chat import chat_format, encode_chat
from tests.serve.asking import QUESTION, until
from tests.serve.conftest import CONTEXT, ScriptedEngine

PAUSE = 0.01


def test_small_endpoints(client):
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/version").json() == {"version": __version__}
    [model] = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("tiny", "model", CONTEXT)
    assert client.get("/v1/models/tiny").json() == model


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing_a_model_writes(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert set(re.findall(r"https?://[^\s'\"%)]+", page.text)) == {"http://www.w3.org/2000/svg"}  # a name, not a place
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|<script src|<link [^>]*href=.(?!data:)",
        page.text,
    )


@contextlib.contextmanager
def listening(app) -> Iterator[int]:
    """The app under uvicorn on a free port of the loopback."""
    listener = serving._listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def ask(port, **fields) -> http.client.HTTPConnection:
    """A request that has been sent and is not yet answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = json.dumps({"messages": QUESTION, **fields})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    return connection


def hang_up(connection: http.client.HTTPConnection) -> None:
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_ends_its_requests_and_no_other(loaded, monkeypatch, stream):
    engine = ScriptedEngine(None, slots=3, capacity=CONTEXT)
    engine.pause = PAUSE
    monkeypatch.setattr(serving, "Engine", lambda *_, **__: engine)
    with listening(serving.create_app(loaded, name="tiny", slots=3)) as port:
        staying = ask(port, max_tokens=60)
        leaving = ask(port, stream=stream, n=4)  # two of them have to wait for a slot
        until(lambda: engine.submitted == 5 and engine.steps > 3)
        if stream:
            assert leaving.getresponse().readline().startswith(b"data: ")
        before = engine.steps
        hang_up(leaving)
        until(lambda: len(engine.aborted) == 4)
        assert len(engine.live) <= 1
        assert len({step for _, step in engine.aborted}) == 1  # all between the same two steps
        assert engine.steps - before < CONTEXT / 2
        assert json.load(staying.getresponse())["usage"]["completion_tokens"] == 60
        until(lambda: not engine.live)


def test_hanging_up_frees_the_real_engine(loaded, monkeypatch):
    made = []

    class Slow(Engine):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            self.steps = 0
            made.append(self)

        def step(self):
            time.sleep(PAUSE)
            self.steps += 1
            return super().step()

    prompt = chat_prompt(loaded, QUESTION[0]["content"])
    new = CONTEXT - len(prompt)
    requests = [Request(prompt, new, seed=seed, stop_ids=stop_ids(loaded)) for seed in range(40)]
    done = Engine(loaded.model, slots=40, capacity=CONTEXT).generate(requests)
    seed = max(range(40), key=lambda i: len(done[i].ids))  # a reply long enough to be broken off
    assert len(done[seed].ids) > 30
    monkeypatch.setattr(serving, "Engine", Slow)
    with listening(serving.create_app(loaded, name="tiny", slots=2)) as port:
        connection = ask(port, stream=True, seed=seed)
        assert connection.getresponse().readline().startswith(b"data: ")
        hang_up(connection)
        until(lambda: made[0].steps and not made[0].busy)
        assert made[0].steps < len(done[seed].ids)


def test_serve_model_says_where_and_ends_cleanly(loaded, tmp_path):
    tokenizer, folder = tmp_path / "tokenizer", tmp_path / "model"
    tokenizer.mkdir()
    folder.mkdir()
    loaded.tokenizer.save(str(tokenizer / "tokenizer.json"))
    (tokenizer / "chat.json").write_text(json.dumps(chat_format(loaded.tokenizer)))
    save_model(folder, InMemory(loaded.model.state_dict()), loaded.sizes, tokenizer)
    call = "serve_model(Path(sys.argv[1]), name='tiny', host='127.0.0.1', port=0, api_key=None, slots=2)"
    script = f"import sys; from pathlib import Path; from glassbox.serve.app import serve_model; {call}"
    command = [sys.executable, "-c", script, str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as server:
        assert server.stdout is not None
        address = re.fullmatch(r"serving tiny at (http://127\.0\.0\.1:\d+)\n", server.stdout.readline())
        assert address
        until(lambda: reachable(address[1]))
        messages = [{"role": "user", "content": "<|im_end|>" * 3}]
        reply = httpx.post(f"{address[1]}/v1/chat/completions", json={"messages": messages, "max_tokens": 2}).json()
        plain, _ = encode_chat(loaded.tokenizer, messages, generation_prompt=True)
        assert reply["usage"]["prompt_tokens"] == len(plain)  # the name of a special token in a text is plain text
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
        assert server.stdout.read() == ""


def reachable(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.TransportError:
        return False


def test_an_address_that_cannot_be_had(loaded, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(serving, "load_model", lambda _: loaded)
        with pytest.raises(RequestError, match=rf"127\.0\.0\.1, port {port}"):
            serving.serve_model(Path("x"), name="tiny", host="127.0.0.1", port=port, api_key=None, slots=1)


@pytest.mark.parametrize(
    ("host", "key", "warned"), [("0.0.0.0", None, True), ("0.0.0.0", "k", False), ("::1", None, False)]
)
def test_an_open_door_is_warned_of(loaded, monkeypatch, caplog, host, key, warned):
    monkeypatch.setattr(serving, "load_model", lambda _: loaded)
    monkeypatch.setattr(serving.uvicorn.Server, "run", lambda *_, **__: None)
    monkeypatch.setattr(serving, "_listen", lambda *_: serving.socket.create_server(("127.0.0.1", 0)))
    with caplog.at_level(logging.WARNING, "glassbox"):
        serving.serve_model(Path("x"), name="tiny", host=host, port=0, api_key=key, slots=1)
    assert ("no API key is set" in caplog.text) == warned
