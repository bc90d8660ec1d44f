"""Scores of tasks: as curves, and in a table with what was asked and how sure each is."""

from pathlib import Path

from glassbox.report.artefacts import read_run
from glassbox.report.tasks import task_scores
from glassbox.report.training import training
from tests.report.conftest import edit_json
from tests.report.reading import Page


def test_every_task_has_its_row_and_its_curve(example_run: Path, page: Page) -> None:
    facts = read_run(example_run)
    base = next(stage for stage in facts.stages if stage.name == "base")
    table = task_scores(facts, base)
    assert table is not None
    assert table.columns[6] == "95 % interval"
    cells = "piqa|piqa|0|500|len_norm|25.0 %|21.0 to 29.0|1.900|1.860 to 1.940|5e5e5e5e"
    assert table.rows[0] == cells.split("|")
    assert table.rows[4][:4] == ["mmlu", "mmlu", "0, 5", "504"]
    assert table.rows[6][7:9] == ["", ""], "a written answer has no bits per byte"
    assert "Tasks at the newest evaluation" in page.one("section", id="training")
    shown = training(facts, base)
    assert shown is not None
    charts = {chart.title: [name for _, name in chart.legend] or chart.svg for chart in shown.charts}
    assert charts["Tasks"] == ["piqa", "hellaswag", "arc easy"], "six colours for seven lines: two charts"
    assert charts["Tasks (2)"] == ["boolq", "mmlu", "mmlu stem", "sums"]
    assert len(charts["Right answers of tasks"]) == 6
    assert not any(chart.title.startswith("task") for chart in shown.others)


def test_scores_in_a_strange_shape_are_left_out(copy: Path) -> None:
    facts = read_run(copy)
    base = next(stage for stage in facts.stages if stage.name == "base")
    scores = copy / "base" / "task_scores.json"
    edit_json(scores, lambda value: {"rows": [3, {"task": "a"}, {"task": "b", "metric": "acc", "value": 0.5}]})
    table = task_scores(facts, base)
    assert table is not None
    assert [row[0] for row in table.rows] == ["b"]
    assert table.rows[0][6] == ""
    scores.unlink()
    assert task_scores(facts, base) is None
