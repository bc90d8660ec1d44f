"""The plan follows the graph and its arithmetic adds up."""

import math
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


PHASED = [
    "base.max_epochs=9",
    "base.optimizer={lr: 2.0e-3}",
    "base.schedule={shape: constant, warmup: 4096}",
    "base.phases=["
    "{name: ramp, tokens: 20000, context: 64, rows: [{rows: 8}, {rows: 16, after: 8192}], mixture: {web: 1}},"
    "{name: late, tokens: 8192, context: 64, rows: 16, mixture: {web: 3, code: 1},"
    " optimizer: {lr: 1.0e-3}, schedule: {shape: cosine, warmup: 0, floor: 0.1}},"
    "{name: long, tokens: 4096, context: 256, rows: 4, rope_base: 640000, mixture: {code: 1}}]",
]


def planned(*overrides: str, devices: int | None = None, sizes: dict | None = None) -> dict:
    recipe = load_recipe(RECIPES / "quickstart.yaml", [*PHASED, *overrides])
    return plan_recipe(recipe, device="h100", devices=devices, utilisation=0.5, sizes=sizes)


def test_phases_are_told_with_their_batches_rates_and_rotary_base() -> None:
    ramp, late, long = planned()["phases"]
    assert (ramp["tokens"], ramp["steps"]) == (20032, 16 + 12)  # 313 rows: 128 in steps of 8, 185 in steps of 16
    assert (ramp["batch_from"], ramp["batch_to"]) == (512, 1024)
    assert (ramp["peak_lr"], ramp["end_lr"]) == (2e-3, 2e-3)
    assert (late["peak_lr"], late["end_lr"]) == (
        1e-3,
        pytest.approx(1e-3 * (0.1 + 0.45 * (1 + math.cos(math.pi * 7 / 8)))),
    )
    assert [one["context"] for one in (ramp, late, long)] == [64, 64, 256]
    assert [one["rope_base"] for one in (ramp, late, long)] == [10_000, 10_000, 640_000]


def test_epochs_come_from_what_is_there_else_from_what_is_expected() -> None:
    read = {"web": 20032 + 0.75 * 8192, "code": 0.25 * 8192 + 4096}
    for row in planned()["reading"]:
        assert (row["tokens"], row["size"], row["epochs"]) == (read[row["source"]], None, None)
    expected = planned("tokens.sizes={web: 13000}")["reading"]
    assert {row["source"]: row["epochs"] for row in expected} == {
        "code": None,
        "web": pytest.approx(read["web"] / 13000),
    }
    there = planned("tokens.sizes={web: 13000}", sizes={"tokens": {"web": 26000, "code": 6144}})["reading"]
    assert {row["source"]: row["epochs"] for row in there} == {"code": 1.0, "web": pytest.approx(read["web"] / 26000)}


def test_a_source_read_too_often_is_refused() -> None:
    with pytest.raises(
        RequestError, match=r"stage 'base': source 'web' would be read 13\.09 times, more than max_epochs 9"
    ):
        planned("tokens.sizes={web: 2000}")


def test_a_stage_has_the_devices_of_its_plan() -> None:
    plan = ["base.loop.parallel={shard: 2, expert: 2, pipeline: 2}", "sft.loop.parallel={expert: 4}"]
    for devices, expected in ((None, [4, 4, 1, 1]), (8, [4, 8, 8, 1])):
        rows = planned(*plan, devices=devices)["training"]
        assert [row["devices"] for row in rows] == expected
        hours = rows[0]["flops"] / (4 * 989e12 * 0.5) / 3600
        assert rows[0]["hours"] == pytest.approx(hours)
        assert rows[0]["dollars"] == pytest.approx(4 * 2.5 * hours)
        assert rows[0]["memory"]["optimizer"] < 8 * rows[0]["parameters"] / 2
    with pytest.raises(RequestError, match=r"--devices 6: loop\.parallel of stage 'sft' takes a multiple of 4"):
        planned(*plan, devices=6)


def test_preferences_need_room_for_the_whole_network_to_sample_with() -> None:
    rows = {row["stage"]: row for row in planned("dpo.loop.parallel.shard=64")["training"]}
    assert rows["dpo"]["memory"]["weights"] >= 4 * rows["dpo"]["parameters"]
    assert rows["dpo"]["memory"]["optimizer"] == pytest.approx(8 * rows["dpo"]["parameters"] / 64, rel=1e-3)
