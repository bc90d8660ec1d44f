"""Settings of crawl and curate: what is refused, and in what words."""

import pytest
from pydantic import ValidationError

from glassbox.recipe.curation import CrawlStage, CurateStage, Decontaminate, NearDuplicates, Source


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rules": ["gopher_qualty"]}, "'gopher_qualty' is no rule set; the nearest is 'gopher_quality'"),
        ({"lines": "javascrpt"}, "'javascrpt' is no line rule; the nearest is 'javascript'"),
        ({"rules": "c4", "thresholds": {"c4_min_sentence": 2}}, "the nearest is 'c4_min_sentences'"),
        ({"rules": "c4", "thresholds": {"gopher_min_words": 2}}, "no rule in the source's rule sets"),
        ({"stage": "pages"}, "needs either a path or a stage"),
        ({"path": ""}, "needs either a path or a stage"),
        ({"path": "", "stage": "pages", "format": "html"}, "whose format is warc"),
        ({"path": "python:lib", "format": "code"}, "python:stdlib with format code is meant"),
        ({"path": "python:stdlib"}, "python:stdlib with format code is meant"),
        ({"path": "hf://x"}, "go together"),
        ({"path": "x", "format": "hf"}, "go together"),
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


@pytest.mark.parametrize("settings", [CrawlStage, CurateStage, Source, NearDuplicates, Decontaminate])
def test_settings_are_few_and_described(settings: type) -> None:
    fields = settings.model_fields
    assert len(fields) <= 13
    assert all(field.description for field in fields.values())
