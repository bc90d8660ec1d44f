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


def test_a_line_model_shows_whatever_numbers_it_left() -> None:
    curve = [{"threshold": 0.5, "f1": 0.9, "lines": 400}, {"threshold": 0.2, "f1": 0.8, "lines": 900}]
    quality = shown({"line_f1": 0.91, "pages": 12, "threshold": 0.4, "curve": curve, "note": "x"}, clutter)
    assert quality
    assert quality.facts == [("Line F1", "0.910"), ("Pages", "12"), ("Threshold", "0.400")]
    (chart,) = quality.charts
    assert chart.legend == [(1, "F1")], "counts are no shares and not drawn"
    assert "F1 from 0.8 at 0.2 to 0.9 at 0.5" in chart.svg
    assert quality.tables == []


def test_nothing_yet() -> None:
    assert shown(None) is None
    assert shown([], clutter) is None
