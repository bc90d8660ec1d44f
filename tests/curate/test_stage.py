"""The whole stage on small corpora: nothing lost in silence, same bytes whatever the workers, clear sentences."""

import gzip
import itertools
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glassbox.curate.stage import run
from glassbox.errors import Interrupted, RequestError
from glassbox.ledger.workspace import Artefact, Inputs, Workspace
from glassbox.recipe.curation import CurateStage
from glassbox.recipe.files import source_files

SENTENCES = (
    "The {a} of the {b} was seen that morning by everyone who came to the {c}.",
    "With a {a} and a {b} they have built what the {c} needed to be.",
    "It is said that {a} and {b} belong to the {c}, and that is all there is.",
    "Nobody had to ask for the {a}; the {b} would have shown it to the {c}.",
)


def prose(seed: int, count: int = 12) -> str:
    draw = random.Random(seed)
    names = [f"{draw.choice('bcdfgklmnprst')}{draw.choice('aeiou')}{draw.choice('lmnrst')}{i}er" for i in range(60)]
    lines = [
        draw.choice(SENTENCES).format(a=draw.choice(names), b=draw.choice(names), c=draw.choice(names))
        for _ in range(count)
    ]
    return "\n".join(lines)


def write_jsonl(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def curate(folder: Path, inputs: Inputs = Inputs(), **settings: Any) -> Path:  # noqa: B008
    folder.mkdir()
    names = [artefact.name for artefact in inputs.artefacts]
    settings.setdefault("engine", {"workers": 1})
    run(CurateStage(kind="curate", **{"from": names}, **settings), inputs, Workspace(folder))
    return folder


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [row for path in sorted((folder / name).iterdir()) for row in pq.read_table(path).to_pylist()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Good prose in many files, exact and near copies across them, stubs, and broken inputs."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(6):
        texts = [prose(number * 100 + i) for i in range(20)]
        texts += [prose(i) for i in range(number)]
        texts += [prose(100 + i) + "\nAnd one line more." for i in range(number)]
        texts += ["Too short.", ""]
        write_jsonl(folder / f"part-{number}.jsonl", texts)
    (folder / "broken.jsonl").write_bytes(b'{"text": "\xff"}\n{"text": \n' + json.dumps({"text": prose(999)}).encode())
    packed = gzip.compress("".join(json.dumps({"text": prose(2000 + i)}) + "\n" for i in range(50)).encode())
    (folder / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    return folder


def settings(corpus: Path) -> dict[str, Any]:
    source = {"name": "web", "format": "jsonl", "path": str(corpus), "rules": ["gopher_quality", "c4"]}
    return {"sources": [{**source, "language": {"keep": "en", "min_score": 0.3}}]}


def test_every_document_is_kept_or_dropped_with_its_reason(corpus: Path, tmp_path: Path) -> None:
    out = curate(tmp_path / "out", **settings(corpus))
    kept, dropped = rows(out, "documents"), rows(out, "dropped")
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    funnel = json.loads((out / "funnel.json").read_text())
    assert [row["step"] for row in funnel] == [
        *("read", "extract", "language", "gopher_quality", "c4", "exact_duplicates", "near_duplicates")
    ]
    assert funnel[0]["documents"] == len(kept) + len(dropped)
    assert funnel[-1]["documents"] == len(kept) > 100
    assert funnel[-1]["bytes"] == sum(len(row["text"].encode()) for row in kept)
    for before, after in itertools.pairwise(funnel):
        fell = [row for row in dropped if row["stage"] == after["step"]]
        assert before["documents"] - after["documents"] == len(fell), after["step"]
    assert sorted(row["reason"] for row in skipped) == ["broken JSON", "invalid UTF-8", "truncated gzip"]
    assert len({row["id"] for row in kept + dropped}) == len(kept) + len(dropped)
    by_id = {row["id"]: row for row in kept}
    copies = [row for row in dropped if row["stage"] in ("exact_duplicates", "near_duplicates")]
    assert {row["stage"] for row in copies} == {"exact_duplicates", "near_duplicates"}
    assert all(row["other"] in by_id and row["value"] >= row["threshold"] for row in copies)
    assert all(row["rule"] and row["other"] is None for row in dropped if row not in copies)
    samples = json.loads((out / "samples.json").read_text())
    assert set(samples["dropped"]) == {row["rule"] for row in dropped}
    assert not [path for path in out.iterdir() if path.name.startswith(".tmp")]
    # A document's offset leads back to its line.
    row = kept[0]
    line = Path(row["origin"]).read_bytes()[row["offset"] :].split(b"\n")[0]
    assert json.loads(line)["text"] == row["text"]


SCRIPT = """
import json, sys
from pathlib import Path
from glassbox.curate import flow, parts
parts.PART_BYTES = flow.WORTH_BYTES = 20_000  # several parts, worth several workers
from glassbox.curate.stage import run
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.recipe.curation import CurateStage
out = Path(sys.argv[1]); out.mkdir()
run(CurateStage(kind="curate", **json.loads(sys.argv[2])), Inputs(), Workspace(out))
"""


@pytest.mark.slow
def test_workers_and_the_order_of_files_on_disk_change_nothing(corpus: Path, tmp_path: Path) -> None:
    results = []
    for workers in (1, 2, 4):
        out = tmp_path / f"out-{workers}"
        given = json.dumps({**settings(corpus), "engine": {"workers": workers}})
        subprocess.run([sys.executable, "-c", SCRIPT, str(out), given], check=True, timeout=120)
        results.append(contents(out))
        # The same files, made in another order.
        saved = {path.name: path.read_bytes() for path in corpus.iterdir()}
        for path in list(corpus.iterdir()):
            path.unlink()
        for name in sorted(saved, reverse=True):
            (corpus / name).write_bytes(saved[name])
    assert results[0] == results[1] == results[2]
    assert len([name for name in results[0] if name.startswith("documents/")]) > 3


def test_shuffled_input_keeps_the_same_texts(tmp_path: Path) -> None:
    texts = [prose(i) for i in range(40)] + [prose(i) + "\nOne more line." for i in range(20)] + [prose(3)] * 5
    kept = []
    for turn in range(3):
        random.Random(turn).shuffle(texts)
        write_jsonl(tmp_path / "a.jsonl", texts)
        source = {"name": "a", "format": "jsonl", "path": str(tmp_path / "a.jsonl")}
        out = curate(tmp_path / f"out-{turn}", sources=[source])
        kept.append(sorted(row["text"] for row in rows(out, "documents")))
    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]) == 40


def test_of_texts_alike_in_all_but_white_space_the_same_stays_in_any_order(tmp_path: Path) -> None:
    texts = [prose(1), prose(1).replace("\n", "\n\n"), prose(1).replace("\n", " ")]
    found = set()
    for turn, order in enumerate(itertools.permutations(texts)):
        lines = [{"text": text, "url": f"http://a.org/{page}"} for text in order for page in sorted(range(2), key=hash)]
        lines = lines[:: 1 if turn % 2 else -1]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        source = {"name": "a", "format": "jsonl", "path": str(tmp_path / "a.jsonl")}
        (row,) = rows(curate(tmp_path / f"out-{turn}", sources=[source]), "documents")
        found.add((row["text"], row["url"]))
    assert len(found) == 1


def test_halves_of_surrogate_pairs_are_no_text(tmp_path: Path) -> None:
    line = f'{{"text": {json.dumps(prose(1))}, "url": "http://a.org/\\ud800", "title": "\\udfff"}}\n'
    (tmp_path / "a.jsonl").write_text(line)
    out = curate(tmp_path / "out", sources=[{"name": "a", "format": "jsonl", "path": str(tmp_path / "a.jsonl")}])
    (row,) = rows(out, "documents")
    assert (row["url"], row["meta"]) == ("http://a.org/?", '{"title":"?"}')


def test_cuts_hold_no_more_personal_data_than_texts(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [prose(1) + "\nWRITE TO BOB@ACME.ORG\nOr to bob@acme.org, he said."])
    source = {"name": "a", "format": "jsonl", "path": str(tmp_path / "a.jsonl")}
    cleaned = {"lines": "upper_case", "mask": ["email"]}
    (row,) = rows(curate(tmp_path / "out", sources=[{**source, "clean": cleaned}]), "documents")
    assert row["text"].endswith("Or to |||EMAIL_ADDRESS|||, he said.")
    assert [(cut["rule"], cut["text"]) for cut in row["cuts"]] == [("upper_case", "WRITE TO |||EMAIL_ADDRESS|||")]


def test_an_interrupted_stage_goes_on_at_the_next_part(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassbox.curate.parts.PART_BYTES", 20_000)
    given = CurateStage(kind="curate", **settings(corpus), engine={"workers": 1})
    whole = tmp_path / "whole"
    whole.mkdir()
    asked: list[int] = []
    run(given, Inputs(), Workspace(whole, stop_requested=lambda: bool(asked.append(1))))
    assert len(asked) > 10
    for after in range(1, len(asked), 3):
        out = tmp_path / f"cut-{after}"
        out.mkdir()
        assert_goes_on(given, out, after)
        assert contents(out) == contents(whole)


def assert_goes_on(given: CurateStage, out: Path, after: int) -> None:
    """Stopped when asked for the `after`th time, the stage goes on, and what was done is not done again."""
    parts = out / "checkpoints" / "parts"
    asked: list[int] = []
    with pytest.raises(Interrupted):
        run(given, Inputs(), Workspace(out, stop_requested=lambda: len(asked) >= after or bool(asked.append(1))))
    done = {path: path.stat().st_mtime_ns for path in parts.glob("ingested-*.json")}
    assert done
    seen: list[dict[Path, int]] = []

    def look(*_: object) -> None:
        seen.append({path: path.stat().st_mtime_ns for path in done})

    run(given, Inputs(), Workspace(out, on_progress=look))
    assert seen[0] == seen[1] == done


def test_a_stage_done_again_in_its_folder_goes_by_what_it_is_given_now(tmp_path: Path) -> None:
    banned = tmp_path / "banned.txt"
    texts = [{"text": prose(number), "url": f"https://{number}.example/a"} for number in range(4)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    source = {"name": "a", "format": "jsonl", "path": str(tmp_path / "a.jsonl"), "urls": {"domains": [str(banned)]}}

    found = []
    for name, entry in (("first", "1.example"), ("second", "2.example")):
        banned.write_text(entry)
        out = curate(tmp_path / "out", sources=[{**source, "name": name}])
        found.append({(row["source"], row["url"][8]) for row in rows(out, "documents")})
        shutil.rmtree(out)
    assert found == [{("first", n) for n in "023"}, {("second", n) for n in "013"}]


def test_stages_can_be_chained_and_documents_keep_their_names(corpus: Path, tmp_path: Path) -> None:
    first = curate(tmp_path / "first", **settings(corpus))
    before = {row["id"]: row for row in rows(first, "documents")}
    source = {"name": "web", "format": "documents", "stage": "first", "clean": {"lines": "upper_case"}}
    inputs = Inputs((Artefact("first", "documents", first),))
    second = curate(
        tmp_path / "second", inputs, sources=[{**source, "rules": "c4", "thresholds": {"c4_min_sentences": 9}}]
    )
    after = {row["id"]: row for row in [*rows(second, "documents"), *rows(second, "dropped")]}
    assert after.keys() == before.keys()
    for name, row in after.items():
        assert (row["origin"], row["offset"], row["text"]) == tuple(
            before[name][key] for key in ("origin", "offset", "text")
        )
    empty = {**source, "name": "other"}
    with pytest.raises(RequestError, match="read no document from 'other'"):
        curate(tmp_path / "third", inputs, sources=[empty])


def test_of_duplicates_the_one_of_the_earlier_source_stays(tmp_path: Path) -> None:
    for name, seeds in (("a", range(0, 20)), ("b", range(10, 30))):
        write_jsonl(tmp_path / f"{name}.jsonl", [prose(i) + f"\nEnd {name}." * (i % 2) for i in seeds])
    for order in ("ab", "ba"):
        sources = [{"name": name, "format": "jsonl", "path": str(tmp_path / f"{name}.jsonl")} for name in order]
        out = curate(tmp_path / order, sources=sources)
        counts = {name: sum(row["source"] == name for row in rows(out, "documents")) for name in order}
        assert counts == {order[0]: 20, order[1]: 10}


def test_a_contaminated_document_is_dropped_and_listed(tmp_path: Path) -> None:
    problems = tmp_path / "problems"
    problems.mkdir()
    question = "Lena has 17 red marbles and 25 blue ones and gives 9 of them to her brother. How many are left?"
    held_out = {"id": "w-1", "kind": "word", "question": question, "solution": "17 + 25 = 42\n#### 33", "answer": "33"}
    (problems / "held_out.jsonl").write_text(json.dumps(held_out) + "\n")
    write_jsonl(tmp_path / "a.jsonl", [prose(1), prose(2) + "\n" + question.upper(), prose(3)])
    inputs = Inputs((Artefact("problems", "problems", problems),))
    out = curate(
        tmp_path / "out", inputs, sources=[{"name": "a", "format": "jsonl", "path": str(tmp_path / "a.jsonl")}]
    )
    (hit,) = rows(out, "dropped")
    assert (hit["stage"], hit["rule"], hit["other"]) == ("decontaminate", "evaluation_ngrams", "held_out/w-1")
    assert 0 < hit["value"] <= 1
    report = json.loads((out / "contamination.json").read_text())
    assert [(one["name"], list(one["found"])) for one in report["sets"]] == [("held_out", ["w-1"])]
    assert report["sets"][0]["found"]["w-1"] == [hit["id"]]
    assert report["documents_dropped"] == 1
    assert json.loads((out / "funnel.json").read_text())[-1]["step"] == "decontaminate"


def test_every_format_gives_documents(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "html").mkdir()
    page = f"<html><body><article><h1>T</h1><p>{prose(1)}</p></article></body></html>"
    (tmp_path / "html" / "a.html").write_text(page)
    (tmp_path / "b.txt").write_text(prose(2))
    (tmp_path / "c.py").write_text("def f(x):\n    return x\n" * 3)
    pq.write_table(pa.table({"text": [prose(3)]}), tmp_path / "d.parquet")
    (tmp_path / "hub").mkdir()
    write_jsonl(tmp_path / "hub" / "train.jsonl", [prose(4)])
    paths = {"html": "html", "text": "*.txt", "code": "c.py", "parquet": "d.parquet"}
    sources = [{"name": name, "format": name, "path": str(tmp_path / path)} for name, path in paths.items()]
    sources.append({"name": "hf", "format": "hf", "path": f"hf://{tmp_path / 'hub'}"})
    out = curate(tmp_path / "out", sources=sources)
    kept = {row["source"]: row for row in rows(out, "documents")}
    assert set(kept) == {"html", "text", "code", "parquet", "hf"}
    assert kept["text"]["text"] == prose(2)
    assert kept["code"]["lang"] == ""
    assert kept["text"]["lang"] == "en"


def test_an_empty_corpus_is_one_sentence_that_names_the_step(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ["short", "texts"])
    source = {"name": "a", "format": "jsonl", "path": str(tmp_path / "a.jsonl")}
    with pytest.raises(RequestError, match="step gopher_quality of source 'a' removed the last one"):
        curate(tmp_path / "one", sources=[{**source, "rules": ["gopher_quality"]}])
    (tmp_path / "a.jsonl").write_bytes(b"broken\n\xff\n")
    with pytest.raises(
        RequestError, match=r"read no document from 'a': 2 inputs were skipped, the first .* as broken JSON"
    ):
        curate(tmp_path / "two", sources=[source])
    (tmp_path / "a.jsonl").write_bytes(b"")
    with pytest.raises(RequestError, match="read no document from 'a'; check the paths"):
        curate(tmp_path / "three", sources=[source])


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    config = CurateStage(kind="curate", sources=[{"name": "a", "format": "jsonl", "path": str(tmp_path / "no")}])
    with pytest.raises(RequestError, match="no does not exist"):
        source_files(config)
    (tmp_path / "no").mkdir()
    with pytest.raises(RequestError, match=r"holds no \.jsonl"):
        source_files(config)


def test_raw_files_are_listed_sorted_and_once(corpus: Path) -> None:
    sources = [{"name": name, "format": "jsonl", "path": str(corpus)} for name in "ab"]
    found = source_files(CurateStage(kind="curate", sources=sources))
    assert found == sorted(corpus.iterdir())


def test_the_standard_library_is_read_without_tests_and_packages() -> None:
    config = CurateStage(kind="curate", sources=[{"name": "code", "format": "code", "path": "python:stdlib"}])
    found = source_files(config)
    assert len(found) > 300
    assert not [path for path in found if {"test", "tests", "site-packages"} & set(path.parts[-4:])]


def test_a_stop_request_ends_the_stage(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    workspace = Workspace(tmp_path / "out", stop_requested=lambda: True)
    with pytest.raises(Interrupted):
        run(CurateStage(kind="curate", **settings(corpus)), Inputs(), workspace)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoints"]


def test_a_moved_threshold_and_cut_lines_show_in_the_result(tmp_path: Path) -> None:
    texts = [f"Shared menu line\n{prose(i)}\n/usr/lib/x{i}.py" for i in range(10)]
    write_jsonl(tmp_path / "a.jsonl", texts)
    source = {
        **{"name": "a", "format": "jsonl", "path": str(tmp_path / "a.jsonl"), "rules": "gopher_quality"},
        **{"clean": {"edge_lines": {"lines": 2, "copies": 4}, "lines": ["bare_path"]}},
        **{"thresholds": {"gopher_min_words": 5}},
    }
    out = curate(tmp_path / "out", sources=[source])
    kept = rows(out, "documents")
    menu = "Shared menu line\n"
    assert [row["text"] for row in kept] == [menu * (i < 4) + prose(i) for i in range(10)]
    assert [row["lines_cut"] for row in kept] == [1 + (i >= 4) for i in range(10)]
    assert [cut["text"] for cut in kept[9]["cuts"]] == ["Shared menu line", "/usr/lib/x9.py"]
    assert json.loads((out / "samples.json").read_text())["lines_cut"] == {"a": {"edge_lines": 6, "bare_path": 10}}


PROBLEM = " ".join(f"marble{number}" for number in range(60))


def with_problem(folder: Path, texts: list[str], **given: Any) -> Path:
    write_jsonl(folder / "a.jsonl", texts)
    (folder / "test.jsonl").write_text(json.dumps({"question": PROBLEM}) + "\n")
    sets = [{"name": "test", "path": str(folder / "test.jsonl")}]
    source = {"name": "a", "format": "jsonl", "path": str(folder / "a.jsonl")}
    return curate(folder / "out", sources=[source], decontaminate={"sets": sets, "cut": 0}, **given)


def test_a_document_of_a_problem_and_a_passage_of_another_is_dropped_not_emptied(tmp_path: Path) -> None:
    passage = " ".join(f"word{number}" for number in range(80))
    more = " ".join(f"more{number}" for number in range(90))
    duplicates = {"prefer": "longest", "substrings": {"words": 50, "min_words": 5}}
    out = with_problem(tmp_path, [f"{passage} {more}", f"{passage}\n{PROBLEM}"], duplicates=duplicates)
    assert [row["text"] for row in rows(out, "documents")] == [f"{passage} {more}"]
    assert [row["rule"] for row in rows(out, "dropped")] == ["evaluation_ngrams"]


def test_a_document_that_was_cut_and_not_sampled_is_no_contaminated_one(tmp_path: Path) -> None:
    texts = [f"{prose(number)}\n{PROBLEM}\n{prose(number + 100)}" for number in range(20)]
    out = with_problem(tmp_path, texts, sampling={"budget": 0.4})
    report = json.loads((out / "contamination.json").read_text())
    assert (report["documents_dropped"], report["documents_cut"]) == (0, 20)
    assert {(row["stage"], row["other"]) for row in rows(out, "dropped")} == {("sampling", None)}
