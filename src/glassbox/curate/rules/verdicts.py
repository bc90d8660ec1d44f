"""Documents against rules: which rule, if any, condemns each document, with the value and the threshold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glassbox.curate.rules.code import extension
from glassbox.curate.rules.statistics import STATISTICS
from glassbox.recipe.rules import RULE_SETS, Rule
from glassbox.recipe.sources import Source

KEPT = "kept"


@dataclass
class Verdicts:
    """For each of n documents the step and rule that dropped it, the value it had and the threshold it missed.

    A kept document has step "kept". `other` is the document it repeats, or the problem it holds, as a number; else -1.
    """

    step: NDArray[np.object_]
    rule: NDArray[np.object_]
    value: NDArray[np.float32]
    threshold: NDArray[np.float32]
    other: NDArray[np.int64]

    @classmethod
    def kept(cls, n: int) -> "Verdicts":
        names = np.full(n, KEPT, object)
        zeros = np.zeros(n, np.float32)
        return cls(names, np.full(n, "", object), zeros, zeros.copy(), np.full(n, -1, np.int64))

    def drop(self, where: NDArray[np.bool_], step: str, rule: str, value: NDArray, threshold: float) -> None:
        """Condemn the documents in `where` that no earlier step has condemned."""
        new = where & (self.step == KEPT)
        self.step[new], self.rule[new] = step, rule
        self.value[new], self.threshold[new] = value[new], threshold


class Asked(NamedTuple):
    """A rule that was asked about a document, and what it said."""

    set: str
    rule: str
    statistic: str
    value: float
    """NaN where it is not known; the document passes then."""
    threshold: float
    passes: bool


def judge_statistics(
    verdicts: Verdicts, values: NDArray[np.float32], meta: Sequence[str], lang: NDArray[np.object_], source: Source
) -> None:
    """values (documents, statistics) against the source's rule sets, in the order the recipe names them.

    meta: a JSON object for each document, of which the path matters here; lang: language codes, "" where none was asked
    for. A rule whose statistic is not known (NaN) condemns nothing.
    """
    groups = _groups(values, meta, lang, source)
    for name, rule, threshold in _rules(source):
        column = values[:, STATISTICS.index(rule.statistic)]
        fails = column < threshold if rule.bound == "min" else column > threshold
        if rule.only or rule.but:
            fails &= np.isin(groups[0], [k for k, group in enumerate(groups[1]) if rule.holds_for(*group)])
        verdicts.drop(fails, name, rule.name, column, float(threshold))


def explain_rules(values: NDArray[np.float32], meta: str, lang: str, source: Source) -> list[Asked]:
    """Every rule of the source that holds for a document, in order, with its verdict; values (statistics,)."""
    asked = []
    for name, rule, threshold in _rules(source):
        if rule.holds_for(lang, extension(meta)):
            value = values[STATISTICS.index(rule.statistic)]
            fails = value < threshold if rule.bound == "min" else value > threshold
            asked.append(Asked(name, rule.name, rule.statistic, float(value), float(threshold), not fails))
    return asked


def judge_language(verdicts: Verdicts, lang: NDArray[np.object_], score: NDArray[np.float32], source: Source) -> None:
    """Languages against those the source keeps; `value` is the probability of the language found."""
    wanted = source.language
    if wanted is None or source.format == "code":
        return
    verdicts.drop(~np.isin(lang, wanted.keep), "language", "language_unwanted", score, wanted.min_score)
    verdicts.drop(score < np.float32(wanted.min_score), "language", "language_min_score", score, wanted.min_score)


def _rules(source: Source) -> Iterator[tuple[str, Rule, np.float32]]:
    for name in source.rules:
        for rule in RULE_SETS[name]:
            yield name, rule, np.float32(source.thresholds.get(rule.name, rule.threshold))


def _groups(
    values: NDArray[np.float32], meta: Sequence[str], lang: NDArray[np.object_], source: Source
) -> tuple[NDArray[np.int64], list[tuple[str, str]]]:
    """Each document's (language, extension) as a number, and what the numbers stand for."""
    by_path = any(scope.startswith(".") for _, rule, _ in _rules(source) for scope in (*rule.only, *rule.but))
    pairs = [(str(lang[i]), extension(meta[i]) if by_path else "") for i in range(len(values))]
    numbers = {pair: k for k, pair in enumerate(dict.fromkeys(pairs))}
    return np.array([numbers[pair] for pair in pairs], np.int64), list(numbers)
