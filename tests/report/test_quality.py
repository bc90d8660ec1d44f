"""Quality of classifiers: scores, many classes, and what a line model's file may hold."""

from types import SimpleNamespace
from typing import Any

from glassbox.report.quality import MOST_IN_MAP, Quality, classifier, clutter
from tests.report.curation_facts import classes


def shown(report: Any, read: Any = classifier) -> Quality | None:
    facts: Any = SimpleNamespace(json=lambda stage, *parts: report)
    found: Quality | None = read(facts, SimpleNamespace(name="topics", state="finished"))
    return found


def test_many_classes_list_their_commonest_confusions() -> None:
    names = [f"class{n}" for n in range(MOST_IN_MAP + 1)]
    report = classes(names)
    report["confusion"][3][8] = 70
    quality = shown(report)
    assert quality
    assert [chart.title for chart in quality.charts] == ["Calibration"]
    table = dict(quality.tables)["Commonest confusions"]
    assert table.rows[0] == ["class3", "class8", "70", f"{70 / sum(report['confusion'][3]):.1%}".replace("%", " %")]
    assert len(dict(quality.tables)["By class"].rows) == len(names)


def test_few_classes_are_drawn() -> None:
    quality = shown(classes(["<b>", "a" * 50, "x"]))
    assert quality
    assert [chart.title for chart in quality.charts] == ["Calibration", "Confusions"]
    assert "<b>" not in quality.charts[1].svg
    assert "&lt;b&gt;" in quality.charts[1].svg


def test_scores_have_errors_and_correlations() -> None:
    one = {"texts": 40, "mean_absolute_error": 0.31, "error_of_the_mean": 0.92, "correlation": None}
    report = {"task": "scores", "names": ["depth"], "trained_on": 160, "held_out": 40, "scores": {"depth": one}}
    quality = shown({**report, "ngrams": {"depth": ["because", "proof"]}})
    assert quality
    assert ("Scores", "1") in quality.facts
    assert "Accuracy" not in dict(quality.facts)
    table = dict(quality.tables)["By score"]
    assert table.columns == [
        "Score", "Held out", "Mean absolute error", "Error of the mean", "Correlation", "Telling words",
    ]  # fmt: skip
    assert table.rows == [["depth", "40", "0.310", "0.920", "–", "because · proof"]]


def test_a_line_model_stands_beside_keeping_every_line() -> None:
    curve = {"0.5": {"precision": 0.9, "f1": 0.8}, "0.2": {"precision": 0.7}, "x": {"f1": 1.0}, "nan": {"f1": 1.0}}
    quality = shown({"model": {"f1": 0.8}, "keep_all": {"f1": 0.75}, "by_threshold": curve}, clutter)
    assert quality
    (chart,) = quality.charts
    assert chart.legend == [(1, "Precision"), (3, "F1")]
    assert "Precision from 0.7 at 0.2 to 0.9 at 0.5; F1 from 0.8 at 0.5" in chart.svg
    ((_, table),) = quality.tables
    assert table.rows == [["The model, threshold 0.5", "–", "–", "0.800"], ["Keeping every line", "–", "–", "0.750"]]
    assert ("AUC", "–") in quality.facts


def test_nothing_yet() -> None:
    assert shown(None) is None
    assert shown([], clutter) is None
