"""The stage classifier: labelled texts to a classifier of documents and its held-out quality."""

import hashlib
import logging
from collections import Counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glassbox.curate.models import measures
from glassbox.curate.models.classify import save, train
from glassbox.curate.models.labels import Labelled, names_of, read_labels, text_hash
from glassbox.curate.models.telling import telling_ngrams
from glassbox.errors import RequestError
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import write_json
from glassbox.recipe.classify import ClassifierStage

log = logging.getLogger("glassbox")


def run(config: ClassifierStage, inputs: Inputs, workspace: Workspace) -> None:
    """Leaves the classifier (`classifier.json`, `embeddings.npy`, `output.npz`) and `quality.json`; with a judge also
    its answers, `judged.jsonl`.

    The held-out texts are those whose hashes are lowest, of every class its share, so the same text is held out
    whatever else is labelled beside it in the same class. Too few labels raise RequestError.
    """
    labelled = read_labels(config.labels, config.task, inputs, workspace.folder, workspace.stop_if_asked)
    names = names_of(labelled.labels)
    _check(labelled, names, config.task)
    targets = _targets(labelled, names, config.task)
    hashes = [text_hash(text) for text in labelled.texts]
    groups = targets.argmax(1) if config.task == "classes" else np.zeros(len(hashes), np.int64)
    held_out = hold_out(hashes, groups, config.held_out)
    texts = pa.array(labelled.texts, pa.large_string())
    learn, ask = texts.filter(pa.array(~held_out)), texts.filter(pa.array(held_out))

    def look(done: int) -> None:
        workspace.progress(done, config.epochs * len(learn), f"{len(learn)} texts, {len(names)} {config.task}")
        workspace.stop_if_asked()

    classifier = train(learn, targets[~held_out], names, config, workspace.seed, look)
    save(classifier, workspace.folder)
    scores = classifier.score(ask)
    if config.task == "classes":
        quality = measures.of_classes(scores, groups[held_out], names)
    else:
        quality = measures.of_scores(scores, targets[held_out], names)
    has = targets[~held_out] == 1 if config.task == "classes" else ~np.isnan(targets[~held_out])
    write_json(
        workspace.path("quality.json"),
        {
            "task": config.task,
            "names": names,
            "trained_on": len(learn),
            "held_out": len(ask),
            "texts": _counts(labelled),
            "left_out": dict(labelled.left_out),
            "training_set": _digest(labelled, hashes, held_out),
            **quality,
            "ngrams": telling_ngrams(classifier, learn, has),
        },
    )


def hold_out(hashes: list[str], groups: NDArray[np.integer], share: float) -> NDArray[np.bool_]:
    """Which texts (n,) measure the classifier: of each group its share (at least one text, at most all but one), those
    whose hashes are lowest."""
    held_out = np.zeros(len(hashes), np.bool_)
    for group in np.unique(groups):
        members = sorted(np.flatnonzero(groups == group).tolist(), key=hashes.__getitem__)
        held_out[members[: min(max(1, round(share * len(members))), len(members) - 1)]] = True
    return held_out


def _check(labelled: Labelled, names: tuple[str, ...], task: str) -> None:
    why = ", ".join(f"{count} left out: {reason}" for reason, count in labelled.left_out.most_common(3))
    why = f" ({why})" if why else ""
    if not labelled.texts:
        raise RequestError(f"the classifier has no labelled text{why}; give `labels` files with texts and labels")
    if task == "scores":
        if len(labelled.texts) < 2:
            raise RequestError(f"the classifier has one labelled text{why}; it needs some to learn and some to measure")
        return
    if len(names) < 2:
        raise RequestError(f"all labelled texts are of class '{names[0]}'{why}; a classifier needs two classes or more")
    counts = Counter(labelled.labels)
    few = [name for name in names if counts[name] < 2]
    if few:
        raise RequestError(
            f"class '{few[0]}' has one labelled text{why}; each class needs two or more, one of them to measure"
        )
    rarest = min(names, key=counts.__getitem__)
    if counts[rarest] < 10:
        log.warning("class '%s' has only %d labelled texts", rarest, counts[rarest])


def _targets(labelled: Labelled, names: tuple[str, ...], task: str) -> NDArray[np.float32]:
    """(texts, names): 1 for a text's class; or its scores, NaN for one it has not."""
    place = {name: number for number, name in enumerate(names)}
    targets = np.full((len(labelled.texts), len(names)), 0 if task == "classes" else np.nan, np.float32)
    for row, label in enumerate(labelled.labels):
        for name, value in ({label: 1.0} if isinstance(label, str) else label).items():
            targets[row, place[name]] = value
    return targets


def _counts(labelled: Labelled) -> dict[str, dict[str, int]]:
    """Label source -> class or score -> texts."""
    found: dict[str, Counter[str]] = {}
    for label, source in zip(labelled.labels, labelled.sources, strict=True):
        found.setdefault(source, Counter()).update([label] if isinstance(label, str) else label.keys())
    return {source: dict(sorted(counts.items())) for source, counts in found.items()}


def _digest(labelled: Labelled, hashes: list[str], held_out: NDArray[np.bool_]) -> str:
    """A hash of the texts and labels that the classifier was trained on, whatever their order."""
    rows = zip(hashes, labelled.labels, held_out.tolist(), strict=True)
    return hashlib.sha256(
        "\n".join(sorted(f"{name} {label}" for name, label, out in rows if not out)).encode()
    ).hexdigest()
