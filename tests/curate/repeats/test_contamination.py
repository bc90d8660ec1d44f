"""Decontamination against a plain search for n-grams, on made-up and on real problems."""

import gzip
import itertools
import json
import random
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as bounds
from hypothesis import strategies as st

from glassbox.curate.repeats.contamination import Hit, evaluations, hits, stretches
from glassbox.recipe.duplicates import Decontaminate, EvaluationSet
from tests.curate.alike import WORD, column, words


def write_problems(folder: Path, problems: list[tuple[str, str]]) -> None:
    rows = [{"id": f"p{k}", "question": a, "solution": b, "answer": "1"} for k, (a, b) in enumerate(problems)]
    (folder / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_set(folder: Path, texts: list[str]) -> EvaluationSet:
    (folder / "set.jsonl").write_text(
        "".join(json.dumps({"id": f"q{k}", "question": t}) + "\n" for k, t in enumerate(texts))
    )
    return EvaluationSet(name="made", path=str(folder / "set.jsonl"))


def plain_search(document: str, problem: str, size: int) -> tuple[float, set[int]]:
    """Share of the problem's words in common n-grams, and the document's words in them."""
    mine, its = words(document), words(problem)
    size = min(size, len(its))
    places = defaultdict(list)
    for i in range(len(mine) - size + 1):
        places[tuple(mine[i : i + size])].append(i)
    covered, matched = set(), set()
    for i in range(len(its) - size + 1):
        for place in places.get(tuple(its[i : i + size]), ()):
            covered |= set(range(i, i + size))
            matched |= set(range(place, place + size))
    return len(covered) / len(its), matched


def spoken(draw: random.Random, vocabulary: int, length: int) -> str:
    return " ".join(f"w{draw.randint(0, vocabulary)}" for _ in range(length))


@pytest.mark.parametrize(("size", "share"), [(13, 0.0), (8, 0.5), (3, 0.2), (8, 0.0)])
def test_hits_are_those_of_a_plain_search(tmp_path: Path, size: int, share: float) -> None:
    draw = random.Random(size)
    problems = [spoken(draw, 400, draw.randint(8, 40)) for _ in range(40)]
    documents = []
    for _ in range(80):
        pieces = [spoken(draw, 400, 30)]
        for _ in range(draw.randint(0, 3)):
            source = draw.choice(problems).split()
            start = draw.randint(0, len(source))
            pieces.append(",  ".join(source[start : start + draw.choice((5, 8, 13, 40))]).upper())
            pieces.append("é 漢 " + spoken(draw, 400, draw.randint(0, 20)))
        documents.append("\n".join(pieces))
    known = evaluations(Decontaminate(sets=(write_set(tmp_path, problems),), ngram=size, share=share), None)
    found = hits(column(documents), known)
    count = 0
    for document, mine in zip(documents, found, strict=True):
        by_item = defaultdict(list)
        for hit in mine:
            by_item[hit.item].append(hit)
        for number, problem in enumerate(problems):
            expected, matched = plain_search(document, problem, size)
            of_item = by_item.pop(f"q{number}", [])
            assert bool(of_item) == (expected > share)
            if not of_item:
                continue
            count += 1
            assert all(hit.set == "made" and hit.share == pytest.approx(expected) for hit in of_item)
            # The words in the stretches are the matched ones; a stretch begins and ends with a word.
            inside = {
                k
                for k, word in enumerate(WORD.finditer(document.lower()))
                if any(hit.start <= word.start() and word.end() <= hit.end for hit in of_item)
            }
            assert inside == matched
            assert all(document[hit.start : hit.end].strip() == document[hit.start : hit.end] for hit in of_item)
        assert not by_item
    assert count > 15
    assert hits(column(documents)[3:5], known) == found[3:5]


def test_questions_and_solutions_of_held_out_problems(tmp_path: Path) -> None:
    question, solution = "What is the sum of 12 and 30 please?", "We add 12 and 30 and so the sum that we get is 42."
    write_problems(tmp_path, [(question, solution), ("What is 2 + 3?", "5")])
    known = evaluations(Decontaminate(), tmp_path)
    assert [(one.name, one.items, one.texts, one.too_short) for one in known.sets] == [("held_out", 2, 2, 2)]
    texts = [
        "He asked: what is the sum of 12 and 30, please? Nobody knew.",
        "What is 2 + 3? 5 and 42.",
        "",
        f"x {solution}",
    ]
    assert hits(column(texts), known) == [
        [Hit("held_out", "p0", 1.0, 10, 46)],
        [],
        [],
        [Hit("held_out", "p0", 1.0, 2, 1 + len(solution))],
    ]


def test_only_what_one_document_covers_counts(tmp_path: Path) -> None:
    """Tülu 3's rule: over half of the problem by 8-grams, in this document alone."""
    draw = random.Random(0)
    problem = spoken(draw, 10_000, 40).split()
    known = evaluations(Decontaminate(sets=(write_set(tmp_path, [" ".join(problem)]),), ngram=8, share=0.5), None)
    halves = [" ".join(problem[:20]), " ".join(problem[20:])]
    both = f"{halves[0]} and {halves[1]}"
    seven = " and ".join(" ".join(problem[k : k + 7]) for k in range(0, 40, 7))
    found = hits(column([*halves, both, " ".join(problem[:21]), seven]), known)
    assert [len(one) for one in found] == [0, 0, 2, 1, 0]
    assert found[2][0].share == 1
    assert found[3][0].share == pytest.approx(21 / 40)


def test_a_text_repeated_without_end_costs_bounded_work(tmp_path: Path) -> None:
    known = evaluations(Decontaminate(sets=(write_set(tmp_path, ["a " * 2000] * 50),)), None)
    (found,) = hits(column(["a " * 50_000]), known)
    assert found
    assert len(found) <= 50


def test_real_problems_are_found_in_documents_made_of_them(data: Path) -> None:
    with gzip.open(data / "gsm8k" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][:2000]
    one = EvaluationSet(name="gsm8k", path=str(data / "gsm8k"), fields=("question", "answer"))
    known = evaluations(Decontaminate(sets=(one,), ngram=8, share=0.5), None)
    texts = [f"Exercise {k}. {row['question']}\n\nSolve it." for k, row in enumerate(rows)]
    found = hits(column(texts), known)
    assert sum(any(hit.item == f"train.jsonl.gz:{k + 1}" for hit in one) for k, one in enumerate(found)) >= 1999


def test_real_prose_holds_no_problem(data: Path) -> None:
    one = EvaluationSet(name="gsm8k", path=str(data / "gsm8k"), fields=("question", "answer"))
    known = evaluations(Decontaminate(sets=(one,)), None)
    texts = [
        gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        for path in sorted((data / "gutenberg").glob("*.gz"))[:8]
    ]
    assert not any(hits(column(texts), known))


def test_matches_are_cut_with_their_surroundings_as_gpt_3_did() -> None:
    assert stretches(2000, [(500, 600)], 200) == [(300, 800)]
    # Pieces of under 200 characters go too, at the ends and between cuts.
    assert stretches(2000, [(100, 200), (700, 800), (1300, 1400)], 200) == [(0, 1600)]
    assert stretches(900, [(300, 310)], 200) == [(0, 510)]
    assert stretches(300, [(100, 200)], 200) is None
    many = [(1000 * k, 1000 * k + 10) for k in range(1, 12)]
    assert stretches(20_000, many[:9], 200) is not None
    assert stretches(20_000, many[:10], 200) is None


@bounds(deadline=None)
@given(
    length=st.integers(1, 5000),
    matches=st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 400)), min_size=1, max_size=14),
    around=st.integers(0, 300),
)
def test_cuts_leave_only_long_pieces_away_from_matches(
    length: int, matches: list[tuple[int, int]], around: int
) -> None:
    places = [(min(start, length - 1), min(start + size, length)) for start, size in matches]
    places = [(start, max(end, start + 1)) for start, end in places]
    cuts = stretches(length, places, around)
    gone = {k for start, end in places for k in range(max(start - around, 0), min(end + around, length))}
    left, pieces = set(range(length)) - gone, []
    for k in sorted(left):
        if pieces and pieces[-1][-1] == k - 1:
            pieces[-1].append(k)
        else:
            pieces.append([k])
    pieces = [piece for piece in pieces if len(piece) >= 200]
    if not 0 < len(pieces) <= 10:
        assert cuts is None
        return
    assert cuts is not None
    cut = {k for start, end in cuts for k in range(start, end)}
    assert set(range(length)) - cut == {k for piece in pieces for k in piece}
    assert all(one[1] < other[0] for one, other in itertools.pairwise(cuts))
