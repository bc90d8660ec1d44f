"""The stage's classifiers applied to a batch: scores kept with each document, thresholds that condemn it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.models.classify import Classifier, load
from glassbox.curate.rules.verdicts import Verdicts
from glassbox.curate.staging import Staging, read_once
from glassbox.errors import RequestError
from glassbox.recipe.classify import ModelUse
from glassbox.recipe.sources import Source

SHOWN_CLASSES = 20
"""Of a classifier with more classes only the most probable one's score is kept with the document."""
Pairs = list[list[tuple[str, float]]]
"""For each document (model.class, score)."""


@read_once
def classifier(folder: Path) -> Classifier:
    """The classifier that a stage left in `folder`; read once in a worker."""
    return load(folder)


def classified(stage: Staging, source: Source, texts: pa.Array, verdicts: Verdicts) -> tuple[Pairs, dict[str, NDArray]]:
    """What the stage's models say of each text, and the columns rank, category and score0, score1, ... of its table.

    Documents that a model's own thresholds condemn are dropped in `verdicts`.
    """
    n = len(texts)
    pairs: Pairs = [[] for _ in range(n)]
    settings = stage.config.sampling
    weighed = settings.scores if settings else ()
    columns: dict[str, NDArray] = {"rank": np.zeros(n, np.float32), "category": np.full(n, -1, np.int16)}
    columns |= {f"score{k}": np.full(n, one.centre, np.float32) for k, one in enumerate(weighed)}
    for use in stage.config.models:
        if use.sources and source.name not in use.sources:
            continue
        model = classifier(stage.artefacts[use.stage])
        scores = model.score(texts)
        best = scores.argmax(1)
        for row in range(n):
            shown = range(len(model.names)) if len(model.names) <= SHOWN_CLASSES else (int(best[row]),)
            pairs[row] += [(f"{use.stage}.{model.names[k]}", float(scores[row, k])) for k in shown]
        _judge(verdicts, scores, best, model.names, use)
        if use == ranking(stage):
            columns["rank"] = scores[:, model.names.index(use.best) if use.best else 0]
        if settings and use.stage == settings.category:
            columns["category"] = best.astype(np.int16)
        for k, one in enumerate(weighed):
            if one.stage == use.stage:
                columns[f"score{k}"] = scores[:, model.names.index(one.score)]
    return pairs, columns


def ranking(stage: Staging) -> ModelUse | None:
    """The model whose score ranks documents: the one of which a share is kept, else the first."""
    return next((use for use in stage.config.models if use.share), next(iter(stage.config.models), None))


def category_names(stage: Staging, category: NDArray[np.int16]) -> list[str]:
    """The names of numbered categories; "" for none."""
    if not stage.config.sampling or not stage.config.sampling.category:
        return [""] * len(category)
    names = (*classifier(stage.artefacts[stage.config.sampling.category]).names, "")
    return [names[number] for number in category]


def check_names(stage: Staging) -> None:
    """Raise RequestError for a class that the recipe names and its classifier does not know."""
    named: list[tuple[Any, str]] = []
    for use in stage.config.models:
        named += [(use.stage, name) for name in (*use.keep, *use.drop, *([use.best] if use.best else []))]
    if settings := stage.config.sampling:
        named += [(settings.category, name) for name in (*settings.targets, *settings.weights)]
        named += [(one.stage, one.score) for one in settings.scores]
    for name, wanted in named:
        known = classifier(stage.artefacts[name]).names
        if wanted not in known:
            raise RequestError(f"classifier '{name}' has no class '{wanted}'; it knows {', '.join(known[:20])}")


def _judge(
    verdicts: Verdicts, scores: NDArray[np.float32], best: NDArray, names: tuple[str, ...], use: ModelUse
) -> None:
    for name, least in use.keep.items():
        column = scores[:, names.index(name)]
        verdicts.drop(column < np.float32(least), "models", f"{use.stage}.min_{name}", column, least)
    for name in use.drop:
        column = scores[:, names.index(name)]
        verdicts.drop(best == names.index(name), "models", f"{use.stage}.is_{name}", column, 0)
