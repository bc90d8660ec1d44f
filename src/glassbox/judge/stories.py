"""Small word problems of two steps: giving, buying, sharing and comparing.

The first operand of a story with variants is the variant (what is calculated); names, things and wording are drawn when
the story is written and do not count as another problem.
"""

from random import Random

from glassbox.judge import steps
from glassbox.judge.kinds import Kind, Operands, Written, between, pick, two_numbers

NAMES = (
    ("Anna", "she"), ("Ben", "he"), ("Clara", "she"), ("David", "he"), ("Emma", "she"), ("Felix", "he"),
    ("Grace", "she"), ("Henry", "he"), ("Iris", "she"), ("Jack", "he"), ("Kate", "she"), ("Leo", "he"),
    ("Mia", "she"), ("Noah", "he"), ("Olga", "she"), ("Paul", "he"), ("Rosa", "she"), ("Sam", "he"),
    ("Tina", "she"), ("Victor", "he"),
)  # fmt: skip
THINGS = ("apples", "books", "cards", "coins", "cookies", "eggs", "marbles", "pens", "shells", "stamps", "stickers")
PRICED = (("book", "books"), ("cup", "cups"), ("hat", "hats"), ("kite", "kites"), ("lamp", "lamps"), ("toy", "toys"))
NOTES = (10, 20, 50, 100, 200, 500, 1000)
"""What a buyer can pay with, in dollars."""


TEMPLATES: dict[str, tuple[str, ...]] = {
    "give, then get": (
        "{A} has {a} {things}. {He} gives {b} to {B} and then finds {c} more. How many {things} does {A} have now?",
        "There are {a} {things} in a box. {A} takes out {b} and {B} puts in {c}. How many {things} are in the box?",
        "{A} had {a} {things}, lost {b} of them and got {c} new ones. How many {things} does {he} have?",
    ),
    "get, then give": (
        "{A} has {a} {things} and gets {c} more from {B}. Then {he} gives away {b}. How many are left?",
        "There are {a} {things} in a box. {A} puts in {c} and {B} takes out {b}. How many {things} are in the box?",
        "{A} had {a} {things}, found {c} more and sold {b}. How many {things} does {he} have?",
    ),
    "change": (
        "A {one} costs {p} dollars. {A} buys {n} {many} and pays with {q} dollars. How much change is there?",
        "{A} has {q} dollars and buys {n} {many} for {p} dollars each. How many dollars are left?",
    ),
    "total price": (
        "{A} buys {n} {many} for {p} dollars each and a bag for {q} dollars. How many dollars does {he} pay?",
        "A {one} costs {p} dollars and a ticket costs {q} dollars. How much do {n} {many} and one ticket cost?",
    ),
    "share": (
        "{A} has {a} {things} and {B} has {b}. They share them equally among {n} children. How many does each get?",
        "{A} picks {a} {things} and then {b} more. {He} fills {n} bags equally. How many are in a bag?",
        "{a} {things} and another {b} are packed into {n} equal boxes. How many {things} are in each box?",
    ),
    "more": (
        "{A} has {a} {things}. {B} has {b} more than {A}. How many {things} do they have together?",
        "{A} finds {a} {things} and {B} finds {b} more than {A}. How many {things} do they find in all?",
    ),
    "fewer": (
        "{A} has {a} {things}. {B} has {b} fewer than {A}. How many {things} do they have together?",
        "{A} finds {a} {things} and {B} finds {b} fewer than {A}. How many {things} do they find in all?",
    ),
    "times": (
        "{A} has {a} {things}. {B} has {b} times as many. How many {things} do they have together?",
        "{A} finds {a} {things} and {B} finds {b} times as many. How many {things} do they find in all?",
    ),
}


def _words(rng: Random) -> dict[str, str]:
    """Two people and things to fill templates with: A, he (A's pronoun), He, B, things, one, many."""
    (a, he), thing, priced = pick(rng, NAMES), pick(rng, THINGS), pick(rng, PRICED)
    b = pick(rng, [name for name, _ in NAMES if name != a])
    return {"A": a, "he": he, "He": he.capitalize(), "B": b, "things": thing, "one": priced[0], "many": priced[1]}


def _ask(rng: Random, template: str, **numbers: int) -> str:
    return pick(rng, TEMPLATES[template]).format(**_words(rng), **numbers)


def _draw_giving(rng: Random, low: int, high: int) -> Operands | None:
    """(variant, start, given away, received), always with something left."""
    less, start = two_numbers(rng, low, high)
    more = between(rng, low, high)
    return (int(rng.random() < 0.5), start, less, more) if less < start else None


def _giving(rng: Random, operands: Operands) -> Written:
    variant, a, b, c = operands
    if variant == 0:
        lines = [*steps.subtract(a, b, "Left: "), *steps.add(a - b, c, "Now: ")]
    else:
        lines = [*steps.add(a, c, "Then: "), *steps.subtract(a + c, b, "Now: ")]
    question = _ask(rng, ("give, then get", "get, then give")[variant], a=a, b=b, c=c)
    return Written(question, lines, a - b + c)


def _draw_buying(rng: Random, low: int, high: int) -> Operands | None:
    """(0, pieces, price, paid) asks for the change, (1, pieces, price, another price) for the total."""
    pieces, price = between(rng, 2, 9), between(rng, low, high)
    if rng.random() < 0.5:
        return 1, pieces, price, between(rng, low, high)
    enough = [note for note in NOTES if note > pieces * price][:2]
    return (0, pieces, price, pick(rng, enough)) if enough else None


def _buying(rng: Random, operands: Operands) -> Written:
    variant, n, p, q = operands
    question = _ask(rng, ("change", "total price")[variant], n=n, p=p, q=q)
    cost = n * p
    lines = steps.multiply(p, n, "Cost: ")
    if variant == 0:
        return Written(question, [*lines, *steps.subtract(q, cost, "Left: ")], q - cost)
    return Written(question, [*lines, *steps.add(cost, q, "Total: ")], cost + q)


def _draw_sharing(rng: Random, low: int, high: int) -> Operands:
    """(part, other part, children): the parts add up to children times a number in the range."""
    children = between(rng, 2, 9)
    total = children * between(rng, max(2, low), high)
    part = between(rng, 2, total - 2)
    return (*sorted((part, total - part)), children)


def _sharing(rng: Random, operands: Operands) -> Written:
    *parts, n = operands
    a, b = parts if rng.random() < 0.5 else parts[::-1]
    lines = [*steps.add(a, b, "Total: "), *steps.divide(a + b, n, "Each: ")]
    return Written(_ask(rng, "share", a=a, b=b, n=n), lines, (a + b) // n)


def _draw_comparing(rng: Random, low: int, high: int) -> Operands | None:
    """(variant, number, other): the second person has other more (0), other fewer (1) or other times as many (2)."""
    variant = pick(rng, (0, 1, 2))
    if variant == 2:
        return variant, between(rng, low, high), between(rng, 2, 5)
    other, number = between(rng, low, high), between(rng, low, high)
    return (variant, number, other) if variant == 0 or other < number else None


def _comparing(rng: Random, operands: Operands) -> Written:
    variant, a, b = operands
    second = (steps.add, steps.subtract, steps.multiply)[variant](a, b, "Second: ")
    count = (a + b, a - b, a * b)[variant]
    question = _ask(rng, ("more", "fewer", "times")[variant], a=a, b=b)
    return Written(question, [*second, *steps.add(a, count, "Total: ")], a + count)


STORIES: dict[str, Kind] = {
    "giving": Kind(2, 99, _draw_giving, _giving),
    "buying": Kind(2, 99, _draw_buying, _buying),
    "sharing": Kind(2, 30, _draw_sharing, _sharing),
    "comparing": Kind(2, 99, _draw_comparing, _comparing),
}
