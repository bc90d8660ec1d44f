"""Every field of every recipe class stands in `fields.txt`: adding one is a decision, made by adding it there."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from pydantic import BaseModel

import glassbox.recipe

MODULES = [import_module(f"glassbox.recipe.{module.name}") for module in iter_modules(glassbox.recipe.__path__)]
LIST = Path(__file__).with_name("fields.txt")


def every_field() -> list[str]:
    classes = {
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__.startswith("glassbox.recipe")
    }
    return sorted(
        f"{one.__name__}.{field.alias or name}" for one in classes for name, field in one.model_fields.items()
    )


def test_fields_are_those_on_the_list() -> None:
    listed = LIST.read_text().split()
    assert every_field() == listed


def test_no_class_has_grown_past_a_dozen_settings() -> None:
    """Of a stage, `kind` and `from` do not count."""
    counts: dict[str, int] = {}
    for line in LIST.read_text().split():
        name, field = line.split(".")
        counts[name] = counts.get(name, 0) + (field not in ("kind", "from"))
    assert {name: count for name, count in counts.items() if count > 14} == {}
