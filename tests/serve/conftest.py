"""A random tiny model, the same one for all tests, and an engine that says what it is told to."""

import time
from collections.abc import Sequence

import pytest
import torch
from fastapi.testclient import TestClient

from glassbox.generate.engine import Event, Request
from glassbox.model.folder import LoadedModel
from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, Network
from glassbox.serve import app as serving
from glassbox.tokens.tokenizer import END_OF_TURN, encode, special_id, train_tokenizer

CONTEXT = 160
CORPUS = ["What is 47 + 85? 47+85=132\n#### 132\n", "Tom has 12 apples. Tom has 7 pears.\n", "日本語 и русский\n"] * 3


@pytest.fixture(scope="session")
def loaded():
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(CORPUS, 320)
    network = Network(dim=16, layers=2, attention=Attention(heads=2, kv_heads=1), hidden=32, init_std=0.3)
    model = Transformer(network, tokenizer.get_vocab_size())
    model.init_weights(3)
    return LoadedModel(model, network, tokenizer.get_vocab_size(), CONTEXT, tokenizer)


@pytest.fixture(scope="session")
def client(loaded):
    with TestClient(serving.create_app(loaded, name="tiny", slots=3)) as client:
        yield client


class ScriptedEngine:
    """Has the engine's interface; every request is answered with the same ids, then a stop token."""

    script: Sequence[int] = ()
    """Ids of the answer; when empty, the first id for ever."""
    pause = 0.0
    """Seconds a step takes."""
    failing = False

    def __init__(self, model, *, slots, capacity):
        self.slots, self.live, self.submitted, self.steps, self.aborted = slots, {}, 0, 0, []

    def check(self, request: Request) -> None:
        pass

    def submit(self, request: Request) -> int:
        self.submitted += 1
        self.live[self.submitted] = [request, 0]
        return self.submitted

    def abort(self, number: int) -> None:
        self.aborted.append((number, self.steps))
        self.live.pop(number, None)

    def step(self) -> list[Event]:
        if self.failing:
            raise RuntimeError("no more memory")
        time.sleep(self.pause)
        self.steps += 1
        events = []
        for number in list(self.live)[: self.slots]:
            request, done = self.live[number]
            ids = [*self.script, *request.stop_ids[:1]] if self.script else [70] * request.max_new_tokens
            reason = "stop" if done + 1 == len(ids) and self.script else None
            if reason is None and done + 1 == request.max_new_tokens:
                reason = "length"
            self.live[number][1] += 1
            if reason:
                del self.live[number]
            events.append(Event(number, ids[done], -0.5, reason))
        return events


@pytest.fixture
def scripted(loaded, monkeypatch):
    """(text or ids, app settings) -> (client, engine) of a server whose model says just that."""
    clients = []

    def start(says="", pause=0.0, **settings):
        engine = ScriptedEngine(None, slots=settings.get("slots", 8), capacity=CONTEXT)
        engine.script = encode(loaded.tokenizer, says) if isinstance(says, str) else says
        engine.pause = pause
        assert special_id(loaded.tokenizer, END_OF_TURN) not in engine.script
        monkeypatch.setattr(serving, "Engine", lambda *_, **__: engine)
        client = TestClient(serving.create_app(loaded, name="tiny", **settings), raise_server_exceptions=False)
        clients.append(client.__enter__())
        return client, engine

    yield start
    for client in clients:
        client.__exit__(None, None, None)
