"""The SFT stage trains on assistant tokens only, in an order that is new each epoch and the same each time."""

from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pytest
import torch

from glassbox.align import sft
from glassbox.errors import RequestError
from glassbox.ledger.workspace import Artefact, Inputs, Workspace
from glassbox.ledger.writing import write_json, write_lines
from glassbox.model.folder import save_model
from glassbox.model.tensors import InMemory
from glassbox.model.transformer import Transformer
from glassbox.recipe.optimizer import Optimizer
from glassbox.recipe.training import SftStage
from glassbox.tokens.chat import chat_format
from glassbox.tokens.order import ALL
from glassbox.tokens.tokenizer import decode
from glassbox.train.parallel.place import Placed, fill
from glassbox.train.rows import IGNORE
from tests.tiny import tiny_loaded, tiny_problems


def settings(**changes: object) -> SftStage:
    return SftStage.model_validate(
        {"kind": "sft", "context": 96, "rows": 4, "epochs": 2, "optimizer": Optimizer(lr=1e-3), **changes}
    )


def batches(tmp_path: Path, config: SftStage, count: int = 60) -> tuple[list[Any], dict[str, Any]]:
    """The batches the stage hands to the loop, and what it reports at the end."""
    problems = [asdict(problem) for problem in tiny_problems(count)]
    write_lines(tmp_path / "problems" / "train.jsonl", problems)
    inputs = Inputs(
        (Artefact("base", "model", tmp_path / "base"), Artefact("problems", "problems", tmp_path / "problems"))
    )
    seen: list[Any] = []
    told: dict[str, Any] = {}

    def fit(model: object, batch_at: Any, objective: object, *, steps: int, course: Any, **rest: object) -> None:
        assert course(0).beside.router_losses is False
        seen.extend(batch_at(step, ALL) for step in range(steps))

    with (
        patch.object(sft, "lay_out", lambda folder: (tiny_loaded(), Mock())),
        patch.object(sft, "fit", fit),
        patch.object(sft, "finish", lambda workspace, loaded, progress, source, about: told.update(about)),
    ):
        sft.run(config, inputs, Workspace(tmp_path / "sft", seed=3))
    return seen, told


def test_labels_stand_on_solutions_and_their_end_of_turn_alone(tmp_path: Path) -> None:
    seen, told = batches(tmp_path, settings())
    tokenizer = tiny_loaded().tokenizer
    expected = {problem.solution + "<|im_end|>" for problem in tiny_problems(60)}
    for batch in seen:
        for labels, documents in zip(batch.labels, batch.documents, strict=True):
            for document in set(documents[documents >= 0].tolist()):
                trained = labels[(documents == document) & (labels != IGNORE)]
                assert decode(tokenizer, trained.tolist()) in expected
    assert told["conversations"] == 60
    assert told["left_out_too_long"] == 0


def test_epochs_differ_and_repeat(tmp_path: Path) -> None:
    first, _ = batches(tmp_path, settings())
    again, _ = batches(tmp_path, settings())
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(first, again, strict=True))
    half = len(first) // 2
    assert not np.array_equal(first[0].ids, first[half].ids)


def test_too_few_rows_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"fill only \d rows of 96 tokens, fewer than one step's 64"):
        batches(tmp_path, settings(rows=64), count=5)


def test_training_begins_with_the_earlier_models_weights(tmp_path: Path) -> None:
    write_lines(tmp_path / "problems" / "train.jsonl", [asdict(problem) for problem in tiny_problems(60)])
    earlier, source = tiny_loaded(), tmp_path / "base" / "model"
    earlier.tokenizer.save(str(tmp_path / "tokenizer.json"))
    write_json(tmp_path / "chat.json", chat_format(earlier.tokenizer))
    save_model(source, InMemory(earlier.model.state_dict()), earlier.sizes, tmp_path)
    found: dict[str, Any] = {}

    def fit(model: Transformer, *given: object, first_values: Any, **rest: object) -> None:
        assert all(weight.is_meta for weight in model.parameters())  # no process holds the whole network
        fill(Placed([model]), first_values)
        found.update(model.state_dict())

    inputs = Inputs(
        (Artefact("base", "model", tmp_path / "base"), Artefact("problems", "problems", tmp_path / "problems"))
    )
    with patch.object(sft, "fit", fit), patch.object(sft, "finish"):
        sft.run(settings(), inputs, Workspace(tmp_path / "sft", seed=3))
    assert found.keys() == earlier.model.state_dict().keys()
    assert all(torch.equal(found[name], weight) for name, weight in earlier.model.state_dict().items())
