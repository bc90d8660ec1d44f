"""Rules as data: what each one keeps and drops, which comes first, and thresholds moved by a recipe."""

import numpy as np
import pytest

from glassbox.curate.rules import KEPT, Verdicts, judge_language, judge_statistics
from glassbox.curate.statistics import STATISTICS
from glassbox.recipe.curation import Language, Source
from glassbox.recipe.rules import RULE_SETS, Rule


def source(**settings: object) -> Source:
    return Source(name="s", format="text", path="x", **settings)


def neutral(rules: str) -> np.ndarray:
    """One document that every rule of the set keeps: each statistic between its bounds."""
    row = np.zeros(len(STATISTICS), np.float32)
    for rule in RULE_SETS[rules]:
        if rule.bound == "min":
            row[STATISTICS.index(rule.statistic)] = rule.threshold
    return row


@pytest.mark.parametrize(("rules", "rule"), [(name, rule) for name, rules in RULE_SETS.items() for rule in rules])
def test_each_rule_drops_just_beyond_its_threshold_and_nothing_at_it(rules: str, rule: Rule) -> None:
    rows = np.stack([neutral(rules)] * 3)
    at = STATISTICS.index(rule.statistic)
    beyond = -np.inf if rule.bound == "min" else np.inf
    threshold = np.float32(rule.threshold)
    rows[:, at] = [threshold, np.nextafter(threshold, np.float32(beyond)), np.nextafter(threshold, np.float32(-beyond))]
    verdicts = Verdicts.kept(3)
    judge_statistics(verdicts, rows, source(rules=[rules]))
    other = [row for row in RULE_SETS[rules] if row.statistic == rule.statistic and row != rule]
    # The far side may be another rule's business (words between a least and a most), at these thresholds it is not.
    assert not other or other[0].threshold != rule.threshold
    assert verdicts.step.tolist() == [KEPT, rules, KEPT]
    assert verdicts.rule[1] == rule.name
    assert verdicts.value[1] == rows[1, at]
    assert verdicts.threshold[1] == threshold


def test_every_rule_has_a_statistic_and_a_name_of_its_own() -> None:
    rules = [rule for rules in RULE_SETS.values() for rule in rules]
    assert {rule.statistic for rule in rules} <= set(STATISTICS)
    assert len({rule.name for rule in rules}) == len(rules)


def test_the_first_failing_rule_in_the_order_of_the_recipe_is_recorded() -> None:
    rows = np.zeros((1, len(STATISTICS)), np.float32)
    for order in (["gopher_quality", "c4"], ["c4", "gopher_quality"]):
        verdicts = Verdicts.kept(1)
        judge_statistics(verdicts, rows, source(rules=order))
        assert verdicts.step[0] == order[0]


def test_a_recipe_moves_a_threshold() -> None:
    row = neutral("gopher_quality")
    row[STATISTICS.index("words")] = 20
    for given, step in (({}, "gopher_quality"), ({"gopher_min_words": 20}, KEPT)):
        verdicts = Verdicts.kept(1)
        judge_statistics(verdicts, row[None], source(rules=["gopher_quality"], thresholds=given))
        assert verdicts.step[0] == step


def test_languages_are_kept_by_code_and_score() -> None:
    verdicts = Verdicts.kept(3)
    lang, score = np.array(["en", "de", "en"], object), np.array([0.9, 0.9, 0.5], np.float32)
    judge_language(verdicts, lang, score, source(language=Language()))
    assert verdicts.rule.tolist() == ["", "language_unwanted", "language_min_score"]
    judge_language(verdicts := Verdicts.kept(3), lang, score, source())
    assert set(verdicts.step) == {KEPT}
