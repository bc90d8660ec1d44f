"""The shipped recipes: all load, the full ones are the published networks, the tiny ones go their whole way."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import glassbox.align.dpo
import glassbox.align.verified
from glassbox.cli.arguments import recipe_path, shipped
from glassbox.interchange.stage import check
from glassbox.ledger.runner import execute
from glassbox.ledger.workspace import read_metrics
from glassbox.model.families import from_config
from glassbox.model.transformer import Transformer
from glassbox.recipe.loading import load_recipe
from glassbox.recipe.network import Network
from glassbox.recipe.plan import plan_recipe
from glassbox.recipe.rates import phase_rate
from glassbox.recipe.schema import Recipe
from glassbox.recipe.size import parameters
from glassbox.recipe.training import PretrainStage
from glassbox.report.page import write_report
from glassbox.stages import STAGES
from tests.model.published import EURUX
from tests.tiny import write_notes

SYSTEMS = ("moxin", "olmoe", "dots", "eurux", "mimo")
PUBLISHED = {
    "moxin": (8_114_180_096, 8_114_180_096),
    "olmoe": (6_919_161_856, 1_282_017_280),
    "dots": (142_774_373_888, 14_016_581_120),
    "eurux": (140_620_634_112, 39_152_031_744),
    "mimo": (7_833_409_536, 7_622_619_136),
}
"""Parameters of the releases, and those that a token passes through."""
TOKENS = {"moxin": 2.0e12, "olmoe": 5_133_165_395_968, "dots": 11.328e12, "mimo": 23.784e12}
"""Tokens of pretraining."""


def names() -> list[str]:
    return sorted(path.relative_to(shipped()).with_suffix("").as_posix() for path in shipped().rglob("*.yaml"))


def load(name: str, overrides: list[str] | None = None) -> Recipe:
    return load_recipe(recipe_path(name), overrides or [])


def networks(recipe: Recipe) -> list[Network]:
    return [stage.model for stage in recipe.stages.values() if stage.kind in ("pretrain", "import")]  # type: ignore[attr-defined]


def test_every_system_has_its_two_recipes_and_no_two_share_a_run() -> None:
    assert set(names()) == {"quickstart"} | {f"{system}/{size}" for system in SYSTEMS for size in ("full", "tiny")}
    assert len({load(name).name for name in names()}) == len(names())


@pytest.mark.parametrize("name", names())
def test_every_recipe_loads_and_can_be_planned(name: str) -> None:
    recipe = load(name)
    assert recipe.description
    plan = plan_recipe(recipe, device="h100", devices=256, utilisation=0.4)
    assert plan["training"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_full_recipes_are_the_published_networks(system: str) -> None:
    recipe = load(f"{system}/full")
    plan = plan_recipe(recipe, device="h100", devices=256, utilisation=0.4)
    assert {(row["parameters"], row["active"]) for row in plan["training"]} == {PUBLISHED[system]}
    vocab_size = next(stage.vocab_size for stage in recipe.stages.values() if hasattr(stage, "vocab_size"))
    for network in networks(recipe):
        with torch.device("meta"):
            model = Transformer(network, vocab_size)
        assert sum(weight.numel() for weight in model.parameters()) == PUBLISHED[system][0]
    if system in TOKENS:
        read = [row["tokens"] for row in plan["training"] if recipe.stages[row["stage"]].kind == "pretrain"]
        assert sum(read) == pytest.approx(TOKENS[system], rel=1e-4)


def rate_at(stage: PretrainStage, tokens: float) -> float:
    """The learning rate after so many tokens of all phases, of a step that reads next to nothing."""
    for number, phase in enumerate(stage.phases):
        if tokens < phase.total_tokens or number == len(stage.phases) - 1:
            return phase_rate(stage, number, tokens, 1)
        tokens -= phase.total_tokens
    raise AssertionError("a stage has phases")


def batch_at(stage: PretrainStage, tokens: float) -> int:
    """Rows of a step after so many tokens."""
    for phase in stage.phases:
        if tokens < phase.total_tokens:
            return next(level.rows for level in phase.levels if tokens < level.last * phase.context)
        tokens -= phase.total_tokens
    raise AssertionError("the phases are shorter")


T = 1e12
RATES = {
    # dots.llm1, section 4.2, with a cosine; MiMo, section 2.3: trillions of tokens -> learning rate
    "dots": {0.1342: 1.5e-4, 5: 3e-4, 9.99: 3e-4, 10.5: 1.65e-4, 11.001: 3e-5, 11.1: 2e-5, 11.1999: 1e-5, 11.3: 1e-5},
    "mimo": {
        0.042: 5.35e-5,
        10.28: 1.07e-4,
        12.159: 9.572e-5,
        14.034: 6.85e-5,
        15.909: 4.128e-5,
        17.785: 3e-5,
        21.784: 3e-5,
        23.534: 2e-5,
        23.784: 1e-5,
    },
}


@pytest.mark.parametrize("system", list(RATES))
def test_full_recipes_have_the_published_rates(system: str) -> None:
    stage = load(f"{system}/full").stages["base"]
    assert isinstance(stage, PretrainStage)
    for tokens, rate in RATES[system].items():
        assert rate_at(stage, tokens * T) == pytest.approx(rate, rel=1e-3)


def test_olmoe_has_the_published_rates_and_its_annealing_a_fresh_shuffle() -> None:
    """arXiv:2409.02060, appendix B: warm-up from a tenth, a cosine over 5e12 tokens, its floor, then down to 0."""
    stage = load("olmoe/full").stages["base"]
    assert isinstance(stage, PretrainStage)
    warm, whole, peak = 10_485_760_000, 5e12, 4e-4
    for tokens in (1e9, 8e9, 2e10, 1e12, 2.5e12, 4.9e12, 5.02e12):
        cosine = 0.1 * peak + 0.45 * peak * (1 + math.cos(math.pi * (tokens - warm) / (whole - warm)))
        expected = peak * (0.1 + 0.9 * tokens / warm) if tokens < warm else cosine if tokens < whole else 0.1 * peak
        assert rate_at(stage, tokens) == pytest.approx(expected, rel=1e-5)
    start, steps = 1_200_000 * 4_194_304, 23_842
    for step in (0, 10_000, 23_841):
        assert rate_at(stage, start + step * 4_194_304) == pytest.approx(4e-5 * (1 - step / steps), rel=1e-6)
    assert [phase.reshuffle for phase in stage.phases] == [False, False, True]
    assert sum(phase.total_steps for phase in stage.phases) == 1_223_842


def test_batches_grow_where_the_reports_say() -> None:
    dots, mimo = (load(f"{system}/full").stages["base"] for system in ("dots", "mimo"))
    assert isinstance(dots, PretrainStage)
    assert isinstance(mimo, PretrainStage)
    found = [batch_at(dots, tokens * T) for tokens in (0, 5.9999, 6.0001, 8.2999, 8.3001, 9.9, 10.5, 11.1, 11.3)]
    assert found == [8192, 8192, 12288, 12288, 16384, 16384, 16384, 16384, 4096]
    found = [batch_at(mimo, tokens * T) for tokens in (0, 0.084, 0.1679, 0.1681, 10.29, 17, 20, 22, 23.5)]
    assert found == [64, 1280, 2496, 2560, 2560, 2560, 2560, 640, 640]
    assert [mimo.network_in(n).attention.rope_base for n in (0, 3, 4, 5)] == [10_000, 10_000, 640_000, 640_000]
    assert [phase.multi_token_loss for phase in mimo.phases] == [0.3, 0.3, 0.1, 0.1, 0.1, 0.1]


def test_eurux_takes_the_released_mixtral_and_no_other_rotary_base() -> None:
    stage = load("eurux/full").stages["base"]
    check(stage, from_config(EURUX, "config.json"))  # type: ignore[arg-type]
    with pytest.raises(Exception, match=r"attention.rope_base is 10000.0, the recipe's is 1000000.0"):
        check(stage, from_config(EURUX | {"rope_theta": 10000.0}, "config.json"))  # type: ignore[arg-type]


TINY_SIZES = {"moxin": 2_967_936, "olmoe": 7_637_120, "dots": 4_467_968, "mimo": 2_296_384}


@pytest.mark.parametrize("system", SYSTEMS)
def test_tiny_recipes_keep_the_family(system: str) -> None:
    tiny, full = networks(load(f"{system}/tiny"))[-1], networks(load(f"{system}/full"))[-1]
    vocab_size = load(f"{system}/tiny").stages["tokenizer"].vocab_size  # type: ignore[attr-defined]
    if system in TINY_SIZES:
        assert parameters(tiny, vocab_size).total == TINY_SIZES[system]
    kept = ("bias", "qk_norm")
    assert [getattr(tiny.attention, name) for name in kept] == [getattr(full.attention, name) for name in kept]
    assert (tiny.attention.window is None) == (full.attention.window is None)
    assert tiny.multi_token == full.multi_token
    assert (tiny.experts is None) == (full.experts is None)
    if tiny.experts and full.experts:
        own = {"count", "top_k", "hidden", "balance_loss", "z_loss"}
        assert tiny.experts.model_dump(exclude=own) == full.experts.model_dump(exclude=own)


class Quiet:
    """A watcher that remembers what was done."""

    def stage(self, name: str, state: str, seconds: float = 0.0) -> None: ...
    def progress(self, done: float, total: float, note: str) -> None: ...


def short(system: str, notes: Path) -> Recipe:
    """A tiny recipe with a few steps of everything, on small documents in place of its own."""
    sources = [{"name": name, "format": "text", "path": str(notes / name)} for name in ("web", "code")]
    first = "prepared" if system == "dots" else "documents"
    overrides = ["problems.train=200", "problems.held_out=8", "crawl.pages=2", f"{first}.sources={sources}"]
    overrides += ["tokenizer.vocab_size=500", "tokens.held_out=0.2"]
    for name, stage in load(f"{system}/tiny").stages.items():
        if stage.kind == "pretrain":
            for number, phase in enumerate(stage.phases):  # type: ignore[attr-defined]
                context = 128 * min(number + 1, 2)
                length = f"tokens={4 * context}" if phase.tokens else "steps=2"
                overrides += [f"{name}.phases.{number}.{one}" for one in (length, "rows=2", f"context={context}")]
            overrides += [f"{name}.loop.evaluate_every=0", f"{name}.loop.log_every=1"]
        if stage.kind == "sft":
            overrides += [f"{name}.conversations=60", f"{name}.context=128", f"{name}.rows=4"]
        if stage.kind == "dpo":
            overrides += [f"{name}.prompts=12", f"{name}.rows=4", f"{name}.sampling.max_new_tokens=6"]
        if stage.kind == "synthesize":
            overrides += [f"{name}.problems=100", f"{name}.samples=2", f"{name}.sampling.max_new_tokens=6"]
        if stage.kind == "grpo":
            overrides += [f"{name}.steps=2", f"{name}.prompts=2", f"{name}.group=2"]
            overrides += [f"{name}.sampling.max_new_tokens=6"]
        if stage.kind == "evaluate":
            overrides += [f"{name}.sampling.max_new_tokens=6"]
    return load(f"{system}/tiny", overrides)


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of two sources."""
    folder = tmp_path_factory.mktemp("runs")
    for turn, note in enumerate(sorted(write_notes(folder / "notes").iterdir())):
        place = folder / ("web", "code")[turn % 2]
        place.mkdir(exist_ok=True)
        note.rename(place / note.name)
    return folder


def any_verdict() -> Callable[..., SimpleNamespace]:
    """In place of the verifier, of whom an untrained model never hears that it is right: every second reply is."""
    turn = iter(range(1_000_000))
    return lambda *, gold, reply: SimpleNamespace(score=float(next(turn) % 2), status="right", extracted="")


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_tiny_recipes_go_the_whole_way(
    system: str, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (glassbox.align.dpo, glassbox.align.verified):
        monkeypatch.setattr(room, "verify", any_verdict())
    recipe, run = short(system, notes), tmp_path / "run"
    assert execute(recipe, run, STAGES, Quiet()) == recipe.order()
    rows = json.loads((run / "scores" / "scores.json").read_text())["rows"]
    models = {name for name, stage in recipe.stages.items() if stage.gives == "model"}
    assert {row["model"] for row in rows} == models
    metrics = {row["metric"] for row in rows}
    assert {"exact_match", "exact_match_plain", "bits_per_byte"} <= metrics
    assert ("acceptance" in metrics) == (system == "mimo")
    logged = {name for row in read_metrics(run / "base") for name in row}
    assert ("multi_token_loss" in logged) == (system == "mimo")
    assert ("expert_load_max_over_mean" in logged) == (system in ("olmoe", "dots", "eurux"))
    page = write_report(run).read_text(encoding="utf-8")
    assert ("Loss ahead" in page and "Tokens drafted as the model itself would choose" in page) == (system == "mimo")
    assert ("score bias, loss over each row 0.0001, no loss over the batch" in page) == (system == "dots")
