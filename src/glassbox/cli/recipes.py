"""Commands on recipe files: the shipped ones, a copy to start from, the schema."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from glassbox.cli.arguments import AsJson, recipe_path, shipped
from glassbox.console import out, print_rows
from glassbox.errors import RequestError
from glassbox.recipe.loading import load_recipe
from glassbox.recipe.schema import json_schema


def recipes(as_json: AsJson = False) -> None:
    """The shipped recipes."""
    rows = []
    for path in sorted(shipped().rglob("*.yaml")):
        recipe = load_recipe(path)
        rows.append((path.relative_to(shipped()).with_suffix("").as_posix(), recipe.description))
    print_rows(("recipe", "what it makes"), rows, as_json)


def init(
    path: Annotated[Path, typer.Argument(help="The new recipe file.")],
    start: Annotated[str, typer.Option("--like", help="The shipped recipe to start from.")] = "quickstart",
) -> None:
    """Start a recipe of your own as a copy of a shipped one."""
    if path.exists():
        raise RequestError(f"{path} exists already; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(recipe_path(start).read_text(encoding="utf-8"), encoding="utf-8")
    out.print(f"{path} written; edit it, then: glassbox run {path}")


def schema() -> None:
    """JSON schema of a recipe, for editors."""
    sys.stdout.write(json.dumps(json_schema(), indent=1) + "\n")
