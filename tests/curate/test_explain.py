"""What is told of a document: every rule of its source, the lines removed and where, why it went, or was never read."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassbox.curate.explain import explain, marked
from glassbox.curate.stage import run
from glassbox.errors import RequestError
from glassbox.ledger.hashing import MANIFEST_KEYS, manifest_text, seal
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.recipe.schema import Recipe

PROSE = "\n".join(
    f"This is sentence {n} of a text that people have written for the tests, and it ends well." for n in range(9)
)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Recipe]:
    """A run of one curate stage: a kept text with cut lines, a stub, a near copy, and a broken line."""
    texts = [f"MENU AND HEAD\n{PROSE}\n\n12 likes\nThe last line of it.", "Too short.", PROSE + " And more of it here."]
    lines = [json.dumps({"text": text, "url": f"http://a.org/{n}"}) for n, text in enumerate(texts)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{broken"]) + "\n")
    source = {
        **{"name": "a", "format": "jsonl", "path": str(tmp_path / "a.jsonl"), "rules": ["gopher_quality", "c4"]},
        **{"clean": {"lines": ["upper_case", "counter"]}, "language": {"keep": "en", "min_score": 0.1}},
    }
    stage = {"kind": "curate", "sources": [source], "engine": {"workers": 1}}
    recipe = Recipe.model_validate({"name": "r", "stages": {}} | {"stages": {"documents": _stage(stage)}})
    (tmp_path / "r" / "documents").mkdir(parents=True)
    run(recipe.stages["documents"], Inputs(), Workspace(tmp_path / "r" / "documents"))  # type: ignore[arg-type]
    return tmp_path / "r", recipe


def _stage(settings: dict) -> object:
    from glassbox.recipe.curation import CurateStage

    return CurateStage.model_validate(settings)


def test_a_document_is_found_by_id_letters_and_address(made: tuple[Path, Recipe]) -> None:
    folder, recipe = made
    (by_address,) = explain(folder, recipe, "http://a.org/0")
    name = by_address.document["id"]
    assert [explain(folder, recipe, one)[0].document["id"] for one in (name, name[:8])] == [name, name]
    shown = by_address.shown()
    assert ("-", "MENU AND HEAD   [lines: upper_case]") in shown
    assert ("-", "12 likes   [lines: counter]") in shown
    assert [
        line.text for line in by_address.lines
    ] == f"MENU AND HEAD\n{PROSE}\n\n12 likes\nThe last line of it.".split("\n")


def test_every_rule_is_told_with_value_and_threshold(made: tuple[Path, Recipe]) -> None:
    folder, recipe = made
    (one,) = explain(folder, recipe, "http://a.org/1")
    assert one.verdict().startswith("dropped by gopher_quality: gopher_min_words (2, threshold 50)")
    assert {rule for _, rule, *_ in one.rules if rule.startswith("gopher")} >= {"gopher_min_words", "gopher_max_words"}
    failed = [rule for _, rule, _, _, _, passes in one.rules if not passes]
    assert "gopher_min_words" in failed
    assert "gopher_max_words" not in failed
    assert ("origin", f"{folder.parent}/a.jsonl:{one.document['offset']}") in one.facts()
    assert json.loads(json.dumps(one.as_data()))["verdict"] == one.verdict()


def test_a_copy_tells_what_it_repeats(made: tuple[Path, Recipe]) -> None:
    folder, recipe = made
    found = [explain(folder, recipe, f"http://a.org/{n}")[0] for n in (0, 2)]
    kept, gone = sorted(found, key=lambda one: one.verdict() != "kept")
    assert "near_duplicates" in gone.verdict()
    assert gone.verdict().endswith(f"it repeats or holds {kept.document['id']}")
    assert kept.document["duplicates"] == 1


def test_what_is_not_there_is_one_sentence(made: tuple[Path, Recipe]) -> None:
    folder, recipe = made
    broken = json.loads((folder / "documents" / "skipped.jsonl").read_text())
    with pytest.raises(RequestError, match="gave no document in stage 'documents': broken JSON"):
        explain(folder, recipe, f"{broken['file']}:{broken['offset']}")
    with pytest.raises(RequestError, match="has no document 'nowhere'"):
        explain(folder, recipe, "nowhere")


TEXT = st.lists(st.sampled_from(["", "one", "two words", "THREE", "12 likes"]), min_size=1, max_size=12)


@given(TEXT, st.data())
def test_cut_lines_come_back_in_their_places(lines: list[str], data: st.DataObject) -> None:
    """Any lines cut in two steps, as a step would record it, are put back among the lines that are not blank."""
    now, cuts = list(lines), []
    for step in ("first", "second"):
        filled = [n for n, line in enumerate(now) if line]
        gone = data.draw(st.sets(st.sampled_from(filled))) if filled else set()
        for n in sorted(gone):
            before = sum(bool(line) for line in now[:n])
            cuts.append({"step": step, "line": before, "column": -1, "rule": "r", "text": now[n]})
        now = [line for n, line in enumerate(now) if n not in gone]
    put_back = marked("\n".join(now), cuts)
    assert [line.text for line in put_back if line.text] == [line for line in lines if line]
    assert sum(bool(line.removed) for line in put_back) == len(cuts)


def test_the_kept_file_holds_the_cuts(made: tuple[Path, Recipe]) -> None:
    folder, _ = made
    rows = [row for path in (folder / "documents").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    cuts = [cut for row in rows for cut in row["cuts"]]
    assert {cut["rule"] for cut in cuts} <= {"upper_case", "counter"}


def test_rules_are_those_that_the_stage_was_made_with(made: tuple[Path, Recipe]) -> None:
    folder, recipe = made
    stage = recipe.stages["documents"]
    about = {**dict.fromkeys(MANIFEST_KEYS, ""), "settings": stage.model_dump(mode="json", by_alias=True)}
    seal(folder / "documents", manifest_text(folder / "documents", about))
    (source,) = stage.model_dump(mode="json")["sources"]
    other = _stage({"kind": "curate", "sources": [{**source, "name": "renamed", "rules": "c4"}]})
    changed = Recipe.model_validate({"name": "r", "stages": {"documents": other}})
    (one,) = explain(folder, changed, "http://a.org/1")
    assert {asked.set for asked in one.rules} == {"gopher_quality", "c4"}
