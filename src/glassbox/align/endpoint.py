"""Completions from an OpenAI-compatible endpoint: a few requests at a time, patient with a server that is busy."""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

import httpx

from glassbox.errors import RequestError
from glassbox.recipe.text import Endpoint
from glassbox.recipe.training import Sampling

TRIES, BACK_OFF, LONGEST_WAIT = 6, 0.5, 60.0
"""Requests for one completion; seconds before the second, doubling; the longest wait."""
TIMEOUT = 600.0
"""Seconds to wait for a completion."""
GIVE_UP = 8
"""Requests in a row without an answer after which the endpoint counts as gone."""
LARGEST = 16_000_000
"""Bytes of a response that are read."""
BUSY = (408, 409, 425, 429)


class Answer(NamedTuple):
    """What a model said."""

    text: str
    finish_reason: str
    """stop or length; what else an endpoint says stands as it is."""


class _Refused(Exception):
    """The endpoint gave no answer to one request."""


class _Declined(_Refused):
    """The endpoint answers, but not this request (too long a prompt, say)."""


def ask(
    endpoint: Endpoint, questions: Mapping[str, tuple[str, int]], sampling: Sampling
) -> Iterator[tuple[str, Answer | None]]:
    """(key, answer) for each key -> (question, seed), as they come; None for one that got none after all tries.

    Raises RequestError for an address or key that cannot be, or an endpoint that refuses or does not answer at all.
    """
    stop = threading.Event()
    silent = 0
    with _client(endpoint) as client, ThreadPoolExecutor(endpoint.parallel) as pool:
        futures = {
            pool.submit(_one, client, endpoint, _body(endpoint, question, seed, sampling), stop): key
            for key, (question, seed) in questions.items()
        }
        try:
            for future in as_completed(futures):
                try:
                    answer = future.result()
                except _Refused as error:
                    silent += 1
                    # Of few requests that are left all may be such as it declines.
                    if silent == GIVE_UP or (silent == len(futures) and not isinstance(error, _Declined)):
                        raise RequestError(f"the endpoint {endpoint.url} does not answer: {error}") from error
                    answer = None
                else:
                    silent = 0
                yield futures[future], answer
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _client(endpoint: Endpoint) -> httpx.Client:
    key = os.environ.get(endpoint.key, "").strip()
    try:
        url = httpx.URL(endpoint.url)
    except httpx.InvalidURL as error:
        raise RequestError(f"the endpoint {endpoint.url} is no address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise RequestError(f"the endpoint {endpoint.url} is no address; http://127.0.0.1:8000/v1 would be one")
    if not key.isascii():
        raise RequestError(f"the key in {endpoint.key} has characters that no HTTP header can carry")
    return httpx.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(TIMEOUT, connect=10.0),
        # A proxy meant for the internet cannot reach an endpoint of this machine.
        trust_env=url.host not in ("127.0.0.1", "localhost", "::1"),
    )


def _body(endpoint: Endpoint, question: str, seed: int, sampling: Sampling) -> dict[str, Any]:
    body = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": question}],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens,
        "seed": seed,
    }
    return {**body, "top_k": sampling.top_k} if sampling.top_k else body


def _one(client: httpx.Client, endpoint: Endpoint, body: dict[str, Any], stop: threading.Event) -> Answer:
    reason = "stopped"
    for attempt in range(TRIES):
        if stop.is_set():
            break
        try:
            status, content = _post(client, f"{endpoint.url.rstrip('/')}/chat/completions", body)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
        else:
            if status == 200:
                return _read(content)
            reason = f"HTTP {status}: {content[:200].decode(errors='replace')}"
            if status in (401, 403, 404):
                raise RequestError(
                    f"the endpoint {endpoint.url} refuses ({reason}); check its address, the model's name "
                    f"'{endpoint.model}' and the key in {endpoint.key}"
                )
            if status not in BUSY and status < 500:
                raise _Declined(reason)
        if attempt < TRIES - 1:
            stop.wait(min(BACK_OFF * 2**attempt, LONGEST_WAIT))
    raise _Refused(reason)


def _post(client: httpx.Client, url: str, body: dict[str, Any]) -> tuple[int, bytes]:
    """Status and content, of which no more than LARGEST is read."""
    with client.stream("POST", url, json=body) as response:
        content = bytearray()
        for block in response.iter_bytes():
            content += block
            if len(content) > LARGEST:
                raise _Refused(f"the response is larger than {LARGEST} bytes")
        return response.status_code, bytes(content)


def _read(content: bytes) -> Answer:
    try:
        choice = json.loads(content)["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise _Refused("the response has no choices[0].message.content") from error
    # JSON may hold halves of surrogate pairs, files may not.
    text = text.encode("utf-8", "replace").decode() if isinstance(text, str) else ""
    return Answer(text, str(choice.get("finish_reason") or "stop"))
