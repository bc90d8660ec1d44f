"""What several commands take, and where shipped recipes are."""

from pathlib import Path
from typing import Annotated, Optional

import typer

RecipeFile = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one (`glassbox recipes`).")]
Overrides = Annotated[Optional[list[str]], typer.Argument(help="Settings to change: key.path=value")]  # noqa: UP045
RunName = Annotated[str, typer.Argument(help="A run's name under the runs folder, or its path.")]
ModelName = Annotated[
    str, typer.Argument(help="A run (its last model), run/stage, or a model folder, ours or Hugging Face's.")
]
NewFolder = Annotated[Path, typer.Argument(help="The new or empty folder to write; for GGUF a new .gguf file.")]
WeightType = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--dtype", help="Type of the weights: fp32, bf16 or fp16; default as they are."),
]
Runs = Annotated[Path, typer.Option("--runs", envvar="GLASSBOX_RUNS", help="Where runs live.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def shipped() -> Path:
    """The folder of shipped recipes: beside the package when installed, at the top of a checkout."""
    beside = Path(__file__).parents[1] / "recipes"
    return beside if beside.exists() else Path(__file__).parents[3] / "recipes"


def recipe_path(given: str) -> Path:
    """A recipe file as given, or the shipped recipe of that name."""
    path = Path(given)
    named = shipped() / f"{given}.yaml"
    return named if not path.exists() and named.exists() else path
