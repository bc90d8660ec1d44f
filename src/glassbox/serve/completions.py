"""POST /v1/completions: text or token ids are continued as they stand, and scored if wanted.

With `echo` and `logprobs` it is what lm-evaluation-harness' `local-completions` asks: the log-probability of every
token of the prompt (null for the first) and of the continuation.
"""

import asyncio
import codecs
import secrets
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response

from glassbox.generate.replies import start_ids
from glassbox.serve import protocol
from glassbox.serve.answers import Answer, Service, collect, engine_requests, pieces, unless_gone
from glassbox.serve.events import EventStream
from glassbox.serve.protocol import CompletionRequest
from glassbox.serve.scoring import score_with_alternatives
from glassbox.serve.worker import Group
from glassbox.tokens.tokenizer import encode


async def completions(service: Service, http: HttpRequest, body: CompletionRequest) -> Response:
    """The endpoint. Raises Refusal or RequestError for what cannot be answered."""
    prompts = await asyncio.to_thread(_prompt_ids, service, body)
    requests = engine_requests(service, body, prompts, "prompt")
    head = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion", "created": protocol.now()}
    head["model"] = service.name
    counted = sum(map(len, prompts))
    if body.stream:
        group = service.worker.begin(requests)
        return EventStream(_chunks(service, body, group, head, counted), group)
    if body.max_tokens == 0:
        answers = [Answer() for _ in requests]
    else:
        answers = await unless_gone(http, collect(service, requests, body.stops))
    choices = []
    for index, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        prompt = list(request.prompt_ids) if body.echo else []
        choice = {"index": index, "text": _text(service, prompt) + answer.text, "finish_reason": answer.finish_reason}
        choices.append({**choice, "logprobs": await _logprobs(service, body, list(request.prompt_ids), answer)})
    counts = protocol.usage(counted, sum(answer.sampled for answer in answers))
    return JSONResponse({**head, "choices": choices, "usage": counts})


def _prompt_ids(service: Service, body: CompletionRequest) -> list[list[int]]:
    """Ids as given; a text as the beginning of a document, which is how a base model has met texts."""
    start = start_ids(service.loaded)
    return [
        [*start, *encode(service.loaded.tokenizer, prompt)] if isinstance(prompt, str) else prompt
        for prompt in body.prompts()
    ]


def _text(service: Service, ids: list[int]) -> str:
    return b"".join(map(service.piece, ids)).decode("utf-8", "replace")


async def _logprobs(
    service: Service, body: CompletionRequest, prompt: list[int], answer: Answer
) -> dict[str, Any] | None:
    """The completions form: parallel lists over the tokens of the choice's text."""
    if body.logprobs is None:
        return None
    ids = [*prompt, *(token for token, _ in answer.tokens)]
    score = partial(score_with_alternatives, service.loaded.model, ids, body.logprobs)
    scored = [None, *await service.worker.call(score)]
    first = 0 if body.echo else len(prompt)
    return {
        "tokens": [_name(service, token) for token in ids[first:]],
        "token_logprobs": [place and protocol.finite(place.logprob) for place in scored[first:]],
        "top_logprobs": [
            place and {_name(service, token): protocol.finite(logprob) for token, logprob in place.alternatives}
            for place in scored[first:]
        ],
        "text_offset": _offsets(service, ids[first:]),
    }


def _name(service: Service, token: int) -> str:
    """A token in words: its text; its bytes where they are no whole characters; the name of a special one."""
    piece = service.piece(token)
    try:
        return piece.decode() or service.loaded.tokenizer.id_to_token(token) or f"<{token}>"
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def _offsets(service: Service, ids: list[int]) -> list[int]:
    """Where in the text, in characters, each token begins."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offsets, length = [], 0
    for token in ids:
        offsets.append(length)
        length += len(decoder.decode(service.piece(token)))
    return offsets


async def _chunks(
    service: Service, body: CompletionRequest, group: Group, head: dict[str, Any], counted: int
) -> AsyncIterator[dict[str, Any]]:
    counts = {"usage": None} if body.wants_usage_chunk else {}
    sampled = [0] * len(group.requests)
    async for index, text, _, finish_reason, count in pieces(service, group, body.stops):
        sampled[index] = count
        if text or finish_reason:
            choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}
            yield {**head, "choices": [choice], **counts}
    if body.wants_usage_chunk:
        yield {**head, "choices": [], "usage": protocol.usage(counted, sum(sampled))}
