"""Plans that a network, a stage or a schedule does not allow are refused when the recipe is read, in a sentence."""

from pathlib import Path

import pytest

from glassbox.errors import RequestError
from glassbox.recipe.loading import load_recipe
from glassbox.recipe.loop import Parallel
from glassbox.recipe.network import Attention, Experts, Network
from glassbox.recipe.parallel_checks import parallel_error
from glassbox.recipe.schema import Recipe

RECIPE = """\
name: tiny
stages:
  problems: {kind: problems, train: 100, held_out: 20}
  documents: {kind: curate, sources: [{name: web, format: text, path: notes}]}
  tokenizer: {kind: tokenizer, from: documents, vocab_size: 512}
  tokens: {kind: tokenize, from: [documents, tokenizer]}
  base:
    kind: pretrain
    from: tokens
    model: {dim: 48, layers: 4, hidden: 90, attention: {heads: 12, kv_heads: 6}}
    phases:
      - {name: short, steps: 10, mixture: {web: 1.0}, context: 96, rows: 4}
      - {name: long, steps: 10, mixture: {web: 1.0}, context: 100, rows: 4}
    optimizer: {lr: 1.0e-3}
  sft: {kind: sft, from: [base, problems], context: 66, rows: 4, optimizer: {lr: 1.0e-3}}
  dpo: {kind: dpo, from: [sft, problems], prompts: 8, rows: 4, optimizer: {lr: 1.0e-3}}
  rl: {kind: grpo, from: [sft, problems], steps: 2, prompts: 4, optimizer: {lr: 1.0e-3}}
"""
OF_EXPERTS = ["base.model.hidden=null", "base.model.experts={count: 6, top_k: 2, hidden: 8}"]
CHOOSING = [OF_EXPERTS[0], "base.model.experts={count: 6, top_k: 2, hidden: 8, choice: expert, balance_loss: 0}"]


def load(folder: Path, *overrides: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    return load_recipe(path, list(overrides))


def plan(stage: str, **settings: int | str | bool) -> list[str]:
    return [f"{stage}.loop.parallel.{name}={value}" for name, value in settings.items()]


OVERLAPPING = [*OF_EXPERTS, *plan("base", overlap=True, pipeline=2, schedule="DualPipeV", zero=2, expert=2)]


@pytest.mark.parametrize(
    "overrides",
    [
        OVERLAPPING,
        plan("base", replicate=3, shard=5, tensor=2, context=1, pipeline=4),
        plan("base", context=2, pipeline=2, schedule="Interleaved1F1B"),
        [*plan("base", pipeline=2, schedule="DualPipeV", zero=2, expert=3, overlap=True), *OF_EXPERTS],
        [*plan("base", shard=6, expert=3, tensor=2), *OF_EXPERTS],
        plan("sft", tensor=3, shard=2),
        plan("dpo", replicate=2, shard=2),
    ],
)
def test_plans_that_fit_are_taken(tmp_path: Path, overrides: list[str]) -> None:
    stages = load(tmp_path, *overrides).stages
    for override in overrides:
        stage, _, setting = override.partition(".loop.parallel.")
        name, _, value = setting.partition("=")
        assert not name or str(getattr(stages[stage].loop.parallel, name)) == value


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (plan("base", tensor=5), "heads 12 cannot be shared out among tensor 5 x context 1 processes"),
        (plan("base", tensor=2, context=4), "heads 12 cannot be shared out among tensor 2 x context 4"),
        (plan("base", context=4), "kv_heads 6 cannot be shared out among tensor 1 x context 4"),
        (plan("base", tensor=4), "kv_heads 6 cannot be shared out among tensor 4"),
        (["base.model.hidden=91", *plan("base", tensor=2)], "hidden 91 cannot be shared out among tensor 2"),
        (plan("base", context=3), "rows of 100 tokens cannot be cut into tensor 1 x context 3 equal parts"),
        (plan("base", expert=2), "expert 2 shares out experts, and the network has none"),
        ([*OF_EXPERTS, *plan("base", expert=4)], "6 experts cannot be shared out among expert 4"),
        ([*CHOOSING, *plan("base", context=2)], "experts that choose their tokens"),
        ([*CHOOSING, *plan("base", tensor=2)], "experts that choose their tokens"),
        ([*CHOOSING, *plan("base", expert=2)], "experts that choose their tokens"),
        (["base.model.attention.qk_norm=whole", *plan("base", tensor=2)], "qk_norm whole spans all heads"),
        (plan("base", pipeline=5), "4 layers cannot fill 5 stages"),
        (plan("base", pipeline=3, schedule="Interleaved1F1B"), "4 layers cannot fill 6 stages"),
        (plan("sft", tensor=4), "stage 'sft'.*kv_heads 6 cannot"),
        (plan("sft", pipeline=5), "stage 'sft'.*4 layers cannot fill 5 stages"),
        (["sft.context=67", *plan("sft", context=2)], "rows of 67 tokens cannot be cut"),
        *((plan("dpo", **{name: 2}), f"{name} 2 is not for this stage") for name in ("tensor", "context", "pipeline")),
        ([*OF_EXPERTS, *plan("dpo", expert=2)], "expert 2 is not for this stage"),
        *((plan("rl", **{name: 2}), f"{name} 2 is not for this stage") for name in ("replicate", "shard", "tensor")),
        (plan("rl", pipeline=2), "pipeline 2 is not for this stage: it samples and trains on one process"),
    ],
)
def test_what_a_network_or_stage_does_not_allow_is_refused(tmp_path: Path, overrides: list[str], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        load(tmp_path, *overrides)


@pytest.mark.parametrize("schedule", ["InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV"])
def test_schedules_that_split_the_backward_pass_refuse_zero_3_and_compiled_blocks(
    tmp_path: Path, schedule: str
) -> None:
    with pytest.raises(RequestError, match="gradients would be wrong without an error; set zero to 2"):
        load(tmp_path, *plan("base", pipeline=2, schedule=schedule))
    with pytest.raises(RequestError, match="splits the backward pass, which compiled blocks cannot do"):
        load(tmp_path, *plan("base", pipeline=2, schedule=schedule, zero=2), "base.loop.compile=true")
    load(tmp_path, *plan("base", pipeline=2, schedule=schedule, zero=2))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (plan("base", overlap=True), "overlap needs pipeline above 1"),
        (
            [*OF_EXPERTS, *plan("base", overlap=True, pipeline=2, expert=2)],
            "with schedule DualPipeV or Interleaved1F1B",
        ),
        (plan("base", overlap=True, pipeline=2, schedule="DualPipeV", zero=2), "and expert above 1"),
        (
            [*OVERLAPPING, "base.loop.recompute=full"],
            "set recompute to none",
        ),
        (
            [*OVERLAPPING, "base.loop.parallel.schedule=Interleaved1F1B", "base.loop.compile=true"],
            "and compile to false",
        ),
        ([*OF_EXPERTS, *plan("base", shard=4, expert=3)], "expert 3 must divide shard 4"),
    ],
)
def test_dimensions_that_do_not_go_together_are_refused(tmp_path: Path, overrides: list[str], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        load(tmp_path, *overrides)


def test_only_dense_layers_have_a_width_to_divide() -> None:
    experts = Experts(count=4, top_k=2, hidden=7)
    network = Network(dim=32, layers=2, attention=Attention(heads=4, kv_heads=4), experts=experts)
    assert parallel_error(network, Parallel(tensor=2), [64]) is None
