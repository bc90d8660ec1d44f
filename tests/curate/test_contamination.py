"""Decontamination against a plain search for word n-grams."""

import json
import random
import re
from pathlib import Path

import pyarrow as pa

from glassbox.curate.contamination import problem_grams, problem_hits
from glassbox.curate.words import word_hashes

N = 13


def write_problems(folder: Path, rows: list[tuple[str, str]]) -> None:
    lines = [{"id": f"p{i}", "kind": "k", "question": q, "solution": s, "answer": "1"} for i, (q, s) in enumerate(rows)]
    (folder / "held_out.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def grams(text: str, n: int) -> set[tuple[str, ...]]:
    found = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}


def test_hits_are_those_of_a_plain_search(tmp_path: Path) -> None:
    draw = random.Random(3)
    problems = []
    for i in range(40):
        a, b = draw.randint(2, 99), draw.randint(2, 99)
        problems.append(
            (
                f"Ann has {a} apples and gives {b} of them to Ben, who had {i} before. How many has Ben now?",
                f"Ben had {i}. He gets {b}. So Ben has {i} + {b} = {i + b} apples now.\n#### {i + b}",
            )
        )
    write_problems(tmp_path, problems)
    table = problem_grams(tmp_path, N)
    filler = [f"word{draw.randint(0, 500)}" for _ in range(4000)]
    texts = []
    for k in range(60):
        text = " ".join(filler[k * 50 : k * 50 + 50])
        if k % 3 == 0:
            source = problems[k % 40][k % 2].split()
            start = draw.randint(0, 4)
            text += "\n" + ",  ".join(source[start : start + draw.choice((8, 12, 13, 30))]).upper() + "\n" + text
        texts.append(text)
    hits = problem_hits(*word_hashes(pa.array(texts, pa.large_string())), table)
    for text, found in zip(texts, hits, strict=True):
        held = grams(text, N)
        expected = {i for i, pair in enumerate(problems) if any(held & grams(part, N) for part in pair)}
        # An n-gram shared by several problems is credited to the first of them.
        assert bool(found) == bool(expected)
        assert set(found) <= expected
    assert any(hits)


def test_a_short_problem_matches_as_a_whole_and_a_very_short_one_never(tmp_path: Path) -> None:
    write_problems(tmp_path, [("What is the sum of 12 and 30 please?", "42"), ("What is 2 + 3?", "5")])
    table = problem_grams(tmp_path, N)
    assert table.too_short == 3
    texts = ["He asked: what is the sum of 12 and 30, please? Nobody knew.", "What is 2 + 3? 5 and 42.", ""]
    assert [bool(found) for found in problem_hits(*word_hashes(pa.array(texts, pa.large_string())), table)] == [
        True,
        False,
        False,
    ]
