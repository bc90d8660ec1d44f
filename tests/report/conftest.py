"""A plausible run, made through the real ledger by small stage functions that write artefacts in the rooms' formats.

To look at its page:
    python -c "import runpy, pathlib; runpy.run_path('tests/report/conftest.py')['look'](pathlib.Path('/tmp/look'))"
"""

import json
import math
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest

from glassbox.errors import GlassboxError
from glassbox.ledger.runner import Selection, execute
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import write_json, write_lines
from glassbox.recipe.loading import build, parse
from tests.report.curation_facts import HOSTILE, clutter, crawl, curate, topics
from tests.report.reading import Page, page_of

RECIPE = """
name: looking-glass
description: A small mixture of experts from the pages of an interpreter's own documentation, taught to add up.
seed: 7
stages:
  pages: {kind: crawl, pages: 500}
  problems: {kind: problems, train: 4000, held_out: 400}
  topics:
    kind: classifier
    labels: {judge: {url: "http://127.0.0.1:9/v1", model: judge, classes: [code, maths, news, prose]}}
  lines: {kind: clutter, labels: {judge: {url: "http://127.0.0.1:9/v1", model: judge, classes: [keep, drop]}}}
  documents:
    kind: curate
    from: [pages, problems, topics, lines]
    sources:
      - {name: web, format: warc, stage: pages, rules: [reference], clean: {clutter: {stage: lines}}}
      - {name: code, format: code, path: "python:stdlib", rules: [code]}
    models: [{stage: topics, drop: [news]}]
    sampling: {category: topics, targets: {maths: 0.2, prose: 0.5}}
  tokenizer: {kind: tokenizer, from: [documents, problems], vocab_size: 4096}
  tokens: {kind: tokenize, from: [documents, problems, tokenizer]}
  base:
    kind: pretrain
    from: tokens
    model: {dim: 128, layers: 4, attention: {heads: 4, kv_heads: 2}, experts: {count: 16, top_k: 4, hidden: 128}}
    phases:
      - {name: broad, steps: 300, mixture: {web: 2, code: 1, problems: 1}, context: 256, rows: 32}
      - {name: anneal, steps: 100, mixture: {web: 1, problems: 2}, context: 256, rows: 32}
    optimizer: {lr: 0.003}
  sft: {kind: sft, from: [base, problems], context: 256, rows: 16, optimizer: {lr: 0.001}}
  dpo: {kind: dpo, from: [sft, problems], prompts: 500, rows: 8, optimizer: {lr: 0.0001}}
  rl: {kind: grpo, from: [sft, problems], steps: 60, prompts: 16, optimizer: {lr: 0.0002}}
  scores: {kind: evaluate, from: [base, sft, dpo, rl, problems, tokens]}
"""
MODELS = {"base": 0.04, "sft": 0.575, "dpo": 0.59, "rl": 0.815}
KINDS = ("addition", "buying", "comparison", "giving", "multiplication", "remainder", "sharing")
BITS = {"web": 1.412, "code": 1.187}


class Quiet:
    """A watcher that looks away."""

    def stage(self, name: str, state: str, seconds: float = 0.0) -> None: ...
    def progress(self, done: float, total: float, note: str) -> None: ...


def problems(config: Any, inputs: Inputs, workspace: Workspace) -> None:
    row = {"id": "p1", "kind": "addition", "question": "What is 2 + 2?", "solution": "#### 4", "answer": "4"}
    for split in ("train", "held_out"):
        write_lines(workspace.path(f"{split}.jsonl"), [row])


def tokenizer(config: Any, inputs: Inputs, workspace: Workspace) -> None:
    ratios = {"web": 3.37, "code": 3.02, "problems": 2.11}
    write_json(workspace.path("report.json"), {"vocab_size": 4096, "bytes_per_token": ratios, "unused": 17})


def tokenize(config: Any, inputs: Inputs, workspace: Workspace) -> None:
    sizes = {"web": (356, 1_008_001), "code": (1364, 3_857_310), "problems": (4000, 411_207)}
    sources = {
        name: {
            "train": {"documents": documents, "tokens": tokens, "bytes": tokens * 3},
            "held_out": {"documents": documents // 90, "tokens": tokens // 90, "bytes": tokens // 30},
        }
        for name, (documents, tokens) in sizes.items()
    }
    write_json(
        workspace.path("tokens.json"), {"vocab_size": 4096, "dtype": "uint16", "eos_id": 4093, "sources": sources}
    )


def trainer(steps: int, metrics: Any, summary: dict[str, Any], evaluate_every: int = 0) -> Any:
    """A stage function that writes `metrics(step, rng)` for each step and `summary`."""

    def run(config: Any, inputs: Inputs, workspace: Workspace) -> None:
        rng = Random(workspace.folder.name)
        for step in range(1, steps + 1):
            common = {
                "lr": config.optimizer.lr * min(1.0, step / (0.05 * steps), (steps - step + 1) / (0.3 * steps)),
                "grad_norm": abs(rng.gauss(0.8, 0.15)) + 2 * math.exp(-step / 20),
                "tokens": step * 8192,
                "tokens_per_second": rng.gauss(9100, 240),
                "flops_per_second": 2.1e10,
                "mfu": rng.gauss(0.31, 0.01),
            }
            workspace.metric(step, **metrics(step, rng), **common)
            if evaluate_every and step % evaluate_every == 0:
                bits = {f"bits_per_byte/{name}": value + 1.6 * math.exp(-step / 90) for name, value in BITS.items()}
                tasks = {f"task/{name}/{metric}": value for name, metric, value in _tasks(step)}
                workspace.metric(step, **bits, **{f"acceptance/{name}": 0.5 for name in BITS}, **tasks)
                write_json(workspace.path("task_scores.json"), {"confidence": 0.95, "rows": _task_rows(step)})
        write_json(
            workspace.path("summary.json"), {**summary, "steps": steps, "tokens": steps * 8192, "seconds": 212.4}
        )

    return run


TASKS = ("piqa", "hellaswag", "arc_easy", "boolq", "mmlu", "mmlu_stem", "sums")
"""More than a chart has colours for."""


def _tasks(step: int) -> list[tuple[str, str, float]]:
    gain = 1 - math.exp(-step / 150)
    own = {"arc_easy": "acc", "boolq": "acc", "sums": "exact_match"}
    right = [(name, own.get(name, "len_norm"), 0.25 + 0.05 * n * gain) for n, name in enumerate(TASKS)]
    return right + [(name, "bpb", 1.9 - 0.1 * n * gain) for n, name in enumerate(TASKS[:-1])]


def _task_rows(step: int) -> list[dict[str, Any]]:
    return [
        {"task": name, "form": name, "shots": [0, 5] if name.startswith("mmlu") else [0], "n": 500 + n,
         "data_sha256": "5e" * 32, "metric": metric, "value": value, "low": value - 0.04, "high": value + 0.04}
        for n, (name, metric, value) in enumerate(_tasks(step))
    ]  # fmt: skip


def _pretraining(step: int, rng: Random) -> dict[str, float]:
    return {
        "loss": 3.1 + 5.2 * math.exp(-step / 60) + rng.gauss(0, 0.09),
        "multi_token_loss": 4.1 + 5.2 * math.exp(-step / 60),
        "router_loss": 0.011 + 0.01 * math.exp(-step / 40),
        "expert_load_max_over_mean": 1.3 + 1.9 * math.exp(-step / 50) + rng.gauss(0, 0.05),
    }


def _preferences(step: int, rng: Random) -> dict[str, float]:
    gain = 1 - math.exp(-step / 20)
    return {
        "loss": 0.693 - 0.3 * gain + rng.gauss(0, 0.02),
        "reward_chosen": 0.3 * gain,
        "reward_rejected": -0.9 * gain,
        "margin": 1.2 * gain + rng.gauss(0, 0.05),
        "accuracy": 0.5 + 0.35 * gain,
        "logprob_chosen": -11 - gain,
    }


def _rollouts(step: int, rng: Random) -> dict[str, float]:
    gain = 1 - math.exp(-step / 25)
    return {
        "loss": rng.gauss(0, 0.01),
        "reward": 0.57 + 0.28 * gain + rng.gauss(0, 0.03),
        "groups_without_signal": 0.3 + 0.3 * gain + rng.gauss(0, 0.02),
        "completion_tokens": 61 - 8 * gain + rng.gauss(0, 1),
        "truncated": 0.02,
        "no_answer": 0.05 * (1 - gain),
        "not_judged": 0.0,
        "entropy": 0.4 - 0.2 * gain,
        "clip_share": 0.0,
    }


def evaluate(config: Any, inputs: Inputs, workspace: Workspace) -> None:
    rng, rows = Random(3), []
    for model, share in MODELS.items():
        for metric in ("exact_match", "exact_match_plain"):
            share = share if metric == "exact_match" else 0.2 + share / 2
            half = 1.96 * math.sqrt(share * (1 - share) / 400)
            score = {"model": model, "metric": metric, "value": share, "low": share - half, "high": share + half}
            rows.append({**score, "n": 400})
            for kind in KINDS:
                value = min(1.0, max(0.0, share + rng.gauss(0, 0.1)))
                band = {"value": value, "low": max(0.0, value - 0.11), "high": min(1.0, value + 0.11)}
                rows.append({**score, **band, "n": 57, "kind": kind})
        for source, bits in {**BITS, "": 1.25}.items():
            worse = bits + 0.05 * list(MODELS).index(model)
            named = {"source": source} if source else {}
            rows.append({"model": model, "metric": "bits_per_byte", "value": worse, "low": worse - 0.02,
                         "high": worse + 0.02, "n": 70, **named})  # fmt: skip
            rows.append({"model": model, "metric": "acceptance", "value": 0.62, "low": 0.6, "high": 0.64,
                         "n": 70, **named})  # fmt: skip
        rows.append({"model": model, "metric": "acceptance_2", "value": 0.41, "low": 0.4, "high": 0.42, "n": 70})
    baselines = {"bigram": {"web": 2.204, "code": 2.031}, "xz": {"web": 1.98, "code": 1.74}}
    protocol = {
        "exact_match": "chat format, no examples, one reply, final answer compared as a number",
        "exact_match_plain": "running text, no examples, one reply up to its first answer line, compared as a number",
        "bits_per_byte": "held-out documents, windows of the training context, first token of each piece not counted",
        "acceptance": "the same text, drafted",
        "sampling": {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 128, "batch": 64},
        "confidence": 0.95,
        "seed": 7,
        "problems": 400,
        "problems_sha256": "3f" * 32,
    }
    write_json(workspace.path("scores.json"), {"protocol": protocol, "rows": rows, "baselines": baselines})
    write_lines(workspace.path("samples.jsonl"), _conversations())
    write_json(workspace.path("needle.json"), _needles())


def _needles() -> dict[str, Any]:
    """Later models find more, shorter rows are easier; the longest rows have no room in `base`."""
    lengths, depths, rng = (512, 1024, 2048, 4096), (0.0, 0.25, 0.5, 0.75, 1.0), Random(11)
    models = {}
    for m, model in enumerate(MODELS):
        ease = {length: 0.3 + 0.25 * m - 0.08 * i for i, length in enumerate(lengths[: 4 if m else 3])}
        models[model] = [
            {"length": length, "depth": depth, "n": 16, "exact": sum(rng.random() < share**2 for _ in range(16)),
             "choice": sum(rng.random() < max(0.1, share) for _ in range(16))}
            for length, share in ease.items() for depth in depths
        ]  # fmt: skip
    protocol = {"lengths": lengths, "depths": depths, "samples": 16, "digits": 5, "choices": 10}
    protocol |= {"needle": "The magic number is {value}.", "question": "What is the magic number? The magic number is"}
    return {"protocol": protocol, "chance": 0.1, "models": models}


def _conversations() -> list[dict[str, Any]]:
    rows = []
    for m, model in enumerate(MODELS):
        for metric in ("exact_match", "exact_match_plain"):
            for n, kind in enumerate(KINDS[:4]):
                wrong = "The the of, and = ( 1 1 1 1"
                reply = wrong if model == "base" else f"{17 + n} + 26 = {43 + n}\n\n#### {43 + n - (m < 2)}"
                question = f"Anna has {17 + n} apples and gets 26 more from Ben. How many apples does she have now?"
                row = {"model": model, "metric": metric, "id": f"h{n}", "kind": kind, "question": question}
                row |= {"correct": m >= 2, "answer": f"{43 + n}", "reply": HOSTILE if (n, m) == (1, 0) else reply}
                rows.append(row)
    return rows


def _load() -> list[list[float]]:
    rng = Random(5)
    rows = [[rng.uniform(0.4, 1.5) for _ in range(16)] for _ in range(4)]
    return [[value / sum(row) for value in row] for row in rows]


PARAMETERS = {"total": 2_401_408, "active": 1_024_000, "embedding": 524_288}
FUNCTIONS = {
    "crawl": crawl,
    "problems": problems,
    "classifier": topics,
    "clutter": clutter,
    "curate": curate,
    "tokenizer": tokenizer,
    "tokenize": tokenize,
    "pretrain": trainer(400, _pretraining, {"parameters": PARAMETERS, "expert_load": _load(), "flops": 6.1e13}, 50),
    "sft": trainer(150, _pretraining, {"parameters": PARAMETERS, "conversations": 3988, "left_out_too_long": 12}),
    "dpo": trainer(55, _preferences, {"parameters": PARAMETERS, "pairs": 441, "all_right": 31, "all_wrong": 28}),
    "grpo": trainer(60, _rollouts, {"parameters": PARAMETERS, "completions": 7680}),
    "evaluate": evaluate,
}


def build_run(run: Path, last: str | None = None, functions: dict[str, Any] | None = None) -> Path:
    """Carry the recipe out in `run`, up to stage `last`."""
    data, lines = parse(RECIPE, "recipe.yaml")
    recipe = build(data, lines, "recipe.yaml")
    execute(recipe, run, {**FUNCTIONS, **(functions or {})}, Quiet(), selection=Selection(last=last))
    return run


def broken_off(config: Any, inputs: Inputs, workspace: Workspace) -> None:
    """A stage that fails after some steps and a torn line."""
    for step in range(1, 31):
        workspace.metric(step, loss=5.0 - step / 10, lr=0.001)
    with workspace.path("metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 31, "loss": 1.')
    raise GlassboxError("training diverged")


def look(run: Path) -> None:
    """Write the example's page, with times that look like a real run's."""
    from glassbox.report.page import write_report

    write_report(build_run(run))


@pytest.fixture(scope="session")
def example_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; do not write into it."""
    return build_run(tmp_path_factory.mktemp("runs") / "looking-glass")


@pytest.fixture(scope="session")
def page(example_run: Path) -> Page:
    """Its page."""
    return page_of(example_run)


@pytest.fixture
def copy(example_run: Path, tmp_path: Path) -> Path:
    """A copy of the example that a test may damage."""
    return Path(shutil.copytree(example_run, tmp_path / example_run.name))


def edit_json(path: Path, change: Any) -> None:
    """Rewrite a JSON file by `change(value)`."""
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
