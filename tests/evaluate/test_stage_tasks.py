"""A stage that trains with tasks: what it writes, and that the scores follow what it learns."""

import json
from pathlib import Path

import pytest

from glassbox.evaluate.in_loop import SCORES
from glassbox.ledger.workspace import Artefact, Inputs, Workspace, read_metrics
from glassbox.ledger.writing import write_lines
from glassbox.recipe.loop import Loop
from glassbox.recipe.network import Attention, Network
from glassbox.recipe.optimizer import Optimizer
from glassbox.recipe.phases import Phase
from glassbox.recipe.tasks import Task, TaskRows
from glassbox.recipe.training import PretrainStage
from glassbox.stages import STAGES
from glassbox.tokens.chat import chat_format
from glassbox.tokens.documents import Document
from glassbox.tokens.tokenize_stage import Shards
from glassbox.tokens.tokenizer import train_tokenizer
from tests.tiny import NOUNS, SENTENCES, tiny_problems, write_notes


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    texts = [path.read_text() for path in sorted(write_notes(tmp_path / "notes", 30).iterdir())]
    tokenizer = train_tokenizer(texts, 300)
    folder = tmp_path / "tokens"
    (folder / "tokenizer").mkdir(parents=True)
    with Shards(folder, tokenizer, 0.2) as shards:
        shards.add([Document(f"id{n}", text, "notes", "", 0, "") for n, text in enumerate(texts)])
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / "tokenizer" / "chat.json").write_text(json.dumps(chat_format(tokenizer)))
    (folder / "tokens.json").write_text(json.dumps(shards.summary()))
    problems = tmp_path / "problems"
    problems.mkdir()
    rows = [{"question": one.question, "solution": one.solution, "answer": one.answer} for one in tiny_problems(12)]
    write_lines(problems / "train.jsonl", rows[:6])
    write_lines(problems / "held_out.jsonl", rows[6:])
    return Inputs((Artefact("tokens", "tokens", folder), Artefact("problems", "problems", problems)))


def test_scores_stand_in_the_metrics_and_follow_learning(inputs: Inputs, tmp_path: Path) -> None:
    rows = []
    for n, noun in enumerate(NOUNS * 2):
        query, _, rest = SENTENCES[n % 5].format(a=noun, b=NOUNS[n % 7]).partition(f" {noun} ")
        wrong = " ".join(reversed(rest.split()))
        rows.append({"query": f"{query} {noun}", "choices": [wrong, rest], "gold": 1})
    write_lines(tmp_path / "order.jsonl", rows)
    config = PretrainStage(
        kind="pretrain",
        model=Network(dim=32, layers=2, hidden=64, attention=Attention(heads=4, kv_heads=2)),
        phases=(Phase(name="only", steps=40, mixture={"notes": 1}, context=128, rows=4),),
        optimizer=Optimizer(lr=0.02),
        loop=Loop(evaluate_every=20),
        tasks=(
            Task(name="order", form="cloze", rows=TaskRows(path=str(tmp_path / "order.jsonl"))),
            Task(name="sums", form="problems", limit=3, max_new_tokens=8),
        ),
        max_epochs=100,
    )
    workspace = Workspace(tmp_path / "base", seed=2)
    workspace.folder.mkdir()
    STAGES["pretrain"](config, inputs, workspace)
    found = [row for row in read_metrics(workspace.folder) if "task/order/len_norm" in row]
    assert [row["step"] for row in found] == [20, 40]
    assert found[1]["task/order/len_norm"] >= 0.75, "half would be chance"
    assert found[1]["task/order/bpb"] < found[0]["task/order/bpb"]
    assert 0 <= found[1]["task/sums/exact_match"] <= 1
    scores = json.loads((workspace.folder / SCORES).read_text())["rows"]
    assert {f"task/{one['task']}/{one['metric']}": one["value"] for one in scores}.items() <= found[1].items()
    assert [(one["n"], one["shots"]) for one in scores] == [(24, [0]), (24, [0]), (3, [0])]
