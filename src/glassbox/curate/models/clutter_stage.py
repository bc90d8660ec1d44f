"""The stage clutter: labelled lines to a line model and its held-out quality."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.models import boosting
from glassbox.curate.models.clutter import MODEL, decide
from glassbox.curate.models.clutter_features import line_features
from glassbox.curate.models.clutter_labels import UNKNOWN, Pages, read_pages
from glassbox.curate.models.measures import auc
from glassbox.errors import RequestError
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import write_json
from glassbox.recipe.clutter import ClutterStage

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


def run(config: ClutterStage, inputs: Inputs, workspace: Workspace) -> None:
    """Leaves the model (`clutter.npz`) and `quality.json`; with a judge also its answers, `judged.jsonl`.

    The held-out sites are those whose names hash lowest; the model is trained on all others.
    """
    pages = read_pages(config.labels, inputs, workspace.folder, workspace.stop_if_asked)
    held_out = hold_out(pages, config.held_out)
    learn, ask = part_of(pages, ~held_out), part_of(pages, held_out)
    features, labels = lines_of(learn)
    if not labels.any() or labels.all():
        raise RequestError("the labelled lines are all of one kind; the line model needs content and clutter")

    def done(tree: int) -> None:
        workspace.progress(tree, config.trees, f"{len(labels)} lines of {len(learn.texts)} pages")
        workspace.stop_if_asked()

    trees = boosting.train(features, labels, config.trees, done)
    trees.save(workspace.path(MODEL))
    write_json(
        workspace.path("quality.json"),
        {
            "trained_on": {"pages": len(learn.texts), "lines": len(labels), "content": int(labels.sum())},
            "sites": len(set(pages.sites)),
            "left_out": dict(pages.left_out),
            **measure(trees, ask),
        },
    )


def hold_out(pages: Pages, share: float) -> NDArray[np.bool_]:
    """Which pages (pages,) measure the model: those of a share of the sites, the ones whose names hash lowest."""
    sites = sorted(set(pages.sites), key=lambda site: hashlib.sha256(site.encode()).digest())
    if len(sites) < 2:
        why = ", ".join(f"{count} left out: {reason}" for reason, count in pages.left_out.most_common(3))
        raise RequestError(
            f"labels give pages of {len(sites)} sites; at least 2 are needed, one of them to measure the model"
            + (f" ({why})" if why else "")
        )
    chosen = set(sites[: min(max(1, round(share * len(sites))), len(sites) - 1)])
    return np.array([site in chosen for site in pages.sites])


def measure(trees: boosting.Trees, pages: Pages) -> dict[str, Any]:
    """Held-out quality: of the model by threshold, and of keeping every line, the extractor alone."""
    features, bounds, places, fenced = line_features(pa.array(pages.texts, pa.large_string()))
    scores = trees.score(features)
    labels = np.concatenate([np.array(one, np.int8) for one in pages.labels])
    # Code between fences always stays, and fences stand in no gold text.
    known = (labels != UNKNOWN) & ~fenced
    truth = labels[known] == 1
    curve = {
        str(threshold): _rates(decide(scores, bounds, places, fenced, threshold)[known], truth)
        for threshold in THRESHOLDS
    }
    return {
        "held_out": {"pages": len(pages.texts), "lines": len(truth), "content": int(truth.sum())},
        "auc": auc(scores[known], truth),
        "keep_all": _rates(np.ones(len(truth), np.bool_), truth),
        "model": curve["0.5"],
        "best_threshold": float(max(curve, key=lambda threshold: curve[threshold]["f1"])),
        "by_threshold": curve,
    }


def _rates(keep: NDArray[np.bool_], truth: NDArray[np.bool_]) -> dict[str, float]:
    hit = int((keep & truth).sum())
    precision, recall = hit / max(1, int(keep.sum())), hit / max(1, int(truth.sum()))
    f1 = 2 * precision * recall / (precision + recall) if hit else 0.0
    return {"precision": round(precision, 4), "recall": round(recall, 4), "f1": round(f1, 4)}


def part_of(pages: Pages, chosen: NDArray[np.bool_]) -> Pages:
    """Some of the pages, by a mask (pages,)."""
    numbers = np.flatnonzero(chosen).tolist()
    return Pages(
        [pages.texts[k] for k in numbers], [pages.labels[k] for k in numbers], [pages.sites[k] for k in numbers]
    )


def lines_of(pages: Pages) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Features and labels of the lines that train: those with a known label, outside code."""
    features, _, _, fenced = line_features(pa.array(pages.texts, pa.large_string()))
    labels = np.concatenate([np.array(one, np.int8) for one in pages.labels])
    known = (labels != UNKNOWN) & ~fenced
    return features[known], labels[known] == 1
