"""POST /v1/chat/completions: a conversation is answered, whole or streamed."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response

from glassbox.generate.engine import Request
from glassbox.generate.replies import conversation_prompt
from glassbox.serve import protocol
from glassbox.serve.answers import Answer, Service, collect, engine_requests, pieces, unless_gone
from glassbox.serve.events import EventStream
from glassbox.serve.guard import Refusal
from glassbox.serve.protocol import ChatRequest
from glassbox.serve.scoring import score_with_alternatives
from glassbox.serve.worker import Group


async def chat_completions(service: Service, http: HttpRequest, body: ChatRequest) -> Response:
    """The endpoint. Raises Refusal or RequestError for what cannot be answered."""
    if len(body.messages) > service.limits.messages:
        raise Refusal(400, f"more than {service.limits.messages} messages in one request", param="messages")
    messages = [message.plain() for message in body.messages]
    prompt = await asyncio.to_thread(conversation_prompt, service.loaded, messages)
    requests = engine_requests(service, body, [prompt], "messages")
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": protocol.now(), "model": service.name}
    if body.stream:
        group = service.worker.begin(requests)
        return EventStream(_chunks(service, body, group, head), group)
    answers = await unless_gone(http, collect(service, requests, body.stops))
    choices = [
        {
            "index": index,
            "message": protocol.chat_message(answer.text),
            "logprobs": await _logprobs(service, body, requests[index], answer),
            "finish_reason": answer.finish_reason,
        }
        for index, answer in enumerate(answers)
    ]
    counts = protocol.usage(len(prompt), sum(answer.sampled for answer in answers))
    return JSONResponse({**head, "object": "chat.completion", "choices": choices, "usage": counts})


async def _logprobs(service: Service, body: ChatRequest, request: Request, answer: Answer) -> dict[str, Any] | None:
    if not body.logprobs:
        return None
    entries = _entries(service, answer.tokens)
    if body.top_logprobs and entries:
        ids = [*request.prompt_ids, *(token for token, _ in answer.tokens)]
        score = partial(score_with_alternatives, service.loaded.model, ids, body.top_logprobs)
        scored = await service.worker.call(score)
        for entry, place in zip(entries, scored[len(request.prompt_ids) - 1 :], strict=True):
            entry["top_logprobs"] = [_entry(service, *alternative) for alternative in place.alternatives]
    return {"content": entries, "refusal": None}


def _entries(service: Service, tokens: list[tuple[int, float]]) -> list[dict[str, Any]]:
    return [{**_entry(service, token, logprob), "top_logprobs": []} for token, logprob in tokens]


def _entry(service: Service, token: int, logprob: float) -> dict[str, Any]:
    return protocol.token_entry(service.piece(token), logprob)


async def _chunks(
    service: Service, body: ChatRequest, group: Group, head: dict[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a streamed reply: the role, the text as it comes, the reason of the end, the counts if wanted."""

    def chunk(
        index: int, delta: dict[str, Any], finish_reason: str | None = None, logprobs: Any = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        counts = {"usage": None} if body.wants_usage_chunk else {}
        return {**head, "object": "chat.completion.chunk", "choices": [choice], **counts}

    for index in range(len(group.requests)):
        yield chunk(index, {"role": "assistant", "content": ""})
    sampled = [0] * len(group.requests)
    async for index, text, tokens, finish_reason, count in pieces(service, group, body.stops):
        sampled[index] = count
        if text or (tokens and body.logprobs):
            content = {"content": _entries(service, tokens), "refusal": None} if body.logprobs else None
            yield chunk(index, {"content": text}, logprobs=content)
        if finish_reason is not None:
            yield chunk(index, {}, finish_reason)
    if body.wants_usage_chunk:
        counts = protocol.usage(len(group.requests[0].prompt_ids), sum(sampled))
        yield {**head, "object": "chat.completion.chunk", "choices": [], "usage": counts}
