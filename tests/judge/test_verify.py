"""The grader: what counts as the answer, what equals what, and that no reply can make it work for long."""

import gzip
import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassbox.judge.verify import Verdict, number, verify


@pytest.mark.parametrize(
    ("gold", "reply", "score"),
    [
        ("42", "2*21=42\n#### 42", 1),
        ("42", "#### 41\n#### 42", 1),
        ("42", "#### 42\n#### 41", 0),
        ("42", "####42", 1),
        ("42", "#### 42.", 1),
        ("42", "#### 42.0", 1),
        ("42", "#### $42", 1),
        ("1000", "#### 1,000", 1),
        ("1,000", "#### 1000", 1),
        ("1000", "#### 1,00", 0),
        ("-5", "#### -5", 1),
        ("5", "#### -5", 0),
        ("0.5", "#### 1/2", 1),
        ("1/3", "#### 0.333333", 0),
        ("10%", "#### 0.1", 1),
        ("10\\%", "#### 10%", 1),
        ("3/4", "so \\boxed{\\frac{3}{4}}.", 1),
        ("3/4", "\\boxed{\\dfrac{6}{8}}", 1),
        ("8", "\\boxed{7} no wait, \\boxed{8}", 1),
        ("7", "\\boxed{7} no wait, \\boxed{8}", 0),
        ("7", "\\boxed{7} and an open \\boxed{8", 1),
        ("5", "The answer is 5.", 1),
        ("5", "The answer is: $5, I think", 1),
        ("3", "the answer is 3, 4 or 5", 1),
        ("4", "the answer is 3, 4 or 5", 0),
        ("42", "#### 41 42", 0),
        ("42", "#### 42 #### 41", 0),
        ("42", "#### 42</think>the answer is 7", 0),
        ("42", "#### 1/0", 0),
        ("B", "#### B", 1),
        ("B", "#### C", 0),
        ("42", "#### 4_2", 0),
        ("42", "#### ４２", 0),
        ("5", "#### 5e0", 0),
    ],
)
def test_verdicts(gold, reply, score):
    verdict = verify(gold=gold, reply=reply)
    assert (verdict.score, verdict.status) == (score, "ok")


@pytest.mark.parametrize("reply", ["", "42", "no idea", "####", "####   \n", "\\boxed{}", "\\boxed{{{", "</think>"])
def test_no_answer(reply):
    assert verify(gold="42", reply=reply) == Verdict(0.0, None, "no_answer")


@pytest.mark.parametrize("gold", ["", "  ", "1" * 101, "1" * 10_000])
def test_a_gold_that_cannot_be_judged_is_an_error_and_no_zero(gold):
    assert verify(gold=gold, reply="#### 42") == Verdict(None, None, "error")


@pytest.mark.parametrize(
    "reply",
    [
        "#### " + "9" * 10_000_000,
        "#### 9^9^9^9",
        "#### 1e999999999",
        "#### 10000000!",
        "\\boxed{" * 300_000,
        "\\boxed{" + "{" * 1_000_000,
        "the answer is " * 100_000,
        "the answer is " + "1," * 1_000_000,
        "#### " + "1," * 49,
        "#### " + "\\frac{" * 30,
        "#" * 1_000_000,
    ],
)
def test_hostile_replies_are_wrong_and_cheap(reply):
    assert verify(gold="42", reply=reply).score == 0.0


@given(st.text())
def test_never_raises(reply):
    assert verify(gold="42", reply=reply).status in ("ok", "no_answer")
    assert verify(gold="42", reply="#### " + reply).status in ("ok", "no_answer")


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6))
def test_numbers_equal_their_fractions(top, bottom):
    assert number(str(top)) == number(f"{top:,}") == top
    assert number(f"{top}/{bottom}") == Fraction(top, bottom)
    assert number(f"{top}%") == Fraction(top, 100)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=6))
def test_decimals_are_exact(value):
    assert number(f"{value:f}") == Fraction(value)


def test_every_gsm8k_solution_is_right_by_its_own_answer(data):
    with gzip.open(data / "gsm8k" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        answers = [json.loads(line)["answer"] for line in file]
    for answer in answers:
        gold = answer.rpartition("####")[2].strip()
        assert verify(gold=gold, reply=answer).score == 1.0
        assert verify(gold=gold.replace(",", "") + "1", reply=answer).score == 0.0
