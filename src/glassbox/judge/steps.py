"""Calculations written out digit by digit, short enough for a tiny model to learn and for a person to check.

Each function returns lines. A small calculation is one statement ("47+5=52"). A longer one names what is calculated
("47+85"), then works through the columns from the right, each a true statement whose last digit is the column's result
("7+5=12", "4+8+1=13": the 1 is carried), and ends in the whole statement ("47+85=132").
"""


def _columns(number: int, width: int) -> list[int]:
    """The digits of `number` from the right, filled with zeros to `width`."""
    return [int(digit) for digit in reversed(str(number).zfill(width))]


def _whole(expression: str, columns: list[str], result: int, label: str) -> list[str]:
    return [f"{label}{expression}", *columns, f"{expression}={result}"]


def add(a: int, b: int, label: str = "") -> list[str]:
    """a + b for a, b >= 0; column by column when both have two digits or more."""
    if min(a, b) < 10:
        return [f"{label}{a}+{b}={a + b}"]
    width, carry, columns = len(str(max(a, b))), 0, []
    for x, y in zip(_columns(a, width), _columns(b, width), strict=True):
        total = x + y + carry
        columns.append(f"{x}+{y}{'+1' if carry else ''}={total}")
        carry = total // 10
    return _whole(f"{a}+{b}", columns, a + b, label)


def subtract(a: int, b: int, label: str = "") -> list[str]:
    """a - b for a >= b >= 0; column by column when b has two digits or more, ten borrowed where a digit falls short."""
    if b < 10:
        return [f"{label}{a}-{b}={a - b}"]
    width, borrow, columns = len(str(a)), 0, []
    for x, y in zip(_columns(a, width), _columns(b, width), strict=True):
        top = x + 10 if x < y + borrow else x
        columns.append(f"{top}-{y}{'-1' if borrow else ''}={top - y - borrow}")
        borrow = int(top != x)
    return _whole(f"{a}-{b}", columns, a - b, label)


def multiply(a: int, digit: int, label: str = "") -> list[str]:
    """a * digit for a one-digit factor; column by column when a has two digits or more."""
    if a < 10:
        return [f"{label}{a}*{digit}={a * digit}"]
    carry, columns = 0, []
    for x in _columns(a, len(str(a))):
        total = x * digit + carry
        columns.append(f"{x}*{digit}{f'+{carry}' if carry else ''}={total}")
        carry = total // 10
    return _whole(f"{a}*{digit}", columns, a * digit, label)


def divide(a: int, digit: int, label: str = "") -> list[str]:
    """a / digit by long division, each step "dividend=digit*quotient+rest"; the last line holds quotient and rest."""
    steps, rest, started = [], 0, False
    for position, x in enumerate(str(a)):
        current = rest * 10 + int(x)
        rest = current % digit
        started = started or current >= digit or position == len(str(a)) - 1
        if started:
            steps.append(f"{current}={digit}*{current // digit}+{rest}")
    if len(steps) == 1:
        return [f"{label}{steps[0]}"]
    return [f"{label}{a}/{digit}", *steps, f"{a}={digit}*{a // digit}+{rest}"]


def compare(numbers: list[int], largest: bool) -> list[str]:
    """Walk through the numbers keeping the largest (or smallest) so far, one comparison a line."""
    lines, best = [], numbers[0]
    for number in numbers[1:]:
        lines.append(f"{best}{'<' if best < number else '>'}{number}")
        best = max(best, number) if largest else min(best, number)
    return lines
