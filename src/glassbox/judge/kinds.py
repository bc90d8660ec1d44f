"""The kinds of bare arithmetic: what is drawn, how it is asked, how it is worked out.

A kind is data: a default range, `draw` (numbers in a canonical order, so that the same problem asked in another way has
the same operands; None where the draw is no problem) and `write` (operands -> question, reasoning lines, answer).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from glassbox.judge import steps

Operands = tuple[int, ...]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Written:
    """A problem in words."""

    question: str
    lines: list[str]
    """The reasoning, one statement a line."""
    answer: int


@dataclass(frozen=True)
class Kind:
    """One kind of problem."""

    low: int
    high: int
    draw: Callable[[Random, int, int], Operands | None]
    write: Callable[[Random, Operands], Written]


def pick(rng: Random, items: Sequence[Item]) -> Item:
    """A uniform choice. Only `Random.random()` is used throughout: Python fixes its values for all versions."""
    return items[int(rng.random() * len(items))]


def between(rng: Random, low: int, high: int) -> int:
    """A number in [low, high]: first its count of digits, uniformly, then its value, so that short and long numbers
    (easy and hard problems) are equally common."""
    digits = pick(rng, range(len(str(low)), len(str(high)) + 1))
    first, last = max(low, 10 ** (digits - 1)), min(high, 10**digits - 1)
    return first + int(rng.random() * (last - first + 1))


def two_numbers(rng: Random, low: int, high: int) -> Operands:
    return tuple(sorted((between(rng, low, high), between(rng, low, high))))


def _two_different(rng: Random, low: int, high: int) -> Operands | None:
    a, b = two_numbers(rng, low, high)
    return (b, a) if a != b else None


def _number_and_digit(rng: Random, low: int, high: int) -> Operands:
    return between(rng, low, high), between(rng, 2, 9)


def _progression(rng: Random, low: int, high: int) -> Operands | None:
    """First number and step; a falling progression has a negative step and stays above zero."""
    start, step = between(rng, low, high), between(rng, 2, 30)
    if rng.random() < 0.5:
        return start, step
    return (start, -step) if start > 4 * step else None


def _three_and_direction(rng: Random, low: int, high: int) -> Operands | None:
    numbers = sorted({between(rng, low, high) for _ in range(3)})
    return (int(rng.random() < 0.5), *numbers) if len(numbers) == 3 else None


def _addition(rng: Random, operands: Operands) -> Written:
    a, b = operands if rng.random() < 0.5 else operands[::-1]
    question = pick(rng, ("What is {a} + {b}?", "Add {a} and {b}.", "What is the sum of {a} and {b}?", "{a} + {b} = ?"))
    return Written(question.format(a=a, b=b), steps.add(a, b), a + b)


def _subtraction(rng: Random, operands: Operands) -> Written:
    a, b = operands
    question = pick(
        rng,
        ("What is {a} - {b}?", "Subtract {b} from {a}.", "What is {a} minus {b}?", "Take {b} away from {a}."),
    )
    return Written(question.format(a=a, b=b), steps.subtract(a, b), a - b)


def _multiplication(rng: Random, operands: Operands) -> Written:
    a, b = operands
    question = pick(rng, ("What is {a} * {b}?", "What is {a} times {b}?", "Multiply {a} by {b}."))
    return Written(question.format(a=a, b=b), steps.multiply(a, b), a * b)


def _remainder(rng: Random, operands: Operands) -> Written:
    a, b = operands
    question = pick(
        rng,
        (
            "What is the remainder when {a} is divided by {b}?",
            "Divide {a} by {b}. What is left over?",
            "What is {a} modulo {b}?",
        ),
    )
    return Written(question.format(a=a, b=b), steps.divide(a, b), a % b)


def _sequence(rng: Random, operands: Operands) -> Written:
    start, step = operands
    terms = [start + step * i for i in range(4)]
    question = pick(
        rng,
        ("What number comes next: {terms}?", "Continue the sequence {terms}.", "Which number follows {terms}?"),
    )
    first, second, last = terms[0], terms[1], terms[3]
    if step > 0:
        lines = [*steps.subtract(second, first), *steps.add(last, step)]
    else:
        lines = [*steps.subtract(first, second), *steps.subtract(last, -step)]
    return Written(question.format(terms=", ".join(map(str, terms))), lines, last + step)


def _comparison(rng: Random, operands: Operands) -> Written:
    largest, numbers = bool(operands[0]), list(operands[1:])
    order = pick(rng, ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)))
    shown = [numbers[i] for i in order]
    question = pick(rng, ("Which number is the {word}: {shown}?", "Find the {word} of {shown}."))
    return Written(
        question.format(word="largest" if largest else "smallest", shown=", ".join(map(str, shown))),
        steps.compare(shown, largest),
        numbers[-1] if largest else numbers[0],
    )


KINDS: dict[str, Kind] = {
    "addition": Kind(10, 999, two_numbers, _addition),
    "subtraction": Kind(10, 999, _two_different, _subtraction),
    "multiplication": Kind(10, 999, _number_and_digit, _multiplication),
    "remainder": Kind(10, 999, _number_and_digit, _remainder),
    "sequence": Kind(1, 199, _progression, _sequence),
    "comparison": Kind(10, 999, _three_and_direction, _comparison),
}
