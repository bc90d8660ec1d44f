"""Which of a problem's sampled solutions are kept, and the documents made of them: pure functions and the writer.

After rejection-sampling fine-tuning (RFT, arXiv:2308.01825): solutions whose answer checks, one of those that say the
same, a bounded number a problem, and only of problems in a band of difficulty.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from glassbox.align.endpoint import Answer
from glassbox.curate.documents import PLACE, VERDICT, funnel_row
from glassbox.judge.verify import verify
from glassbox.ledger.writing import atomic_path
from glassbox.recipe.text import SynthesizeStage

STEPS = {
    "no_reply": "answered",
    "cut_off": "finished",
    "not_judged": "verified",
    "no_answer": "verified",
    "wrong_answer": "verified",
    "too_hard": "difficulty",
    "too_easy": "difficulty",
    "duplicate": "distinct",
    "surplus": "keep",
}
"""Rule that drops a solution -> the step it belongs to, in the order in which they are asked."""
DOCUMENT = pa.schema(
    [
        *PLACE,
        ("prompt", pa.large_string()),
        ("problem", pa.string()),
        ("answer", pa.string()),
        ("generator", pa.string()),
        ("pass_rate", pa.float32()),
        ("n_chars", pa.int64()),
    ]
)
"""Columns of `documents/*.parquet`; `offset` is the problem's row, `pass_rate` the share of its replies that check."""
DROPPED = pa.schema([*DOCUMENT, *VERDICT])
"""Columns of `dropped/*.parquet`: `other` is the answer that was found in a wrong solution, or the id of the solution
that stayed."""
EQUATION = re.compile(r"[0-9][0-9.,+\-*/×÷() ]{0,200}=\s{0,3}\$?-?[0-9.,]+")
SAMPLES, SAMPLE_CHARACTERS = 4, 2000


class Solution(NamedTuple):
    """A reply to a problem and why it is not kept."""

    sample: int
    text: str
    rule: str
    """Of STEPS; empty for one that is kept."""
    right: bool
    """Whether its answer checks and it was not cut off."""
    pass_rate: float
    threshold: float | None
    other: str


def judged(problem: dict[str, Any], replies: Sequence[Answer | None], config: SynthesizeStage) -> list[Solution]:
    """Every reply with the first rule that drops it, in the order sampled."""
    first = [_verified(problem["answer"], reply) for reply in replies]
    answered = sum(reply is not None for reply in replies)
    rate = sum(not rule for rule, _ in first) / answered if answered else 0.0
    band = ("too_hard", config.low) if rate < config.low else ("too_easy", config.high) if rate > config.high else None
    seen: dict[Any, int] = {}
    kept, out = 0, []
    for sample, (reply, (rule, other)) in enumerate(zip(replies, first, strict=True)):
        text, right, threshold = reply.text if reply else "", not rule, None
        if right and band:
            rule, threshold = band
        elif right:
            same = [seen[key] for key in _keys(text) if key in seen]
            if same:
                rule, other = "duplicate", _id(config.source, problem, same[0])
            elif kept == config.keep:
                rule = "surplus"
            else:
                kept += 1
                seen |= dict.fromkeys(_keys(text), sample)
        out.append(Solution(sample, text, rule, right, rate, threshold, other))
    return out


def funnel(source: str, counts: Mapping[str, int], sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """What is left after each step, as curate's funnel: `counts` and `sizes` by rule, of kept ones under ""."""
    documents, size = sum(counts.values()), sum(sizes.values())
    rows = [funnel_row("asked", source, documents, size)]
    for step in dict.fromkeys(STEPS.values()):
        rules = [rule for rule, belongs in STEPS.items() if belongs == step]
        documents -= sum(counts.get(rule, 0) for rule in rules)
        size -= sum(sizes.get(rule, 0) for rule in rules)
        rows.append(funnel_row(step, source, documents, size))
    return rows


class Outputs:
    """Writes kept and dropped solutions; both files appear whole when all is done, or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.samples: dict[str, list[dict[str, Any]]] = {"kept": [], "dropped": []}
        self._drawn: Counter[str] = Counter()
        self._rows: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
        self._open = ExitStack()

    def __enter__(self) -> "Outputs":
        self._writers = [self._writer("documents", DOCUMENT), self._writer("dropped", DROPPED)]
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def add(self, solutions: Sequence[Solution], facts: dict[str, Any]) -> None:
        """Take the solutions of one problem; `facts` are the columns that they share, and the question."""
        about = {name: value for name, value in facts.items() if name != "question"}
        for solution in solutions:
            text = f"{facts['question']}\n{solution.text.strip()}".encode("utf-8", "replace").decode()
            row = {
                **about,
                "id": _id(facts["source"], {"id": facts["problem"]}, solution.sample),
                "text": text,
                "pass_rate": solution.pass_rate,
                "n_chars": len(text),
            }
            if solution.rule:
                row |= {"stage": STEPS[solution.rule], "rule": solution.rule, "other": solution.other}
                row |= {"threshold": solution.threshold}
                row |= {"value": solution.pass_rate if solution.threshold is not None else None}
            self._rows[bool(solution.rule)].append(row)
            self._show(solution.rule, row)

    def flush(self) -> None:
        """Write what was added."""
        for writer, rows, schema in zip(self._writers, self._rows, (DOCUMENT, DROPPED), strict=True):
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
            rows.clear()

    def _writer(self, name: str, schema: pa.Schema) -> pq.ParquetWriter:
        path = self._open.enter_context(atomic_path(self.folder / name / f"{name}-000000.parquet"))
        return self._open.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))

    def _show(self, rule: str, row: dict[str, Any]) -> None:
        if self._drawn[rule] < SAMPLES:
            self._drawn[rule] += 1
            shown = {**row, "text": row["text"][:SAMPLE_CHARACTERS]}
            self.samples["dropped" if rule else "kept"].append(shown)


def _verified(gold: str, reply: Answer | None) -> tuple[str, str]:
    """(rule that drops a reply for itself alone, the answer found in it)."""
    if reply is None:
        return "no_reply", ""
    if reply.finish_reason == "length":
        return "cut_off", ""
    verdict = verify(gold=gold, reply=reply.text)
    if verdict.score is None:
        return "not_judged", ""
    if verdict.score == 1.0:
        return "", ""
    return ("no_answer", "") if verdict.status == "no_answer" else ("wrong_answer", verdict.extracted or "")


def _keys(text: str) -> list[Any]:
    """What makes two solutions equal: the words, case aside, or the set of their equations, if they have some."""
    equations = frozenset("".join(found.split()).replace(",", "") for found in EQUATION.findall(text))
    return [" ".join(text.casefold().split()), *([equations] if equations else [])]


def _id(source: str, problem: dict[str, Any], sample: int) -> str:
    return hashlib.blake2b(f"{source}\0{problem.get('id')}\0{sample}".encode(), digest_size=16).hexdigest()
