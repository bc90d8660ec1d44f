"""The vocabulary, and how many tokens each source became."""

from dataclasses import dataclass
from typing import Any

from glassbox.report.artefacts import RunFacts, as_dict, whole
from glassbox.report.format import NONE, count, is_number, size


@dataclass(frozen=True)
class Tokens:
    """The tokenizer and the shards."""

    facts: list[tuple[str, str]]
    sources: list[tuple[str, ...]]
    """source, bytes per token, then documents, tokens and bytes of train and of held-out."""


def tokens(facts: RunFacts) -> Tokens | None:
    """Vocabulary and shards of the run's tokenizer and tokenize stages; None before either is finished."""
    report: dict[str, Any] = {}
    shards: dict[str, Any] = {}
    for stage in facts.kinds("tokenizer"):
        report |= as_dict(facts.json(stage, "report.json"))
    for stage in facts.kinds("tokenize"):
        shards |= as_dict(facts.json(stage, "tokens.json"))
    if not report and not shards:
        return None
    sources = as_dict(shards.get("sources"))
    figures = [("Vocabulary", count(report.get("vocab_size", shards.get("vocab_size"))))]
    for label, key, shown in (
        ("Entries never used", "unused", count),
        ("Train tokens", "train", count),
        ("Held-out tokens", "held_out", count),
    ):
        value = report.get(key) if key == "unused" else _sum(sources, key) if sources else None
        if value is not None:
            figures.append((label, shown(value)))
    if "dtype" in shards:
        figures.append(("Stored as", str(shards["dtype"])))
    return Tokens(figures, _token_rows(sources, as_dict(report.get("bytes_per_token"))))


def _token_rows(sources: dict[str, Any], ratios: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for name in dict.fromkeys([*sources, *ratios]):
        splits = as_dict(sources.get(name))
        cells = []
        for split in ("train", "held_out"):
            part = as_dict(splits.get(split))
            cells += [count(part.get("documents")), count(part.get("tokens")), size(part.get("bytes"))]
        train = as_dict(splits.get("train"))
        ratio = ratios.get(name)
        if not is_number(ratio) and whole(train, "tokens"):
            ratio = whole(train, "bytes") / whole(train, "tokens")
        rows.append((name, f"{ratio:.2f}" if is_number(ratio) else NONE, *cells))
    return rows


def _sum(sources: dict[str, Any], split: str) -> int:
    return sum(whole(as_dict(as_dict(splits).get(split)), "tokens") for splits in sources.values())
