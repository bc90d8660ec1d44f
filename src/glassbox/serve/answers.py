"""From prompts to answers: what the engine is asked, and how its tokens become text, piece by piece or whole."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from fastapi import Request as HttpRequest

from glassbox.generate.engine import Event, Request
from glassbox.generate.replies import stop_ids
from glassbox.generate.streaming import TextStream
from glassbox.model.folder import LoadedModel
from glassbox.serve.guard import Limits, Refusal
from glassbox.serve.protocol import Generation
from glassbox.serve.worker import Group, Worker

Result = TypeVar("Result")


@dataclass(frozen=True)
class Service:
    """What every endpoint works with."""

    name: str
    """What clients call the model."""
    loaded: LoadedModel
    token_bytes: list[bytes]
    worker: Worker
    limits: Limits
    created: int
    """When the server was started, in seconds of Unix time."""

    def piece(self, token: int) -> bytes:
        """The bytes of a token; none for a special one."""
        return self.token_bytes[token] if token < len(self.token_bytes) else b""


class Piece(NamedTuple):
    """What one step adds to one answer."""

    choice: int
    text: str
    tokens: list[tuple[int, float]]
    """Ids with log-probabilities whose whole text is out; the token that ends a turn is not among them."""
    finish_reason: str | None
    """stop or length with the last piece, else None."""
    sampled: int
    """Tokens the engine has drawn for this answer so far."""


@dataclass
class Answer:
    """One answer, complete."""

    text: str = ""
    tokens: list[tuple[int, float]] = field(default_factory=list)
    finish_reason: str = "length"
    sampled: int = 0


class ClientGone(Exception):
    """The client has hung up: there is nobody to answer."""


def engine_requests(service: Service, body: Generation, prompts: Sequence[list[int]], param: str) -> list[Request]:
    """`n` requests for each prompt, in order. Raises Refusal (400, 404) for what this model cannot do."""
    if body.model is not None and body.model != service.name:
        raise Refusal(
            404,
            f"there is no model '{body.model}' here; this is '{service.name}'",
            param="model",
            code="model_not_found",
        )
    context, vocab_size = service.loaded.context, service.loaded.vocab_size
    if body.max_tokens is not None and body.max_tokens > context:
        raise Refusal(
            400, f"max_tokens is {body.max_tokens} but the context holds {context} tokens", param="max_tokens"
        )
    for prompt in prompts:
        if len(prompt) >= context:
            sentence = f"the prompt has {len(prompt)} tokens and leaves no room for a reply in a context of {context}"
            raise Refusal(400, sentence, param=param, code="context_length_exceeded")
        if not all(0 <= token < vocab_size for token in prompt):
            raise Refusal(400, f"token ids must be from 0 to {vocab_size - 1}", param=param)
    first_seed = secrets.randbits(48) if body.seed is None else body.seed
    return [
        Request(
            prompt_ids=prompt,
            max_new_tokens=min(body.max_tokens or context, context - len(prompt)),
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=min(body.top_k, vocab_size),
            seed=(first_seed + choice) % 2**63,
            stop_ids=stop_ids(service.loaded),
        )
        for prompt in prompts
        for choice in range(body.n)
    ]


async def pieces(service: Service, group: Group, stops: Sequence[str]) -> AsyncIterator[Piece]:
    """The answers' text as it becomes certain. A stop string ends its answer and aborts its request."""
    growing = [_Growing(TextStream(service.token_bytes, stops)) for _ in group.requests]
    async for index, event in group.events():
        answer = growing[index]
        text, tokens, finish_reason = answer.take(event)
        if finish_reason is not None and event.finish_reason is None:
            group.abort(index)
        if text or tokens or finish_reason is not None:
            yield Piece(index, text, tokens, finish_reason, answer.sampled)


@dataclass
class _Growing:
    """An answer under way: tokens are held as long as their text is; those that reach into a stop string never come."""

    stream: TextStream
    held: list[tuple[int, int, float]] = field(default_factory=list)
    """(characters seen with it, id, log-probability) of tokens whose text is not all out."""
    sampled: int = 0

    def take(self, event: Event) -> tuple[str, list[tuple[int, float]], str | None]:
        """One more token -> (text, tokens) that are certain now, and the reason if this was the end."""
        self.sampled += 1
        reason: str | None = event.finish_reason
        text = ""
        if reason != "stop":  # the token that ends a turn is a sign, not a part of the text
            text = self.stream.push(event.token)
            if not self.stream.stopped:
                self.held.append((self.stream.seen, event.token, event.logprob))
        if reason is not None:
            text += self.stream.flush()
        if self.stream.stopped:
            reason = "stop"
        out = [entry for entry in self.held if entry[0] <= self.stream.sent]
        self.held = self.held[len(out) :]
        return text, [(token, logprob) for _, token, logprob in out], reason


async def collect(service: Service, requests: Sequence[Request], stops: Sequence[str]) -> list[Answer]:
    """Whole answers, in the order of the requests."""
    answers = [Answer() for _ in requests]
    with closing(service.worker.begin(requests)) as group:
        async for index, text, tokens, finish_reason, sampled in pieces(service, group, stops):
            answer = answers[index]
            answer.text += text
            answer.tokens += tokens
            answer.sampled = sampled
            answer.finish_reason = finish_reason or answer.finish_reason
    return answers


async def unless_gone(http: HttpRequest, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled as soon as the client hangs up (then ClientGone is raised)."""

    async def hung_up() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
