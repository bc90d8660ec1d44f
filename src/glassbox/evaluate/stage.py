"""The stage `evaluate`: exact match on held-out problems, and bits per byte (and how often a multi-token block would be
believed) on held-out documents, with intervals.

Two ways of asking, never in one column: `exact_match` asks in the chat format, `exact_match_plain` as running text, the
way a base model knows problems from its pretraining documents.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glassbox.errors import RequestError
from glassbox.evaluate.intervals import ratio, wilson
from glassbox.evaluate.needle import Cell, find, found_shares, record
from glassbox.generate.replies import chat_prompt, plain_prompt, sample_replies
from glassbox.judge.stage import read_problems
from glassbox.judge.verify import verify
from glassbox.ledger.hashing import digest
from glassbox.ledger.workspace import Artefact, Inputs, Workspace
from glassbox.ledger.writing import write_json, write_lines
from glassbox.model.folder import LoadedModel, load_model
from glassbox.recipe.training import EvaluateStage
from glassbox.tokens.baselines import bigram_bits_per_byte, xz_bits_per_byte
from glassbox.tokens.batches import held_out_rows
from glassbox.tokens.chat import CHAT_TEMPLATE
from glassbox.tokens.shards import TokenFolder
from glassbox.train.evaluation import HeldOut, acceptance_name, measure

WINDOWS = 8
"""Windows of held-out text scored together, the unit of the bits-per-byte interval."""

ASKED: dict[str, Callable[[LoadedModel, str], list[int]]] = {
    "exact_match": chat_prompt,
    "exact_match_plain": plain_prompt,
}


@dataclass(frozen=True)
class Score:
    """One number with its interval."""

    model: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    kind: str | None = None
    """The kind of problem, when the score is of one kind."""
    source: str | None = None
    """The source of the documents, for bits per byte."""


def run(config: EvaluateStage, inputs: Inputs, workspace: Workspace) -> None:
    """Score every model on everything given. Needs problems or tokens, or both."""
    problems_folder, tokens_folder = inputs.maybe("problems"), inputs.maybe("tokens")
    if problems_folder is None and tokens_folder is None:
        raise RequestError("evaluate needs problems or tokens in its `from`")
    if config.needle and tokens_folder is None:
        raise RequestError("evaluate hides needles in held-out text: it needs tokens in its `from`")
    problems = list(read_problems(problems_folder, "held_out"))[: config.problems] if problems_folder else []
    scores: list[Score] = []
    samples: list[dict[str, Any]] = []
    needles: dict[str, list[Cell]] = {}
    models = inputs.all("model")
    for done, artefact in enumerate(models):
        loaded = load_model(artefact.path / "model", workspace.device)
        for metric in ASKED if problems else ():
            workspace.progress(done, len(models), f"{artefact.name} · {metric}")
            rows = ask(config, loaded, artefact.name, metric, problems, workspace.seed)
            scores += exact_match(rows, artefact.name, metric, config.confidence)
            samples += [row for row in rows if row["shown"]]
        if tokens_folder:
            workspace.progress(done, len(models), f"{artefact.name} · bits per byte")
            scores += held_out_scores(config, loaded, artefact, tokens_folder)
        if config.needle and tokens_folder:
            cells = needles[artefact.name] = []
            for cell in find(config.needle, loaded, tokens_folder, workspace.seed):
                cells.append(cell)
                workspace.progress(done, len(models), f"{artefact.name} · needles at {cell.length:,} tokens")
                workspace.stop_if_asked()
            shares = found_shares(cells, config.confidence)
            scores += [Score(artefact.name, metric, *share) for metric, share in shares.items()]
        workspace.stop_if_asked()
    baselines = baseline_scores(tokens_folder, loaded.context) if tokens_folder else {}
    if config.needle:
        write_json(workspace.path("needle.json"), record(config.needle, needles))
    write_lines(workspace.path("samples.jsonl"), samples)
    protocol = describe(config, problems, workspace.seed)
    rows_out = [{name: value for name, value in asdict(score).items() if value is not None} for score in scores]
    write_json(workspace.path("scores.json"), {"protocol": protocol, "rows": rows_out, "baselines": baselines})


def ask(
    config: EvaluateStage,
    loaded: LoadedModel,
    name: str,
    metric: str,
    problems: Sequence[dict[str, Any]],
    seed: int,
) -> list[dict[str, Any]]:
    """One reply to each problem, judged. `shown` marks those the report prints: the same problems for every model."""
    prompts = [ASKED[metric](loaded, problem["question"]) for problem in problems]
    replies = sample_replies(loaded, prompts, config.sampling, key=(seed, "evaluate", metric))
    every = max(1, len(problems) // max(1, config.samples_shown))
    rows = []
    for index, (problem, (reply,)) in enumerate(zip(problems, replies, strict=True)):
        text = reply.text if metric == "exact_match" else first_answer(reply.text)
        verdict = verify(gold=problem["answer"], reply=text)
        rows.append(
            {
                "model": name,
                "metric": metric,
                "id": problem["id"],
                "kind": problem["kind"],
                "question": problem["question"],
                "reply": text,
                "answer": problem["answer"],
                "correct": verdict.score == 1.0,
                "status": verdict.status,
                "finish_reason": reply.finish_reason,
                "shown": index % every == 0 and index < every * config.samples_shown,
            }
        )
    return rows


def first_answer(text: str) -> str:
    """Running text up to the end of its first answer line: a base model goes on to write the next problem."""
    before, marker, after = text.partition("####")
    return before + marker + after.partition("\n")[0]


def exact_match(rows: Sequence[dict[str, Any]], model: str, metric: str, confidence: float) -> list[Score]:
    """Share of right replies over all problems, then for each kind."""
    groups: list[tuple[str | None, list[dict[str, Any]]]] = [(None, list(rows))]
    groups += [(kind, [row for row in rows if row["kind"] == kind]) for kind in sorted({row["kind"] for row in rows})]
    scores = []
    for kind, group in groups:
        right = sum(row["correct"] for row in group)
        low, high = wilson(right, len(group), confidence)
        scores.append(Score(model, metric, right / len(group), low, high, len(group), kind=kind))
    return scores


def held_out_scores(config: EvaluateStage, loaded: LoadedModel, artefact: Artefact, tokens_folder: Path) -> list[Score]:
    """Bits per byte on each source's held-out text and on all of it, and the acceptance of each multi-token block;
    blocks of `WINDOWS` windows are the units."""
    scores: list[Score] = []
    everything: list[tuple[HeldOut, int]] = []
    for source in held_out_sources(tokens_folder):
        windows = held_out_rows(tokens_folder, source, loaded.context, rows=WINDOWS)
        units = [(measure(loaded.model, batch), text_bytes) for batch, text_bytes in windows if text_bytes]
        scores += _ratios(config, artefact.name, units, source)
        everything += units
    return scores + _ratios(config, artefact.name, everything, None)


def _ratios(config: EvaluateStage, model: str, units: Sequence[tuple[HeldOut, int]], source: str | None) -> list[Score]:
    if not units:
        return []
    pairs = {"bits_per_byte": [(held_out.nats / math.log(2), float(size)) for held_out, size in units]}
    for k in range(len(units[0][0].drafted)):
        pairs[acceptance_name(k + 1)] = [(float(held.accepted[k]), float(held.drafted[k])) for held, _ in units]
    scores = []
    for metric, found in pairs.items():
        tops, bottoms = [top for top, _ in found], [bottom for _, bottom in found]
        if sum(bottoms):
            scores.append(Score(model, metric, *ratio(tops, bottoms, config.confidence), len(found), source=source))
    return scores


def held_out_sources(tokens_folder: Path) -> list[str]:
    """Sources with held-out text, in order."""
    return [source for source, splits in TokenFolder(tokens_folder).sources.items() if splits["held_out"]["tokens"]]


def baseline_scores(tokens_folder: Path, context: int) -> dict[str, dict[str, float]]:
    """What bits per byte are to be compared with, by baseline and source (and "all"), on the very same tokens."""
    measures = {"bigram": bigram_bits_per_byte, "xz": xz_bits_per_byte}
    text_bytes = {
        source: sum(size for _, size in held_out_rows(tokens_folder, source, context))
        for source in held_out_sources(tokens_folder)
    }
    scores = {
        name: {source: measure(tokens_folder, source, context) for source, size in text_bytes.items() if size}
        for name, measure in measures.items()
    }
    for by_source in scores.values():
        if by_source:
            bits = sum(value * text_bytes[source] for source, value in by_source.items())
            by_source["all"] = bits / sum(text_bytes[source] for source in by_source)
    return scores


def describe(config: EvaluateStage, problems: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The protocol that belongs to every score of this stage."""
    return {
        "exact_match": "chat format, no examples, one reply, final answer compared as a number",
        "exact_match_plain": "running text, no examples, one reply up to its first answer line, compared as a number",
        "bits_per_byte": "held-out documents, windows of the training context, first token of each piece not counted",
        "acceptance": "the same text: share of tokens for which a multi-token block names the model's own first choice",
        "needle_exact": "a number hidden in held-out text and asked for at its end is what the model writes",
        "needle_choice": "the same texts: it is the likeliest of as many numbers as needle.json says",
        "sampling": config.sampling.model_dump(mode="json", exclude={"batch"}),
        "confidence": config.confidence,
        "seed": seed,
        "problems": len(problems),
        "problems_sha256": digest([problem["id"] for problem in problems]),
        "template_sha256": digest(CHAT_TEMPLATE),
    }
