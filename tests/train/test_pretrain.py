"""The stage on real shards: what it leaves, that it learns, that a stop changes nothing."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from glassbox.errors import Interrupted, RequestError
from glassbox.ledger.run import model_folder
from glassbox.ledger.workspace import Artefact, Inputs, Workspace, read_metrics
from glassbox.model.folder import load_model
from glassbox.recipe.loop import Loop
from glassbox.recipe.network import Attention, Experts, MultiToken, Network
from glassbox.recipe.optimizer import Optimizer
from glassbox.recipe.phases import Phase
from glassbox.recipe.training import PretrainStage
from glassbox.tokens.chat import chat_format
from glassbox.tokens.documents import Document
from glassbox.tokens.tokenize_stage import Shards
from glassbox.tokens.tokenizer import train_tokenizer
from glassbox.train.checkpoint import newest, whole_tensors
from glassbox.train.pretrain import run
from glassbox.train.rows import to_rows
from tests.tiny import write_notes


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Inputs:
    folder = tmp_path_factory.mktemp("tokens")
    texts = [path.read_text() for path in sorted(write_notes(folder / "notes", 30).iterdir())]
    tokenizer = train_tokenizer(texts, 300)
    with Shards(folder, tokenizer, 0.2) as shards:
        shards.add([Document(f"id{n}", text, "notes", "", 0, "") for n, text in enumerate(texts)])
    (folder / "tokenizer").mkdir()
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / "tokenizer" / "chat.json").write_text(json.dumps(chat_format(tokenizer)))
    (folder / "tokens.json").write_text(json.dumps(shards.summary()))
    return Inputs((Artefact("tokens", "tokens", folder),))


def config() -> PretrainStage:
    return PretrainStage(
        kind="pretrain",
        model=Network(
            dim=32, layers=2, attention=Attention(heads=4, kv_heads=2), experts=Experts(count=4, top_k=2, hidden=32)
        ),
        phases=(
            Phase(name="short", steps=20, mixture={"notes": 1}, context=32, rows=8),
            Phase(name="long", steps=10, mixture={"notes": 1}, context=64, rows=4),
        ),
        optimizer=Optimizer(lr=0.02),
        loop=Loop(micro_rows=4, checkpoint_every=7, log_every=5, evaluate_every=10),
    )


def trained(inputs: Inputs, folder: Path, stop_after: int | None = None, settings: PretrainStage | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    calls: Iterator[int] = iter(range(1, 1000))
    workspace = Workspace(folder, seed=4)
    workspace.stop_requested = lambda: stop_after is not None and next(calls) >= stop_after
    run(settings or config(), inputs, workspace)
    return folder


def test_what_it_leaves(inputs, tmp_path):
    folder = trained(inputs, tmp_path / "base")
    assert {path.name for path in folder.iterdir()} == {"model", "checkpoints", "metrics.jsonl", "summary.json"}
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-000000030"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 30
    assert summary["tokens"] == 20 * 8 * 32 + 10 * 4 * 64
    assert summary["active_parameters"] < summary["parameters"]
    assert summary["parameters"] == sum(p.numel() for p in load_model(folder / "model").model.parameters())
    held_out = [row["bits_per_byte/notes"] for row in read_metrics(folder) if "bits_per_byte/notes" in row]
    assert len(held_out) == 3
    assert held_out[-1] < 0.8 * held_out[0]
    assert summary["held_out"] == {"bits_per_byte/notes": held_out[-1]}
    assert len(summary["expert_load"]) == 2
    assert [sum(layer) for layer in summary["expert_load"]] == pytest.approx([1, 1])


def test_the_saved_model_is_the_checkpoints_and_kept_ones_are_models_of_their_phase(inputs, tmp_path):
    settings = config()
    phases = (settings.phases[0], settings.phases[1].model_copy(update={"rope_base": 50_000.0}))
    loop = settings.loop.model_copy(update={"keep_every": 12})
    folder = trained(inputs, tmp_path / "base", settings=settings.model_copy(update={"phases": phases, "loop": loop}))
    assert sorted(path.name[-2:] for path in (folder / "checkpoints").iterdir()) == ["12", "24", "30"]
    for step, context, base in (("12", 32, 10_000), ("24", 64, 50_000)):
        kept = load_model(model_folder(f"base/checkpoints/step-0000000{step}", tmp_path))
        assert (kept.context, kept.network.attention.rope_base) == (context, base)
        assert kept.tokenizer.get_vocab_size() == kept.vocab_size
    loaded, written = load_model(folder / "model"), whole_tensors(newest(folder / "checkpoints"))
    assert loaded.model.state_dict().keys() == written.entries.keys()
    assert all(torch.equal(tensor, written.read(name)) for name, tensor in loaded.model.state_dict().items())
    assert loaded.context == 64
    rows = to_rows({"ids": torch.zeros(1, 8, dtype=torch.long), "labels": torch.zeros(1, 8, dtype=torch.long)})
    assert loaded.model(rows["ids"]).hidden_BTD.isfinite().all()


def test_stopped_twice_is_undisturbed_bit_for_bit(inputs, tmp_path):
    whole = trained(inputs, tmp_path / "whole")
    for stop_after in (5, 18):
        with pytest.raises(Interrupted):
            trained(inputs, tmp_path / "parts", stop_after)
    parts = trained(inputs, tmp_path / "parts")
    name = Path("model") / "model.safetensors"
    assert (whole / name).read_bytes() == (parts / name).read_bytes()
    steps = [[row["step"] for row in read_metrics(folder)] for folder in (whole, parts)]
    assert steps[0] == steps[1]


def short(model: Network, lr: float = 1e-9, **phase) -> PretrainStage:
    """One phase of three steps."""
    phases = (Phase(name="only", steps=3, mixture={"notes": 1}, context=32, rows=4, **phase),)
    return PretrainStage(kind="pretrain", model=model, phases=phases, optimizer=Optimizer(lr=lr, weight_decay=0))


def after(inputs: Inputs, folder: Path) -> Inputs:
    return Inputs((*inputs.artefacts, Artefact("before", "model", folder)))


def test_an_earlier_models_weights_are_carried_on_deepened_or_upcycled(inputs, tmp_path):
    dense = Network(dim=32, layers=2, hidden=32, attention=Attention(heads=4, kv_heads=2))
    experts = dense.model_copy(update={"hidden": None, "experts": Experts(count=4, top_k=2, hidden=32, normalise=True)})
    first = trained(inputs, tmp_path / "first", settings=short(dense, lr=0.02))
    bits = json.loads((first / "summary.json").read_text())["held_out"]["bits_per_byte/notes"]
    for name, network in {
        "same": dense,
        "deeper": dense.model_copy(update={"layers": 3}),
        "sparse": experts,
    }.items():
        folder = trained(after(inputs, first), tmp_path / name, settings=short(network))
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["held_out"]["bits_per_byte/notes"] == pytest.approx(bits, rel=1e-4)
        assert load_model(folder / "model").network == network


def test_a_model_of_another_network_or_vocabulary_is_refused(inputs, tmp_path):
    dense = Network(dim=32, layers=2, hidden=32, attention=Attention(heads=4, kv_heads=2))
    first = trained(inputs, tmp_path / "first", settings=short(dense))
    with pytest.raises(RequestError, match="dim is 32 cannot give its weights to one whose dim is 64"):
        trained(after(inputs, first), tmp_path / "wide", settings=short(dense.model_copy(update={"dim": 64})))
    tokenizer = train_tokenizer(["another text " * 20], 290)
    tokenizer.save(str(first / "model" / "tokenizer.json"))
    (first / "model" / "chat.json").write_text(json.dumps(chat_format(tokenizer)))
    with pytest.raises(RequestError, match="reads another vocabulary"):
        trained(after(inputs, first), tmp_path / "words", settings=short(dense))


def test_phases_set_the_weight_of_multi_token_blocks_and_the_rate_of_biases(inputs, tmp_path):
    network = Network(
        dim=32,
        layers=2,
        attention=Attention(heads=4, kv_heads=2),
        experts=Experts(count=4, top_k=2, hidden=32, score="sigmoid", score_bias=True),
        multi_token=MultiToken(),
    )
    folder = trained(inputs, tmp_path / "moving", settings=short(network, multi_token_loss=0.3, score_bias_rate=0.01))
    summary = json.loads((folder / "summary.json").read_text())
    assert 0 <= summary["held_out"]["acceptance/notes"] <= 1
    assert len(summary["expert_load"]) == 3
    biases = [router.bias_E for router in load_model(folder / "model").model.routers()]
    assert all(float(bias.abs().max()) <= 0.0301 for bias in biases)
    assert all(bool(bias.any()) for bias in biases)
    held = trained(inputs, tmp_path / "held", settings=short(network, multi_token_loss=0.0, score_bias_rate=0.0))
    assert not any(bool(router.bias_E.any()) for router in load_model(held / "model").model.routers())
    assert len(json.loads((held / "summary.json").read_text())["expert_load"]) == 2


def test_a_source_read_too_often_is_refused_before_training(inputs, tmp_path):
    settings = config().model_copy(update={"max_epochs": 0.01})
    with pytest.raises(RequestError, match=r"source 'notes' would be read \d\.\d\d times, more than max_epochs 0.01"):
        trained(inputs, tmp_path / "base", settings=settings)
    assert not (tmp_path / "base" / "metrics.jsonl").exists()


def test_a_batch_that_grows_and_another_rotary_base_reach_the_last_token(inputs, tmp_path):
    rows = [{"rows": 2}, {"rows": 6, "after": 640, "by": 2}]
    phases = (
        Phase(name="grows", tokens=1000, mixture={"notes": 1}, context=32, rows=rows),
        Phase(name="long", tokens=700, mixture={"notes": 1}, context=64, rows=3, reshuffle=True, rope_base=5e4),
    )
    network = Network(dim=32, layers=2, hidden=32, attention=Attention(heads=4, kv_heads=2))
    settings = PretrainStage(kind="pretrain", model=network, phases=phases, optimizer=Optimizer(lr=1e-3))
    settings = settings.model_copy(update={"loop": Loop(log_every=1)})
    folder = trained(inputs, tmp_path / "base", settings=settings)
    tokens = [row["tokens"] for row in read_metrics(folder) if "loss" in row]
    sizes = [late - early for early, late in pairwise([0, *tokens])]
    assert sizes == [64] * 5 + [128] * 2 + [64] + [192] * 2 + [3 * 64] * 3 + [2 * 64]
    assert load_model(folder / "model").network.attention.rope_base == 5e4
