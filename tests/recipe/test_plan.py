"""The plan follows the graph and its arithmetic adds up."""

from pathlib import Path

import pytest

from glassbox.errors import RequestError
from glassbox.recipe.loading import load_recipe
from glassbox.recipe.plan import plan_recipe, plan_tables
from glassbox.recipe.size import train_flops

RECIPES = Path(__file__).parents[2] / "recipes"


def test_the_quickstart_plan() -> None:
    recipe = load_recipe(RECIPES / "quickstart.yaml")
    plan = plan_recipe(recipe, device="h100", devices=2, utilisation=0.5)
    assert [row["stage"] for row in plan["stages"]] == recipe.order()
    rows = {row["stage"]: row for row in plan["training"]}
    base = recipe.stages["base"]
    tokens = sum(phase.steps * phase.rows[0].rows * phase.context for phase in base.phases)
    assert rows["base"]["tokens"] == tokens
    assert rows["base"]["flops"] == pytest.approx(
        train_flops(base.model, recipe.stages["tokenizer"].vocab_size, 256) * tokens
    )
    assert rows["base"]["hours"] == pytest.approx(rows["base"]["flops"] / (2 * 989e12 * 0.5) / 3600)
    assert rows["rl"]["parameters"] == rows["base"]["parameters"]
    assert plan["total"]["dollars"] == pytest.approx(sum(row["dollars"] for row in plan["training"]))
    assert all(row["fits"] for row in plan["training"])
    for _, columns, table in plan_tables(plan):
        assert all(len(row) == len(columns) for row in table)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(RequestError, match="h100"):
        plan_recipe(load_recipe(RECIPES / "quickstart.yaml"), device="abacus", devices=1, utilisation=0.5)
