"""The stage synthesize, asked of a fake endpoint and of a tiny model: documents, counts, resuming, clear refusals."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest

from glassbox.align import endpoint, synthesize
from glassbox.align.endpoint import Answer
from glassbox.errors import Interrupted, RequestError
from glassbox.ledger.workspace import Artefact, Inputs, Workspace
from glassbox.ledger.writing import write_lines
from glassbox.recipe.text import Endpoint, SynthesizeStage
from glassbox.recipe.training import Sampling
from glassbox.tokens.documents import document_batches
from tests.tiny import tiny_loaded, tiny_problems

PROBLEMS = [asdict(problem) for problem in tiny_problems(6)]
GOLD = {problem["question"]: problem["answer"] for problem in PROBLEMS}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "BACK_OFF", 0.005)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    folder = tmp_path / "problems"
    folder.mkdir()
    write_lines(folder / "train.jsonl", PROBLEMS)
    return Inputs((Artefact("sums", "problems", folder),))


@contextmanager
def serving(answer: Callable[[dict], tuple[int, bytes]]) -> Iterator[tuple[str, list[dict]]]:
    """A server's address and the bodies it was sent; `answer` gives status and content."""
    bodies: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            bodies.append({**body, "path": self.path, "key": self.headers.get("authorization")})
            status, content = answer(body)
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/", bodies
    finally:
        server.shutdown()
        server.server_close()


def completion(text: str, reason: str = "stop") -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}, "finish_reason": reason}]}).encode()


def solver(body: dict) -> tuple[int, bytes]:
    """Right for three seeds in four."""
    question = body["messages"][0]["content"].partition("\n\n")[0]
    wrong = body["seed"] % 4 == 0
    return 200, completion(f"Seed {body['seed']}.\n\\boxed{{{'-1' if wrong else GOLD[question]}}}")


def settings(url: str = "", **changes: object) -> SynthesizeStage:
    there = {"endpoint": {"url": url, "model": "teacher", "parallel": 3}} if url else {}
    return SynthesizeStage.model_validate({"kind": "synthesize", "problems": 4, "samples": 3, **there, **changes})


def test_solutions_of_an_endpoint_become_documents(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    workspace = Workspace(tmp_path / "out", seed=7)
    with serving(solver) as (url, bodies):
        synthesize.run(settings(url, keep=2, sampling={"temperature": 0.8, "max_new_tokens": 50}), inputs, workspace)
    assert len(bodies) == 12
    assert {(body["path"], body["key"], body["model"]) for body in bodies} == {
        ("/v1/chat/completions", "Bearer secret", "teacher")
    }
    assert {(body["temperature"], body["max_tokens"]) for body in bodies} == {(0.8, 50)}
    assert len({body["seed"] for body in bodies}) == 12
    kept = pq.read_table(tmp_path / "out" / "documents").to_pylist()
    dropped = pq.read_table(tmp_path / "out" / "dropped").to_pylist()
    assert len(kept) + len(dropped) == 12
    for row in kept:
        question = PROBLEMS[row["offset"]]["question"]
        assert row["text"].startswith(f"{question}\nSeed ")
        assert row["text"].endswith(f"\\boxed{{{GOLD[question]}}}")
        assert row["prompt"].startswith(question)
        assert (row["source"], row["origin"], row["generator"]) == ("synthetic", "sums/train.jsonl", "teacher")
        assert (row["problem"], row["answer"]) == (PROBLEMS[row["offset"]]["id"], GOLD[question])
    assert len({row["id"] for row in kept + dropped}) == 12
    assert {row["rule"] for row in dropped} <= {"wrong_answer", "surplus"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["problems"], summary["replies"], summary["kept"]) == (4, 12, len(kept))
    assert json.loads((tmp_path / "out" / "funnel.json").read_text())[-1]["documents"] == len(kept)
    assert len(json.loads((tmp_path / "out" / "samples.json").read_text())["kept"]) == min(4, len(kept))
    read = Inputs((Artefact("made", "documents", tmp_path / "out"),))
    assert [document.id for batch in document_batches(read) for document in batch] == [row["id"] for row in kept]


def test_an_interrupted_stage_asks_nothing_twice(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthesize, "AT_ONCE", 1)
    done: list[float] = []
    with serving(solver) as (url, bodies):
        stopping = Workspace(
            tmp_path / "a", on_progress=lambda *facts: done.append(facts[0]), stop_requested=lambda: len(done) == 2
        )
        with pytest.raises(Interrupted):
            synthesize.run(settings(url), inputs, stopping)
        assert not (tmp_path / "a" / "documents" / "documents-000000.parquet").exists()
        assert len(bodies) == 6
        synthesize.run(settings(url), inputs, Workspace(tmp_path / "a"))
        assert len(bodies) == 12
        synthesize.run(
            settings(url, endpoint={"url": url, "model": "teacher", "parallel": 1}), inputs, Workspace(tmp_path / "b")
        )
    for name in ("documents/documents-000000.parquet", "dropped/dropped-000000.parquet", "funnel.json", "samples.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_model_of_an_earlier_stage_is_asked_the_bare_question(inputs: Inputs, tmp_path: Path) -> None:
    both = Inputs((*inputs.artefacts, Artefact("sft", "model", tmp_path / "sft")))
    with patch.object(synthesize, "load_model", lambda folder, device: tiny_loaded()):
        with pytest.raises(RequestError, match=r"none of 8 solutions by sft was kept \(.*cut_off"):
            synthesize.run(settings(samples=2, sampling={"max_new_tokens": 4}), both, Workspace(tmp_path / "out"))
        rows = pq.read_table(tmp_path / "out" / "dropped").to_pylist()
        assert [row["prompt"] for row in rows] == [PROBLEMS[row["offset"]]["question"] for row in rows]
        asker = synthesize._asker(settings(samples=2, sampling={"max_new_tokens": 4}), both, Workspace(tmp_path))[1]
        questions = [problem["question"] for problem in PROBLEMS[:2]]
        assert asker(questions, 0) == asker(questions, 0) != asker(questions, 64)
    with pytest.raises(RequestError, match="needs a model"):
        synthesize.run(settings(), inputs, Workspace(tmp_path / "none"))


def test_a_busy_endpoint_is_asked_again_and_a_broken_one_is_a_sentence(inputs: Inputs, tmp_path: Path) -> None:
    tries: dict[int, int] = {}

    def busy(body: dict) -> tuple[int, bytes]:
        tries[body["seed"]] = tries.get(body["seed"], 0) + 1
        return solver(body) if tries[body["seed"]] > 2 else (503, b"busy")

    with serving(busy) as (url, _):
        synthesize.run(settings(url), inputs, Workspace(tmp_path / "busy"))
    assert set(tries.values()) == {3}
    for answer, message in (
        (lambda body: (401, b"who are you"), "refuses .*check its address"),
        (lambda body: (500, b"down"), "does not answer: HTTP 500"),
        (lambda body: (200, b"<html>"), "does not answer: the response has no choices"),
    ):
        with serving(answer) as (url, _), pytest.raises(RequestError, match=message):
            synthesize.run(settings(url), inputs, Workspace(tmp_path / "broken"))
    for url in ("127.0.0.1:1/v1", "ftp://a/b", "http://"):
        with pytest.raises(RequestError, match="is no address"):
            synthesize.run(settings(url), inputs, Workspace(tmp_path / "wrong"))


def test_a_request_without_an_answer_is_counted(inputs: Inputs, tmp_path: Path) -> None:
    first: list[int] = []

    def one_refused(body: dict) -> tuple[int, bytes]:
        first.append(body["seed"])
        return (400, b"too long") if body["seed"] == first[0] else solver(body)

    with serving(one_refused) as (url, _):
        synthesize.run(settings(url), inputs, Workspace(tmp_path / "out"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["dropped"]["no_reply"], summary["replies"]) == (1, 12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": 0.9, "high": 0.1}, "must not be above"),
        ({"prompt": "solve"}, "question"),
        ({"source": "problems"}, "kept"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_half_a_surrogate_pair_is_no_text() -> None:
    content = b'{"choices": [{"message": {"content": "a\\ud800b"}, "finish_reason": null}]}'
    assert endpoint._read(content) == Answer("a?b", "stop")


def test_answers_come_back_as_they_were_kept(tmp_path: Path) -> None:
    given = [[Answer("a\n \u2028é", "stop"), None], [Answer("", "length"), Answer("b", "stop")]]
    path = tmp_path / "replies" / "r.jsonl"
    once = synthesize._kept_answers(path, lambda prompts, first: given, ["p", "q"], 0)
    again = synthesize._kept_answers(path, lambda prompts, first: [], ["p", "q"], 0)
    assert once == again == given


def test_the_last_request_of_all_may_be_declined() -> None:
    with serving(lambda body: (400, b"too long")) as (url, _):
        where = Endpoint(url=url, model="teacher")
        assert list(endpoint.ask(where, {"a": ("q", 1)}, Sampling())) == [("a", None)]
        with pytest.raises(RequestError, match="does not answer: HTTP 400"):
            list(endpoint.ask(where, {str(n): ("q", n) for n in range(20)}, Sampling()))
