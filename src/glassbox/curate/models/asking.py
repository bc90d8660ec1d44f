"""Questions to an OpenAI-compatible endpoint: a few requests at a time, patient with a server that is busy.

What is busy or broken (408, 409, 425, 429, 5xx, no connection) is asked again, 401, 403 and 404 end the asking, and
other refusals cost that question its answer.
"""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

import httpx

from glassbox.errors import GlassboxError, RequestError

log = logging.getLogger("glassbox")

TRIES, BACK_OFF, LONGEST_WAIT = 6, 0.5, 60.0
"""Requests for one answer; seconds before the second, doubling; the longest wait that a server may ask for."""
TIMEOUT = 600.0
"""Seconds to wait for an answer."""
GIVE_UP = 8
"""Questions in a row without an answer after which the endpoint counts as gone."""
LARGEST = 16_000_000
"""Bytes of a response that are read."""
BUSY, REFUSED = (408, 409, 425, 429), (401, 403, 404)


class Server(NamedTuple):
    """Who is asked."""

    name: str
    """What messages call it, its address included."""
    url: str
    """Base address, such as http://127.0.0.1:8000/v1."""
    model: str
    key: str
    """The environment variable that holds the key; unset, none is sent."""
    parallel: int
    """Requests at a time."""
    gone: str = ""
    """What the message adds if it does not answer."""


class Answer(NamedTuple):
    """What a model said."""

    text: str
    finish_reason: str
    """stop or length; what else an endpoint says stands as it is."""


class _NoAnswer(Exception):
    """The endpoint gave no answer to one question."""


class _Declined(_NoAnswer):
    """The endpoint answers, but not this question (one too long, say)."""


def ask(
    server: Server, questions: Mapping[str, tuple[str, dict[str, Any]]], check: Callable[[], None] | None = None
) -> Iterator[tuple[str, Answer | None]]:
    """(key, answer) for each key -> (question, sampling fields), as they come; None for one that got none.

    `check` is called between answers and may raise a GlassboxError; an address or key that cannot be, and an endpoint
    that refuses or does not answer at all, raise RequestError. What is being asked by then is given first.
    """
    if not questions:
        return
    stop = threading.Event()
    with _client(server) as client, ThreadPoolExecutor(server.parallel) as pool:
        futures = {
            pool.submit(_one, client, server, question, fields, stop): key
            for key, (question, fields) in questions.items()
        }
        try:
            yield from _collect(futures, server, stop, check)
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _client(server: Server) -> httpx.Client:
    key = os.environ.get(server.key, "").strip()
    try:
        url = httpx.URL(server.url)
    except httpx.InvalidURL as error:
        raise RequestError(f"{server.name} is no address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise RequestError(f"{server.name} is no address; http://127.0.0.1:8000/v1 would be one")
    if not key.isascii():
        raise RequestError(f"the key in {server.key} has characters that no HTTP header can carry")
    return httpx.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(TIMEOUT, connect=10.0),
        # A proxy meant for the internet cannot reach an endpoint of this machine.
        trust_env=url.host not in ("127.0.0.1", "localhost", "::1"),
    )


def _collect(
    futures: dict[Future[Answer], str], server: Server, stop: threading.Event, check: Callable[[], None] | None
) -> Iterator[tuple[str, Answer | None]]:
    """The answers; after an end, those still under way, since closing the pool waits for them anyway."""
    silent = 0
    end: GlassboxError | None = None
    for future in as_completed(futures):
        answer = None
        try:
            answer = future.result()
            silent = 0
        except _NoAnswer as error:
            if end is None:
                silent += 1
                log.warning("%s gave no answer: %s", server.name, error)
                # Of few questions that are left to an interrupted stage all may be such as it declines.
                if silent == GIVE_UP or (silent == len(futures) and not isinstance(error, _Declined)):
                    end = RequestError(f"{server.name} does not answer: {error}{server.gone}")
        except RequestError as error:
            end = end or error
        if answer or end is None:
            yield futures[future], answer
        if check and end is None:
            try:
                check()
            except GlassboxError as error:
                end = error
        if end:
            stop.set()
    if end:
        raise end


def _one(client: httpx.Client, server: Server, question: str, fields: dict[str, Any], stop: threading.Event) -> Answer:
    url = f"{server.url.rstrip('/')}/chat/completions"
    body = {"model": server.model, "messages": [{"role": "user", "content": question}], **fields}
    reason = "stopped"
    for attempt in range(TRIES):
        if stop.is_set():
            break
        wait = BACK_OFF * 2**attempt
        try:
            status, headers, content = _post(client, url, body)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
        else:
            if status == 200:
                return _read(content)
            reason = f"HTTP {status}: {content[:200].decode(errors='replace')}"
            if status in REFUSED:
                raise RequestError(
                    f"{server.name} refuses ({reason}); check its address, the model's name '{server.model}' and the "
                    f"key in {server.key}"
                )
            if status not in BUSY and status < 500:
                raise _Declined(reason)
            wait = max(wait, _asked_wait(headers))
        if attempt < TRIES - 1:
            stop.wait(min(wait, LONGEST_WAIT))
    raise _NoAnswer(reason)


def _post(client: httpx.Client, url: str, body: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
    """The response, read up to a bound: an endpoint gone wild cannot fill the memory."""
    with client.stream("POST", url, json=body) as response:
        content = bytearray()
        for block in response.iter_bytes():
            content += block
            if len(content) > LARGEST:
                raise _NoAnswer(f"the response is larger than {LARGEST} bytes")
        return response.status_code, response.headers, bytes(content)


def _asked_wait(headers: Mapping[str, str]) -> float:
    """Seconds that Retry-After asks for; 0 for a date or nonsense."""
    try:
        return max(0.0, float(headers.get("retry-after", "0")))
    except ValueError:
        return 0.0


def _read(content: bytes) -> Answer:
    try:
        choice = json.loads(content)["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise _NoAnswer("the response has no choices[0].message.content") from error
    # JSON may hold halves of surrogate pairs, files may not.
    text = text.encode("utf-8", "replace").decode() if isinstance(text, str) else ""
    return Answer(text, str(choice.get("finish_reason") or "stop"))
