"""Settings of crawl and curate: what is refused, and in what words."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from glassbox.recipe.base import Settings
from glassbox.recipe.classify import ClassifierStage, Judge, Labels, ModelUse, Sampling
from glassbox.recipe.clutter import ClutterStage
from glassbox.recipe.curation import CrawlStage, CurateStage, Engine
from glassbox.recipe.duplicates import Decontaminate, Duplicates, EvaluationSet, NearDuplicates, Substrings
from glassbox.recipe.files import raw_files
from glassbox.recipe.sources import Clean, EdgeLines, Source, UrlRules


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rules": ["gopher_qualty"]}, "'gopher_qualty' is no rule set; the nearest is 'gopher_quality'"),
        ({"clean": {"lines": "javascrpt"}}, "'javascrpt' is no line rule; the nearest is 'javascript'"),
        ({"rules": "c4", "thresholds": {"c4_min_sentence": 2}}, "the nearest is 'c4_min_sentences'"),
        ({"rules": "c4", "thresholds": {"gopher_min_words": 2}}, "no rule in the source's rule sets"),
        ({"stage": "pages"}, "needs either a path or a stage"),
        ({"path": ""}, "needs either a path or a stage"),
        ({"path": "", "stage": "pages", "format": "html"}, "whose format is warc"),
        ({"path": "python:lib", "format": "code"}, "python:stdlib with format code is meant"),
        ({"path": "python:stdlib"}, "python:stdlib with format code is meant"),
        ({"path": "hf://x"}, "go together"),
        ({"path": "x", "format": "hf"}, "go together"),
        ({"format": "documents"}, "format documents reads a stage, not a path"),
        ({"rules": "bad_words"}, "go together"),
        ({"bad_words": "x"}, "go together"),
        ({"fields": {"text": "body"}}, "fields means nothing to format text"),
        ({"urls": {"once": True}}, "urls means nothing to format text"),
        ({"subset": "en"}, "subset means nothing to format text"),
        ({"name": "Big Name"}, "String should match pattern"),
    ],
)
def test_a_wrong_source_is_refused_in_a_sentence(settings: dict, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence.replace("(", r"\(")):
        Source(**{"name": "web", "format": "text", "path": "x", **settings})


def test_names_stand_alone_or_in_a_list() -> None:
    assert Source(name="s", format="text", path="x", rules="c4").rules == ("c4",)


def test_more_bands_than_permutations_are_refused() -> None:
    with pytest.raises(ValidationError, match="more than 64 permutations"):
        NearDuplicates(permutations=64, bands=20, rows=6)


def test_sources_have_names_of_their_own_and_read_stages_they_take_from() -> None:
    one = {"name": "a", "format": "warc", "stage": "pages"}
    with pytest.raises(ValidationError, match="same name"):
        CurateStage(kind="curate", sources=[one, one], **{"from": "pages"})
    with pytest.raises(ValidationError, match="not in `from`"):
        CurateStage(kind="curate", sources=[one])


SOURCE = {"name": "a", "format": "text", "path": "x"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"models": [{"stage": "q"}]}, "models uses 'q', which is not in `from`"),
        ({"models": [{"stage": "q", "sources": "b"}], "from": "q"}, "applied to 'b', which is no source"),
        ({"sources": [{**SOURCE, "clean": {"clutter": {"stage": "c"}}}]}, "uses 'c', which is not in `from`"),
        ({"sampling": {"category": "t"}}, "sampling goes by 't', which is not among the models"),
        ({"sampling": {"targets": {"x": 0.5}}}, "category"),
        ({"models": [{"stage": name, "share": 0.5} for name in "qr"], "from": ["q", "r"]}, "only one model"),
        ({"duplicates": {"prefer": "quality"}}, "prefer quality, which one of `models` scores"),
    ],
)
def test_a_wrong_use_of_models_is_refused(settings: dict, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        CurateStage(**{"kind": "curate", "sources": [SOURCE], **settings})


def test_lists_evaluations_and_labels_are_raw_files(tmp_path: Path) -> None:
    for name in ("a.txt", "domains", "words.txt", "test.jsonl", "labels.jsonl"):
        (tmp_path / name).write_text("x\n")
    at = {name.partition(".")[0]: str(tmp_path / name) for name in ("a.txt", "domains", "words.txt", "test.jsonl")}
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text("{}")
    urls = {"domains": at["domains"], "hard": [at["words"], "casino"]}
    stage = CurateStage(
        kind="curate",
        sources=[{**SOURCE, "format": "jsonl", "path": at["a"], "urls": urls}],
        decontaminate={"sets": [{"name": "test", "path": at["test"]}]},
        duplicates={"semantic": {"embedding": str(encoder)}},
    )
    assert {path.name for path in raw_files(stage)} == {"a.txt", "domains", "words.txt", "test.jsonl", "config.json"}
    labels = {"files": [{"path": str(tmp_path / "labels.jsonl")}]}
    for other in (ClassifierStage(kind="classifier", labels=labels), ClutterStage(kind="clutter", labels=labels)):
        assert [path.name for path in raw_files(other)] == ["labels.jsonl"]


CLASSES = (
    *(CrawlStage, CurateStage, Engine, Source, UrlRules, Clean, EdgeLines, NearDuplicates, Duplicates, Substrings),
    *(Decontaminate, EvaluationSet, ClassifierStage, ClutterStage, Labels, Judge, ModelUse, Sampling),
)


@pytest.mark.parametrize("settings", CLASSES)
def test_settings_are_few_and_described(settings: type[Settings]) -> None:
    fields = settings.model_fields
    assert len(fields) <= 14
    assert all(field.description for field in fields.values())
