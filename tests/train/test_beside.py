"""What a step trains beside its objective: blocks that predict further ahead, and the routers' score biases."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from glassbox.errors import Interrupted
from glassbox.ledger.workspace import Workspace, read_metrics
from glassbox.model.experts import Router
from glassbox.recipe.loop import Loop
from glassbox.recipe.network import Experts
from glassbox.recipe.optimizer import Optimizer, Schedule
from glassbox.tokens.order import ALL, Share
from glassbox.train.checkpoint import whole_tensors
from glassbox.train.loop import fit, steady
from glassbox.train.losses import next_token
from glassbox.train.rows import has_target, labelled_tokens, to_rows
from glassbox.train.step import NOTHING, Beside, accumulate
from tests.train.conftest import VOCABULARY, build, counting_rows
from tests.train.test_loop import assert_same_weights


def packed_rows(step: int, share: Share = ALL) -> dict[str, np.ndarray]:
    batch = counting_rows(step)
    second = np.arange(40) >= 15
    batch["documents"] = np.where(batch["documents"] < 0, -1, second.astype(int))
    batch["labels"][:, 15] = -100
    batch["positions"] = np.broadcast_to(np.where(second, np.arange(40) - 15, np.arange(40)), (6, 40))
    return {name: value[share.of(6)] for name, value in batch.items()}


def by_hand(model, rows, weight: float) -> torch.Tensor:
    """Main loss + weight / D * sum over blocks of their mean cross-entropy, position by position over full logits."""
    output = model(rows["ids"], rows.get("positions"), rows["documents"], drafts=True)
    labels, documents = rows["labels"], rows["documents"]
    each: dict[int, list[torch.Tensor]] = {0: []} | {k: [] for k in range(1, len(output.drafts) + 1)}
    for k, hidden in enumerate((output.hidden_BTD, *output.drafts)):
        logits = hidden @ model.head_VD.T
        for row in range(len(labels)):
            for i in range(labels.shape[1] - k - 1):
                target = i + k + 1
                if labels[row, target] >= 0 and (k == 0 or documents[row, i] == documents[row, target]):
                    each[k].append(F.cross_entropy(logits[row, i], labels[row, target]))
    means = [torch.stack(losses).mean() for losses in each.values()]
    return means[0] + weight / len(output.drafts) * sum(means[1:])


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("batch_at", [counting_rows, packed_rows])
def test_the_loss_is_the_written_out_one_whatever_the_micro_batch(depth, batch_at):
    rows, weight = to_rows(batch_at(1)), 0.3
    model = build(experts=False, ahead=depth)
    expected = by_hand(model, rows, weight)
    expected.backward()
    beside = Beside(multi_token=weight)
    for micro_rows in (1, 4, 6):
        ours = build(experts=False, ahead=depth)
        result = accumulate(ours, rows, next_token, labelled_tokens(rows), micro_rows, beside)
        torch.testing.assert_close(
            torch.tensor(result.loss + weight * result.metrics["multi_token_loss"]), expected.detach()
        )
        for (name, mine), theirs in zip(ours.named_parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_a_target_lies_in_the_same_document():
    rows = {"labels": torch.tensor([[-100, 1, 2, -100, 4, 5, 6]]), "documents": torch.tensor([[0, 0, 0, 1, 1, 1, 1]])}
    assert has_target(rows, 1).tolist() == [[False, True, True, False, True, True, True]]
    assert has_target(rows, 2).tolist() == [[False, False, True, False, False, True, True]]
    assert has_target(rows, 3).tolist() == [[False, False, False, False, False, False, True]]
    assert not has_target(rows, 9).any()


def run_fit(folder, model, beside: Beside, steps=6, stop_at=None, batch_at=packed_rows, **settings):
    folder.mkdir(exist_ok=True)
    done: list[float] = []
    workspace = Workspace(folder, on_progress=lambda step, total, note: done.append(step))
    workspace.stop_requested = lambda: stop_at is not None and bool(done) and done[-1] >= stop_at
    return fit(
        model,
        batch_at,
        next_token,
        steps=steps,
        course=steady(Optimizer(lr=0.01), Schedule(shape="constant", warmup=0), steps, beside),
        loop=Loop(micro_rows=4, checkpoint_every=2, log_every=1, **settings),
        workspace=workspace,
    )


def test_without_a_weight_the_blocks_stay_as_they_are(tmp_path):
    model, untouched = build(ahead=1, bias=True), build(ahead=1, bias=True)
    run_fit(tmp_path, model, NOTHING)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, untouched.state_dict()[name])}
    assert moved == {name for name, _ in model.named_parameters() if not name.startswith("multi_token")}
    assert "multi_token_loss" not in read_metrics(tmp_path)[-1]


def test_a_chain_of_tokens_is_learnt_two_ahead(tmp_path):
    model = build(experts=False, ahead=1)
    run_fit(tmp_path, model, Beside(multi_token=0.3), steps=80, batch_at=counting_rows)
    losses = [row["multi_token_loss"] for row in read_metrics(tmp_path)]
    assert losses[0] == pytest.approx(np.log(VOCABULARY), rel=0.2)
    assert losses[-1] < 0.5


@pytest.mark.parametrize("stop_at", [1, 4])
def test_stopped_and_resumed_with_blocks_and_biases_is_undisturbed_bit_for_bit(tmp_path, stop_at):
    beside = Beside(multi_token=0.3, score_bias_rate=1e-3)
    whole, parts = build(ahead=1, bias=True), build(ahead=1, bias=True)
    run_fit(tmp_path / "whole", whole, beside)
    with pytest.raises(Interrupted):
        run_fit(tmp_path / "parts", build(ahead=1, bias=True), beside, stop_at=stop_at)
    run_fit(tmp_path / "parts", parts, beside)
    assert_same_weights(whole, parts)
    biases = [router.bias_E for router in parts.routers()]
    assert len(biases) == 3
    assert all(bool(bias.any()) for bias in biases)
    saved = whole_tensors(tmp_path / "parts" / "checkpoints" / "step-000000006")
    assert torch.equal(saved.read("blocks.0.feed_forward.router.bias_E"), biases[0])


def test_a_bias_moves_once_a_step_by_the_whole_steps_load(tmp_path):
    """One step in one micro-batch and in many moves biases alike."""
    moved = []
    for micro_rows in (1, 6):
        model = build(bias=True)
        rows = to_rows(packed_rows(0))
        result = accumulate(model, rows, next_token, labelled_tokens(rows), micro_rows)
        run_fit(tmp_path / str(micro_rows), model, Beside(score_bias_rate=0.01), steps=1)
        for router, load_E in zip(model.routers(), result.load_LE, strict=True):
            expected = 0.01 * (load_E.float().mean() - load_E).sign()
            torch.testing.assert_close(router.bias_E, expected)
        moved.append([router.bias_E.tolist() for router in model.routers()])
    assert moved[0] == moved[1]


def test_worked_example_of_the_bias():
    router = Router(2, Experts(count=4, top_k=2, hidden=1, score="sigmoid", score_bias=True))
    router.bias_E.zero_()
    router.move_bias(torch.tensor([10, 2, 4, 0]), 0.001)
    torch.testing.assert_close(router.bias_E, torch.tensor([-0.001, 0.001, 0.0, 0.001]))


def test_biases_even_out_a_skewed_stream():
    """Auxiliary-loss-free balancing on the stream of arXiv:2408.15664's kind: 32 experts, top 6, four of them favoured;
    MaxVio, the largest load over the mean less 1, falls from above 2 to below a half in 200 steps."""
    generator = torch.Generator().manual_seed(0)
    router = Router(64, Experts(count=32, top_k=6, hidden=1, score="sigmoid", score_bias=True))
    router.weight.data = 0.3 * torch.randn(32, 64, generator=generator)
    router.weight.data[:4] += 0.15
    router.bias_E.zero_()
    violations = []
    for _ in range(201):
        x_1TD = torch.randn(1, 2048, 64, generator=generator) + 0.5
        with torch.no_grad():
            _, score_BSE = router(x_1TD)
            _, expert_TK = router.choose(score_BSE.flatten(0, 1))
        load_E = torch.bincount(expert_TK.flatten(), minlength=32)
        violations.append(float(load_E.max() / load_E.float().mean() - 1))
        router.move_bias(load_E, 1e-3)
    assert violations[0] > 2
    assert violations[200] < 0.5
