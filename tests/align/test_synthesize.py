"""The stage synthesize, asked of a fake endpoint and of a tiny model: documents, counts, resuming, clear refusals."""

import json
from dataclasses import asdict
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
from tests.completions import question, serving
from tests.tiny import tiny_loaded, tiny_problems

PROBLEMS = [asdict(problem) for problem in tiny_problems(6)]
GOLD = {problem["question"]: problem["answer"] for problem in PROBLEMS}


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    folder = tmp_path / "problems"
    folder.mkdir()
    write_lines(folder / "train.jsonl", PROBLEMS)
    return Inputs((Artefact("sums", "problems", folder),))


def solver(body: dict) -> str:
    """Right for three seeds in four."""
    asked = question(body).partition("\n\n")[0]
    wrong = body["seed"] % 4 == 0
    return f"Seed {body['seed']}.\n\\boxed{{{'-1' if wrong else GOLD[asked]}}}"


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
        asked = PROBLEMS[row["offset"]]["question"]
        assert row["text"].startswith(f"{asked}\nSeed ")
        assert row["text"].endswith(f"\\boxed{{{GOLD[asked]}}}")
        assert row["prompt"].startswith(asked)
        assert (row["source"], row["origin"], row["generator"]) == ("synthetic", "sums/train.jsonl", "teacher")
        assert (row["problem"], row["answer"]) == (PROBLEMS[row["offset"]]["id"], GOLD[asked])
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


def test_an_endpoint_that_refuses_is_a_sentence(inputs: Inputs, tmp_path: Path) -> None:
    message = r"the endpoint http://127.0.0.1:\d+/v1/ refuses .*'teacher'"
    with serving(lambda body: (401, b"who are you")) as (url, _), pytest.raises(RequestError, match=message):
        synthesize.run(settings(url), inputs, Workspace(tmp_path / "out"))


def test_a_request_without_an_answer_is_counted(inputs: Inputs, tmp_path: Path) -> None:
    first: list[int] = []

    def one_refused(body: dict) -> str | tuple[int, bytes]:
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


def test_answers_come_back_as_they_were_kept(tmp_path: Path) -> None:
    given = [[Answer("a\n \u2028é", "stop"), None], [Answer("", "length"), Answer("b", "stop")]]
    path = tmp_path / "replies" / "r.jsonl"
    once = synthesize._kept_answers(path, lambda prompts, first: given, ["p", "q"], 0)
    again = synthesize._kept_answers(path, lambda prompts, first: [], ["p", "q"], 0)
    assert once == again == given


def test_an_endpoint_is_told_how_to_sample() -> None:
    with serving(lambda body: "yes") as (url, bodies):
        where = Endpoint(url=url, model="teacher", parallel=1)
        assert list(endpoint.ask(where, {"a": ("q", 7)}, Sampling(top_p=0.9))) == [("a", Answer("yes", "stop"))]
        list(endpoint.ask(where, {"a": ("q", 7)}, Sampling(top_k=20)))
    assert [(body["seed"], body["top_p"], body.get("top_k")) for body in bodies] == [(7, 0.9, None), (7, 1.0, 20)]
