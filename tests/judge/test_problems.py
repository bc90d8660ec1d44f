"""Problems: every written statement is true by an independent parser, answers are right, splits are disjoint."""

import ast
import collections
import json
import operator
import re
from fractions import Fraction
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassbox.errors import RequestError
from glassbox.judge import stage
from glassbox.judge.kinds import between
from glassbox.judge.problems import EVERY_KIND, HELD_OUT_SHARE, Problem, generate, split_of
from glassbox.judge.steps import add, divide, multiply, subtract
from glassbox.judge.verify import verify
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.recipe.text import ProblemKind, ProblemsStage

NAMES = sorted(EVERY_KIND)
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: Fraction}


def evaluate(expression: str) -> Fraction:
    """The exact value of an expression in + - * / and whole numbers, by Python's own parser."""

    def value(node: ast.AST) -> Fraction:
        match node:
            case ast.BinOp(left, op, right):
                return Fraction(OPERATORS[type(op)](value(left), value(right)))
            case ast.Constant(int() as number):
                return Fraction(number)
        raise AssertionError(f"not arithmetic: {expression}")

    return value(ast.parse(expression, mode="eval").body)


def check_lines(lines: list[str]) -> list[Fraction]:
    """Check every claim; returns the values of the equations."""
    values = []
    for line in lines:
        statement = re.sub(r"^[A-Z][a-z]+: ", "", line)
        if "<" in statement or ">" in statement:
            left, sign, right = re.fullmatch(r"(\d+)([<>])(\d+)", statement).groups()
            assert (int(left) < int(right)) == (sign == "<"), line
        elif "=" in statement:
            left, right = statement.split("=")
            assert evaluate(left) == evaluate(right), line
            values.append(evaluate(right))
        else:
            evaluate(statement)  # what is to be calculated
    return values


def expected(problem: Problem) -> int | None:
    """The answer worked out from the question's numbers alone, where the kind allows it without reading words."""
    numbers = [int(number) for number in re.findall(r"\d+", problem.question)]
    match problem.kind:
        case "addition":
            return sum(numbers)
        case "subtraction":
            return max(numbers) - min(numbers)
        case "multiplication":
            return numbers[0] * numbers[1]
        case "remainder":
            return numbers[0] % numbers[1]
        case "sequence":
            return 2 * numbers[3] - numbers[2]
        case "comparison":
            return max(numbers) if "largest" in problem.question else min(numbers)
        case "giving":
            a, b, c = numbers
            gives_first = re.search(r"gives \d+ to|takes out \d+ and|lost", problem.question)
            return a - b + c if gives_first else a + b - c
        case "buying":
            if "bag for" in problem.question:
                n, p, q = numbers
            elif "ticket" in problem.question:
                p, q, n = numbers
            elif "How much change" in problem.question:
                p, n, q = numbers
            else:
                q, n, p = numbers
            return n * p + q if re.search("bag for|ticket", problem.question) else q - n * p
        case "sharing":
            return (numbers[0] + numbers[1]) // numbers[2]
        case "comparing":
            a, b = numbers
            return a * (1 + b) if "times" in problem.question else 2 * a + (b if "more" in problem.question else -b)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_statements_and_answers_are_right(name, split):
    for problem in generate([ProblemKind(kind=name)], 300, 3, split):
        *lines, final = problem.solution.split("\n")
        assert final == f"#### {problem.answer}"
        check_lines(lines)
        assert int(problem.answer) == expected(problem), problem
        assert int(problem.answer) >= 0
        assert verify(gold=problem.answer, reply=problem.solution).score == 1.0
        assert verify(gold=str(int(problem.answer) + 1), reply=problem.solution).score == 0.0


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_addition_and_subtraction_steps(a, b):
    assert check_lines(add(a, b))[-1] == a + b
    assert check_lines(subtract(max(a, b), min(a, b)))[-1] == abs(a - b)


@given(st.integers(0, 10**6), st.integers(2, 9))
def test_multiplication_and_division_steps(a, digit):
    assert check_lines(multiply(a, digit))[-1] == a * digit
    steps = divide(a, digit)
    assert check_lines(steps)[-1] == a
    assert steps[-1].endswith(f"={digit}*{a // digit}+{a % digit}")


def test_column_results_read_off_as_the_answer():
    lines = add(958, 67)
    assert lines == ["958+67", "8+7=15", "5+6+1=12", "9+0+1=10", "958+67=1025"]
    assert subtract(302, 15) == ["302-15", "12-5=7", "10-1-1=8", "3-0-1=2", "302-15=287"]
    assert multiply(47, 6) == ["47*6", "7*6=42", "4*6+4=28", "47*6=282"]
    assert divide(347, 6) == ["347/6", "34=6*5+4", "47=6*7+5", "347=6*57+5"]


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_disjoint_and_without_duplicates(name):
    kinds = [ProblemKind(kind=name)]
    train = list(generate(kinds, 600, 1, "train"))
    held_out = list(generate(kinds, 150, 2, "held_out"))
    for problems in (train, held_out):
        assert len({problem.id for problem in problems}) == len(problems)
        assert len({problem.question for problem in problems}) == len(problems)
    assert not {p.id for p in train} & {p.id for p in held_out}
    numbers = [collections.Counter(re.sub(r"\D+", " ", p.question) for p in problems) for problems in (train, held_out)]
    if name in ("addition", "subtraction", "multiplication", "remainder", "sequence"):
        assert not set(numbers[0]) & set(numbers[1])


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32))
def test_operands_decide_the_answer_whatever_the_wording(name, seed):
    kind = EVERY_KIND[name]
    operands = kind.draw(Random(seed), kind.low, kind.high)
    if operands is not None:
        assert len({kind.write(Random(n), operands).answer for n in range(10)}) == 1


def test_commuted_sums_fall_on_the_same_side():
    questions = {}
    for split in ("train", "held_out"):
        for problem in generate([ProblemKind(kind="addition", low=10, high=99)], 500, 1, split):
            pair = tuple(sorted(re.findall(r"\d+", problem.question)))
            assert pair not in questions
            questions[pair] = split


def test_share_of_the_problem_space_that_is_held_out():
    sides = [split_of("addition", (a, b)) for a in range(10, 100) for b in range(a, 100)]
    assert abs(sides.count("held_out") / len(sides) - HELD_OUT_SHARE) < 0.02


def test_generation_is_pure_and_interleaves_kinds_by_weight():
    kinds = [ProblemKind(kind="addition", weight=3), ProblemKind(kind="sharing")]
    problems = list(generate(kinds, 400, 5, "train"))
    assert problems == list(generate(kinds, 400, 5, "train"))
    assert problems[:100] == list(generate(kinds, 100, 5, "train"))
    assert problems != list(generate(kinds, 400, 6, "train"))
    for end in range(1, 401):
        count = sum(problem.kind == "addition" for problem in problems[:end])
        assert abs(count - 0.75 * end) <= 1


def test_ranges_are_kept():
    for problem in generate([ProblemKind(kind="addition", low=50, high=60)], 30, 1, "train"):
        assert all(50 <= int(number) <= 60 for number in re.findall(r"\d+", problem.question))


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 1000))
def test_between_stays_inside(low, extra, seed):
    assert low <= between(Random(seed), low, low + extra) <= low + extra


def test_a_kind_that_runs_out_is_a_clear_error():
    with pytest.raises(RequestError, match=r"'addition' ran out after .* widen its low"):
        list(generate([ProblemKind(kind="addition", low=1, high=5)], 100, 1, "train"))


def test_low_above_the_kinds_own_high_is_a_clear_error():
    with pytest.raises(RequestError, match="give both"):
        next(generate([ProblemKind(kind="sequence", low=5000)], 1, 1, "train"))


def test_every_kind_of_the_recipe_exists():
    stage_settings = ProblemsStage(kind="problems", train=1, held_out=1)
    assert {kind.kind for kind in stage_settings.kinds} == set(EVERY_KIND)


def test_stage_writes_both_splits_and_reads_them_back(tmp_path):
    config = ProblemsStage(kind="problems", train=50, held_out=20)
    stage.run(config, Inputs(), Workspace(tmp_path, seed=4))
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    assert set(json.loads(lines[0])) == {"id", "kind", "question", "solution", "answer"}
    problems = [Problem(**row) for row in stage.read_problems(tmp_path, "train")]
    assert problems == list(islice(generate(config.kinds, 50, 4, "train"), 50))
    assert len(list(stage.read_problems(tmp_path, "held_out"))) == 20


def test_bare_solutions_are_that_share_and_the_same_problems():
    kinds = [ProblemKind(kind="addition"), ProblemKind(kind="buying")]
    worked = list(generate(kinds, 1000, 1, "train"))
    mixed = list(generate(kinds, 1000, 1, "train", bare=0.3))
    assert [problem.question for problem in mixed] == [problem.question for problem in worked]
    bare = [problem for problem in mixed if "\n" not in problem.solution]
    assert 0.25 < len(bare) / len(mixed) < 0.35
    assert all(problem.solution == f"#### {problem.answer}" for problem in bare)
    assert {problem.solution for problem in mixed} - {problem.solution for problem in bare} <= {
        problem.solution for problem in worked
    }
