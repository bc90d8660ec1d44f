"""Pairs come from the model's own samples as the verifier judges them, and rows mean what DPO takes them to mean."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from glassbox.align import dpo
from glassbox.errors import RequestError
from glassbox.generate.replies import Reply
from glassbox.ledger.workspace import Artefact, Inputs, Workspace
from glassbox.ledger.writing import write_lines
from glassbox.recipe.optimizer import Optimizer
from glassbox.recipe.training import DpoStage, Sampling
from glassbox.train.evaluation import logprobs_of_labels
from glassbox.train.rows import IGNORE
from tests.tiny import tiny_loaded, tiny_problems


def reply(text: str, ids: list[int]) -> Reply:
    return Reply([1, 2, 3], ids, [0.0] * len(ids), text, "stop")


def settings(**changes: object) -> DpoStage:
    values = {"kind": "dpo", "prompts": 4, "samples": 4, "rows": 2, "optimizer": Optimizer(lr=1e-3), **changes}
    return DpoStage.model_validate(values)


def test_pairs_join_right_and_wrong_replies_without_repeats(tmp_path: Path) -> None:
    problems = [asdict(problem) for problem in tiny_problems(4)]
    gold = [problem["answer"] for problem in problems]
    texts = [
        [f"#### {gold[0]}", "#### -1", f"so #### {gold[0]}", "#### -2"],
        [f"#### {gold[1]}"] * 4,
        ["#### -1"] * 4,
        [f"#### {gold[3]}", "#### -1", "#### -1", "no idea"],
    ]
    asked: list[str] = []

    def fake(loaded: object, prompts: object, sampling: object, *, key: object, samples: int) -> list[list[Reply]]:
        order = [next(i for i, p in enumerate(problems) if p["question"] == question) for question in asked]
        return [[reply(text, [9 + n]) for n, text in enumerate(texts[i])] for i in order]

    with (
        patch.object(dpo, "chat_prompt", lambda loaded, question: asked.append(question) or [1]),
        patch.object(dpo, "sample_replies", fake),
    ):
        pairs, counts = dpo.sample_pairs(settings(pairs_per_prompt=2), tiny_loaded(), problems, Workspace(tmp_path))
    found = {problem["id"]: [] for problem, _, _ in pairs}
    for problem, chosen, rejected in pairs:
        found[problem["id"]].append((chosen.text, rejected.text))
    assert found == {
        problems[0]["id"]: [(texts[0][0], texts[0][1]), (texts[0][2], texts[0][3])],
        problems[3]["id"]: [(texts[3][0], texts[3][1])],
    }
    assert counts == {
        "prompts": 4, "replies": 16, "right": 7, "all_right": 1, "all_wrong": 1, "not_judged": 0, "pairs": 3,
    }  # fmt: skip


def test_several_processes_share_out_the_sampling_and_all_get_what_one_gets(tmp_path: Path) -> None:
    problems = [asdict(problem) for problem in tiny_problems(5)]

    def fake(loaded: object, prompts: list[str], sampling: object, *, key: tuple, samples: int) -> list[list[Reply]]:
        answers = {problem["question"]: problem["answer"] for problem in problems}
        return [[reply(f"#### {answers[one]}", [key[-1]]), reply("#### -1", [8])] for one in prompts]

    def sample(rank: int, processes: int, gathered: Callable[[list], list]) -> tuple[list, dict[str, int]]:
        with (
            patch.object(dpo, "SAMPLED_AT_ONCE", 2),
            patch.object(dpo, "chat_prompt", lambda loaded, question: question),
            patch.object(dpo, "sample_replies", fake),
            patch.object(dpo, "processes", lambda: processes),
            patch.object(dpo, "gathered", gathered),
        ):
            return dpo.sample_pairs(settings(prompts=5), tiny_loaded(), problems, Workspace(tmp_path, rank=rank))

    own: list[list] = []
    for rank in range(2):
        sample(rank, 2, lambda values: own.append(values) or values)
    assert [len(values) for values in own] == [2, 1]
    alone = sample(0, 1, lambda values: values)
    assert len(alone[0]) == 5
    assert sample(1, 2, lambda values: own[0] + own[1]) == alone


def test_pair_rows_label_completions_only() -> None:
    rows = dpo.pair_rows([(reply("a", [5, 6]), reply("b", [7, 8, 9]))])
    assert rows["ids"].tolist() == [[[1, 2, 3, 5, 6, 0], [1, 2, 3, 7, 8, 9]]]
    assert rows["labels"].tolist() == [[[IGNORE] * 3 + [5, 6, IGNORE], [IGNORE] * 3 + [7, 8, 9]]]
    assert rows["documents"].tolist() == [[[0] * 5 + [-1], [0] * 6]]


def test_the_reference_is_the_summed_log_probability_of_each_completion() -> None:
    loaded = tiny_loaded()
    chosen, rejected = reply("a", [5, 6]), reply("b", [7, 8, 9])
    summed = logprobs_of_labels(loaded.model, dpo.pair_rows([(chosen, rejected)])).sum(-1)[0]
    for side, one in enumerate((chosen, rejected)):
        ids = torch.tensor([one.prompt_ids + one.ids])
        with torch.no_grad():
            logits = loaded.model(ids).hidden_BTD @ loaded.model.head_VD.T
        logprobs = logits.log_softmax(-1)[0, 2:-1].gather(-1, torch.tensor(one.ids)[:, None])
        assert summed[side] == pytest.approx(float(logprobs.sum()), abs=1e-4)


def test_too_few_pairs_is_one_clear_sentence(tmp_path: Path) -> None:
    problems = tiny_problems(4)
    (tmp_path / "problems").mkdir()
    write_lines(tmp_path / "problems" / "train.jsonl", [asdict(problem) for problem in problems])
    inputs = Inputs(
        (Artefact("sft", "model", tmp_path / "sft"), Artefact("problems", "problems", tmp_path / "problems"))
    )
    with (
        patch.object(dpo, "load_model", lambda folder, device: tiny_loaded()),
        pytest.raises(RequestError, match=r"gave 0 pairs .* all wrong: 4\).*raise `prompts`"),
    ):
        dpo.run(settings(sampling=Sampling(max_new_tokens=4)), inputs, Workspace(tmp_path))
