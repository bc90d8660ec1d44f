"""Documents against rules: which rule, if any, condemns each document, with the value and the threshold."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glassbox.curate.statistics import STATISTICS
from glassbox.recipe.curation import Source
from glassbox.recipe.rules import RULE_SETS

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


def judge_statistics(verdicts: Verdicts, values: NDArray[np.float32], source: Source) -> None:
    """values (documents, statistics) against the source's rule sets, in the order the recipe names them."""
    for name in source.rules:
        for rule in RULE_SETS[name]:
            threshold = np.float32(source.thresholds.get(rule.name, rule.threshold))
            column = values[:, STATISTICS.index(rule.statistic)]
            fails = column < threshold if rule.bound == "min" else column > threshold
            verdicts.drop(fails, name, rule.name, column, float(threshold))


def judge_language(verdicts: Verdicts, lang: NDArray[np.object_], score: NDArray[np.float32], source: Source) -> None:
    """Languages against those the source keeps; `value` is the probability of the language found."""
    wanted = source.language
    if wanted is None or source.format == "code":
        return
    verdicts.drop(~np.isin(lang, wanted.keep), "language", "language_unwanted", score, wanted.min_score)
    verdicts.drop(score < np.float32(wanted.min_score), "language", "language_min_score", score, wanted.min_score)
