"""The kernel that finds places to look at, against plain searches."""

import re

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.curate.characters import utf8_buffer
from glassbox.curate.reading.places import AT, DIGITS, FEWEST_DIGITS, GROUPS, KEY_START, places

STRETCH = re.compile(rb"[(+]*[0-9](?:[ .()+-]{0,3}[0-9])*")
RUN = re.compile(rb"[0-9a-fA-F:]+")
KEY = re.compile(rb"(?<![\w-])(?:AKI|ASI|gh[pousr]|git|glp|sk[-_]|rk_|xox|AIz|hf_|---)(?=.)", re.DOTALL)


def found(texts: list[str]) -> list[tuple[int, int, int, int]]:
    """(text, kind, start, end) of all places."""
    first, kind, start, end = places(*utf8_buffer(pa.array(texts, pa.large_string())))
    rows = [row for row in range(len(texts)) for _ in range(first[row], first[row + 1])]
    return list(zip(rows, kind.tolist(), start.tolist(), end.tolist(), strict=True))


def expected(texts: list[str]) -> set[tuple[int, int, int, int]]:
    out = set()
    for row, text in enumerate(texts):
        data = text.encode()
        out |= {(row, AT, at, at + 1) for at, byte in enumerate(data) if byte == ord("@")}
        out |= {(row, KEY_START, key.start(), key.start() + 1) for key in KEY.finditer(data)}
        for stretch in STRETCH.finditer(data):
            if sum(48 <= byte < 58 for byte in stretch[0]) >= FEWEST_DIGITS:
                out.add((row, DIGITS, *stretch.span()))
        for run in RUN.finditer(data):
            near = re.search(rb":[^:]{0,4}:", run[0])
            if near and run[0].count(b":") >= 3 and len(run[0]) <= 39:
                out.add((row, GROUPS, *run.span()))
    return out


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text("12(+-. @:afgé\nsk_-h", max_size=60), max_size=4))
def test_places_are_those_of_plain_searches(texts: list[str]) -> None:
    assert set(found(texts)) == expected(texts)
    assert len(set(found(texts))) == len(found(texts))


def test_more_places_than_expected_are_all_found() -> None:
    texts = ["@" * 5000, "a@b 123456 " * 500]
    assert set(found(texts)) == expected(texts)


def test_an_array_that_begins_in_the_middle_of_its_buffer() -> None:
    array = pa.array(["x@y", "call 123-4567", "fe80::1:2:3"], pa.large_string())
    first, kind, start, end = places(*utf8_buffer(array[1:]))
    assert first.tolist() == [0, 1, 2]
    assert [kind.tolist(), start.tolist(), end.tolist()] == [[DIGITS, GROUPS], [5, 0], [13, 11]]
