"""A small exact grader: one candidate is taken from the reply, read as a number and compared exactly.

Numbers are integers, decimals, fractions (3/4, \\frac{3}{4}) and percents, with optional sign, dollar sign and
thousands separators. Work is bounded on any input: only the end of a reply is read, a candidate has at most `LONGEST`
characters, and nothing is evaluated (no powers, no exponents).
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

TAIL = 20_000
"""Characters at the end of a reply that are read."""
LONGEST = 100
"""Longest candidate in characters that can be right."""

_UNSIGNED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?"
_NUMBER = re.compile(rf"([+-]?)\$?({_UNSIGNED})(?:/({_UNSIGNED}))?(%?)")
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_ANSWER_IS = re.compile(r"answer is:?\s{0,3}([+-]?\$?(?:[0-9,./]{0,99}[0-9])%?)", re.IGNORECASE)
_OPENINGS = 16
"""Openings of \\boxed{ at the end of a reply that are tried."""


@dataclass(frozen=True)
class Verdict:
    """What the grader found. `score` is 1.0 or 0.0, and None only when the grader itself could not judge (`error`)."""

    score: float | None
    extracted: str | None
    """The candidate as it stood in the reply."""
    status: Literal["ok", "no_answer", "error"]


def verify(*, gold: str, reply: str) -> Verdict:
    """Grade a reply against the right answer. Text before the last "</think>" does not count.

    The candidate is what follows the last "####" on its line, else the content of the last balanced \\boxed{}, else
    the number after the last "answer is". A reply without one scores 0 with status no_answer; a gold answer that is
    empty or too long gives `error`.
    """
    right = _normal(gold)
    if not right or len(right) > LONGEST:
        return Verdict(None, None, "error")
    candidate = extract(reply)
    if candidate is None:
        return Verdict(0.0, None, "no_answer")
    return Verdict(float(_same(right, _normal(candidate))), candidate, "ok")


def extract(reply: str) -> str | None:
    """The one candidate answer of a reply, or None."""
    text = reply[-TAIL:].rpartition("</think>")[2]
    _, marker, rest = text.rpartition("####")
    line = rest.partition("\n")[0].strip()
    if marker and line:
        return line
    boxed = _last_boxed(text)
    if boxed:
        return boxed
    found = _ANSWER_IS.findall(text)
    return found[-1] if found else None


def number(text: str) -> Fraction | None:
    """The exact value of a number as people write it, or None."""
    text = _FRACTION.sub(r"\1/\2", text)
    match = _NUMBER.fullmatch(text)
    if match is None or not match[2] or match[3] == "":
        return None
    top, bottom = Fraction(match[2].replace(",", "")), Fraction((match[3] or "1").replace(",", ""))
    if bottom == 0:
        return None
    value = top / bottom / (100 if match[4] else 1)
    return -value if match[1] == "-" else value


def _same(right: str, candidate: str) -> bool:
    if len(candidate) > LONGEST:
        return False
    a, b = number(right), number(candidate)
    return right == candidate if a is None or b is None else a == b


def _normal(text: str) -> str:
    """Without white space at the ends, dollar signs around, escaped percent signs and a full stop at the end."""
    text = text[: 2 * LONGEST].strip().strip("$").replace("\\%", "%").replace("\\$", "$")
    return text.rstrip(".").strip()


def _last_boxed(text: str) -> str | None:
    """The content of the last \\boxed{...} whose braces balance within a candidate's bounds."""
    end = len(text)
    for _ in range(_OPENINGS):
        opening = text.rfind("\\boxed{", 0, end)
        if opening < 0:
            return None
        content = _balanced(text, opening + len("\\boxed{"))
        if content:
            return content
        end = opening
    return None


def _balanced(text: str, start: int) -> str | None:
    """From `start`, just after an opening brace, up to the brace that closes it."""
    depth = 1
    for end in range(start, min(len(text), start + 2 * LONGEST)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start:end].strip()
    return None
