"""Labels by a language model behind an OpenAI-compatible endpoint: one question a text, answers kept on disk.

Every answer is appended to `judged.jsonl` as it comes, under the hash of model and question, so that a stage that was
interrupted asks nothing twice. Answers are read strictly: one that is not exactly a class (or the scores asked for) is
no label, and is counted.
"""

import hashlib
import json
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from glassbox.errors import RequestError
from glassbox.ledger.writing import write_lines
from glassbox.recipe.classify import Judge

log = logging.getLogger("glassbox")

CLASSES_PROMPT = """To which one of these classes does the text below belong?

Classes: {classes}

Text:
<<<
{text}
>>>

Answer with the name of one class and nothing else."""
SCORES_PROMPT = """Rate the text below from 0 (worst) to 5 (best) on each of these: {classes}.

Text:
<<<
{text}
>>>

Answer with one JSON object that gives a number for each of {classes}, and nothing else."""
ANSWERS = "judged.jsonl"
TRIES, BACK_OFF, LONGEST_WAIT = 6, 0.5, 60.0
"""Requests for one text; seconds before the second, doubling; the longest wait that a server may ask for."""
TIMEOUT = 300.0
"""Seconds to wait for an answer."""
GIVE_UP = 8
"""Texts in a row without any answer after which the endpoint counts as gone."""
LARGEST_ANSWER = 4_000_000


def label(
    texts: Sequence[str], judge: Judge, classes: tuple[str, ...], folder: Path, check: Callable[[], None] | None = None
) -> list[str | None]:
    """The class that the judge gives each text; None where it gave no clear answer.

    `folder` keeps the answers; `check` is called between answers and may raise (`Workspace.stop_if_asked`). An endpoint
    that refuses the key or the model, or does not answer at all, raises RequestError.
    """
    answers = _answers([_question(text, judge, classes, CLASSES_PROMPT) for text in texts], judge, folder, check)
    return _read_all(answers, lambda answer: parse_class(answer, classes))


def scores(
    texts: Sequence[str], judge: Judge, names: tuple[str, ...], folder: Path, check: Callable[[], None] | None = None
) -> list[dict[str, float] | None]:
    """As `label`, for numbers: each text's score in every dimension of `names`."""
    answers = _answers([_question(text, judge, names, SCORES_PROMPT) for text in texts], judge, folder, check)
    return _read_all(answers, lambda answer: parse_scores(answer, names))


def parse_class(answer: str, classes: tuple[str, ...]) -> str | None:
    """The class that an answer names, case and quotation marks aside; an answer that says more names none."""
    said = _spoken(answer).strip("\"'`*. \t\n").casefold()
    found = [name for name in classes if name.casefold() == said]
    return found[0] if len(found) == 1 else None


def parse_scores(answer: str, names: tuple[str, ...]) -> dict[str, float] | None:
    """The finite numbers that an answer, a JSON object (a code fence around it is let pass), gives for all `names`."""
    said = _spoken(answer).removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    try:
        row = json.loads(said)
    except (ValueError, RecursionError):
        return None
    if isinstance(row, (int, float)) and len(names) == 1:
        row = {names[0]: row}
    if not isinstance(row, dict) or not all(is_number(row.get(name)) for name in names):
        return None
    return {name: float(row[name]) for name in names}


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number (true and false are none)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _question(text: str, judge: Judge, classes: tuple[str, ...], default: str) -> str:
    # The text last: what stands in it is not replaced again.
    return (
        (judge.prompt or default).replace("{classes}", ", ".join(classes)).replace("{text}", text[: judge.characters])
    )


def _spoken(answer: str) -> str:
    """An answer without the thoughts that reasoning models put before it."""
    return answer.rpartition("</think>")[2].strip()


def _read_all(answers: list[str | None], parse: Callable[[str], Any]) -> list[Any]:
    labels = [None if answer is None else parse(answer) for answer in answers]
    unread = [answer for answer, found in zip(answers, labels, strict=True) if answer is not None and found is None]
    if unread:
        log.warning("%d of the judge's %d answers are no label, such as %r", len(unread), len(answers), unread[0][:200])
    return labels


def _answers(questions: list[str], judge: Judge, folder: Path, check: Callable[[], None] | None) -> list[str | None]:
    """The answer to each question: from disk, or asked for now; None for one that the endpoint did not give."""
    keys = [hashlib.sha256(f"{judge.model}\n{judge.answer_tokens}\n{one}".encode()).hexdigest() for one in questions]
    path = folder / ANSWERS
    known = _load(path)
    wanted = {key: question for key, question in zip(keys, questions, strict=True) if key not in known}
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for key, answer in _ask_all(wanted, judge):
            known[key] = answer
            file.write(json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n")
            file.flush()
            if check:
                check()
    return [known.get(key) for key in keys]


def _load(path: Path) -> dict[str, str]:
    """Answers of an earlier attempt; a torn last line (a kill while writing) is cut off."""
    rows: list[dict[str, str]] = []
    lines = path.read_bytes().splitlines() if path.exists() else []
    for line in lines:
        try:
            row = json.loads(line)
            rows.append({"key": row["key"], "answer": row["answer"]})
        except (ValueError, KeyError, TypeError):
            break
    if len(rows) < len(lines):
        write_lines(path, rows)
    return {row["key"]: row["answer"] for row in rows}


class _Refused(Exception):
    """The endpoint gave no answer to one text."""


class _Declined(_Refused):
    """The endpoint answers, but not this text (one too long, say)."""


class _Endpoint(NamedTuple):
    client: httpx.Client
    url: str
    judge: Judge
    stop: threading.Event


def _ask_all(wanted: dict[str, str], judge: Judge) -> Iterator[tuple[str, str]]:
    """(key, answer) as they come, a few requests at a time."""
    if not wanted:
        return
    with _client(judge) as client, ThreadPoolExecutor(judge.parallel) as pool:
        endpoint = _Endpoint(client, f"{judge.url.rstrip('/')}/chat/completions", judge, threading.Event())
        futures = {pool.submit(_ask, endpoint, question): key for key, question in wanted.items()}
        try:
            yield from _collect(futures, endpoint)
        finally:
            endpoint.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _client(judge: Judge) -> httpx.Client:
    key = os.environ.get(judge.key, "").strip()
    if not key.isascii():
        raise RequestError(f"the key in {judge.key} has characters that no HTTP header can carry")
    try:
        url = httpx.URL(judge.url)
    except httpx.InvalidURL as error:
        raise RequestError(f"the judge's url {judge.url} is no address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise RequestError(f"the judge's url {judge.url} is no address; http://127.0.0.1:8000/v1 would be one")
    return httpx.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(TIMEOUT, connect=10.0),
        # A proxy meant for the internet cannot reach an endpoint of this machine.
        trust_env=url.host not in ("127.0.0.1", "localhost", "::1"),
    )


def _collect(futures: dict[Future[str], str], endpoint: _Endpoint) -> Iterator[tuple[str, str]]:
    answered = row = 0
    for future in as_completed(futures):
        try:
            answer = future.result()
        except _Refused as error:
            row += 1
            log.warning("the judge gave no answer to a text: %s", error)
            # Of few texts that are left to an interrupted stage all may be such as it declines.
            if row == GIVE_UP or (not answered and row == len(futures) and not isinstance(error, _Declined)):
                raise RequestError(
                    f"the judge at {endpoint.judge.url} does not answer: {error}; what it has answered so far is kept"
                ) from error
            continue
        row = 0
        answered += 1
        yield futures[future], answer


def _ask(endpoint: _Endpoint, question: str) -> str:
    body = {
        "model": endpoint.judge.model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": endpoint.judge.answer_tokens,
    }
    reason = "stopped"
    for attempt in range(TRIES):
        if endpoint.stop.is_set():
            break
        wait = BACK_OFF * 2**attempt
        try:
            status, headers, content = _post(endpoint, body)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
        else:
            if status == 200:
                return _content(content)
            reason = f"HTTP {status}: {content[:200].decode(errors='replace')}"
            if status in (401, 403, 404):
                raise RequestError(
                    f"the judge at {endpoint.judge.url} refuses ({reason}); check its address, the model's name "
                    f"'{endpoint.judge.model}' and the key in {endpoint.judge.key}"
                )
            if status not in (408, 409, 425, 429) and status < 500:
                raise _Declined(reason)
            wait = max(wait, _asked_wait(headers))
        if attempt < TRIES - 1:
            endpoint.stop.wait(min(wait, LONGEST_WAIT))
    raise _Refused(reason)


def _post(endpoint: _Endpoint, body: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
    """The response, read up to a bound: an endpoint gone wild cannot fill the memory."""
    with endpoint.client.stream("POST", endpoint.url, json=body) as response:
        content = bytearray()
        for block in response.iter_bytes():
            content += block
            if len(content) > LARGEST_ANSWER:
                break
        return response.status_code, response.headers, bytes(content)


def _asked_wait(headers: httpx.Headers) -> float:
    try:
        return max(0.0, float(headers.get("retry-after", "0")))
    except ValueError:  # a date
        return 0.0


def _content(body: bytes) -> str:
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise _Refused("the response has no choices[0].message.content") from error
    return content if isinstance(content, str) else ""
