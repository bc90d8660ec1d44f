"""Settings of the stage that trains the line model of clutter."""

from typing import ClassVar, Literal

from pydantic import Field

from glassbox.recipe.base import Stage
from glassbox.recipe.classify import Labels


class ClutterStage(Stage):
    """Train a model that keeps or drops each line of a document with its context (dots.llm1, app. C.3)."""

    takes: ClassVar[dict[str, str]] = {"documents": "0+"}
    gives: ClassVar[str] = "clutter"

    kind: Literal["clutter"]
    """Line features with those of their neighbours, gradient-boosted trees; held-out pages measure it."""
    labels: Labels
    """Where lines' labels come from: pages with their gold text, labelled lines, or a judge."""
    trees: int = Field(default=200, gt=0)
    """Boosting rounds."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of the pages (whole sites) that measure the model and train nothing."""
