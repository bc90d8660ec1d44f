"""Shares and epochs of a phase's shards, by hand and against each other."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassbox.errors import RequestError
from glassbox.recipe.epochs import epochs, shares, too_often
from glassbox.recipe.loading import load_recipe
from glassbox.recipe.phases import Phase

SIZES = {"web": 0, "web/news": 300, "web/science": 100, "code": 50}


def phase(mixture: dict, tokens: int = 1000, **settings) -> Phase:
    return Phase(name="p", tokens=tokens, mixture=mixture, context=10, rows=2, **settings)


def test_a_source_stands_for_its_categories_by_size():
    found = shares(phase({"web": 3.0, "code": 1.0}), SIZES)
    assert found == {"web/news": Fraction(9, 16), "web/science": Fraction(3, 16), "code": Fraction(1, 4)}


def test_factors_move_shares_inside_a_source_alone():
    categories = {"web/news": 0.5, "web/science": 3.0}
    found = shares(phase({"web": 3.0, "code": 1.0}, categories=categories), SIZES)
    assert found == {"web/news": Fraction(1, 4), "web/science": Fraction(1, 2), "code": Fraction(1, 4)}
    without = shares(phase({"web": 3.0, "code": 1.0}, categories={"web/news": 0.0}), SIZES)
    assert without == {"web/science": Fraction(3, 4), "code": Fraction(1, 4)}


def test_a_category_by_name_has_its_own_weight():
    found = shares(phase({"web": 1.0, "web/science": 1.0}), SIZES)
    assert found == {"web/news": Fraction(3, 8), "web/science": Fraction(5, 8)}


def test_epochs_add_up_over_phases():
    phases = [phase({"web": 1.0}, 800), phase({"code": 1.0, "wiki": 1.0}, 500)]
    assert epochs(phases, SIZES) == {"code": 5.0, "web/news": 2.0, "web/science": 2.0}


@given(st.dictionaries(st.sampled_from(list(SIZES)), st.floats(0.01, 9), min_size=1), st.integers(1, 10**12))
def test_epochs_times_sizes_are_the_tokens(mixture, tokens):
    one = phase(mixture, tokens)
    read = sum(SIZES[name] * times for name, times in epochs([one], SIZES).items())
    assert read == pytest.approx(one.total_tokens)


def test_the_sentence_about_a_source_read_too_often():
    assert too_often({"code": 4.0, "web": 1.0}, 4) is None
    assert too_often({}, 4) is None
    wrong = too_often({"code": 5.0, "web": 1.0}, 4)
    assert wrong is not None
    assert "source 'code' would be read 5.00 times, more than max_epochs 4: give it a smaller weight" in wrong


RECIPE = """\
name: tiny
stages:
  topics: {kind: classifier, labels: {files: [{path: labels.jsonl, label: "field:topic"}]}}
  documents:
    kind: curate
    from: topics
    sources: [{name: web, format: text, path: notes}]
    models: [{stage: topics}]
    sampling: {category: topics}
  tokenizer: {kind: tokenizer, from: documents, vocab_size: 512}
  tokens: {kind: tokenize, from: [documents, tokenizer], categories: web, sizes: {web/news: 900}}
  base:
    kind: pretrain
    from: tokens
    model: {dim: 32, layers: 2, hidden: 64, attention: {heads: 4, kv_heads: 2}}
    phases:
      - {name: main, steps: 10, mixture: {web: 1.0, web/news: 0.1}, categories: {web/news: 2}, context: 64, rows: 4}
    optimizer: {lr: 1.0e-3}
"""


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ([], None),
        (["documents.sampling=null"], "divides 'web' into categories, but its documents have none"),
        (["tokens.categories=[web, code]"], "divides 'code' into categories"),
        (["tokens.categories=[]"], "names 'web/news', but source 'web' is not divided"),
        (["tokens.sizes={wiki: 9}"], "expects a size of 'wiki' in `sizes`, but holds web"),
        (["base.phases.0.mixture={web: 1.0, wiki/news: 1.0}"], "draws from 'wiki', but its tokens hold web"),
        (["base.phases.0.categories={web: 2}"], "must be source/category of a source in its mixture"),
    ],
)
def test_categories_are_those_of_a_divided_source(tmp_path: Path, overrides: list[str], sentence: str | None) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    if sentence is None:
        load_recipe(path, overrides)
        return
    with pytest.raises(RequestError, match=sentence):
        load_recipe(path, overrides)
