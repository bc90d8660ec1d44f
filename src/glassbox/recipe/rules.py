"""The named rule sets of curation: small rules with their thresholds, as data.

A rule compares one statistic of a document (`curate/statistics.py` computes them, under the same names) with a
threshold. A recipe names the sets a source goes through and may move any threshold by the rule's name.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Rule:
    """Keep a document if `statistic` is at least (`min`) or at most (`max`) `threshold`."""

    name: str
    statistic: str
    bound: Literal["min", "max"]
    threshold: float
    only: tuple[str, ...] = ()
    """Language codes ("zh"; "" where none was asked for) or file extensions (".py") it is asked of; default all."""
    but: tuple[str, ...] = ()
    """Language codes or file extensions it is not asked of."""

    def holds_for(self, language: str, extension: str) -> bool:
        """Whether it is asked of a document in that language whose path has that extension."""
        scopes = (language, extension)
        return (not self.only or any(one in self.only for one in scopes)) and not any(one in self.but for one in scopes)


def _rules(prefix: str, *rows: tuple[str, Literal["min", "max"], float]) -> tuple[Rule, ...]:
    return tuple(Rule(f"{prefix}_{bound}_{statistic}", statistic, bound, value) for statistic, bound, value in rows)


RULE_SETS: dict[str, tuple[Rule, ...]] = {
    # arXiv:2112.11446, appendix A1.1. Words are split at white space.
    "gopher_quality": _rules(
        "gopher",
        ("words", "min", 50),
        ("words", "max", 100_000),
        ("mean_word_length", "min", 3),
        ("mean_word_length", "max", 10),
        ("hashes_per_word", "max", 0.1),
        ("ellipses_per_word", "max", 0.1),
        ("bullet_lines", "max", 0.9),
        ("ellipsis_lines", "max", 0.3),
        ("alphabetic_words", "min", 0.8),
        ("stop_words", "min", 2),
    ),
    # arXiv:2112.11446, table A1.
    "gopher_repetition": _rules(
        "gopher",
        ("duplicate_lines", "max", 0.3),
        ("duplicate_paragraphs", "max", 0.3),
        ("duplicate_line_characters", "max", 0.2),
        ("duplicate_paragraph_characters", "max", 0.2),
        ("top_2_gram", "max", 0.20),
        ("top_3_gram", "max", 0.18),
        ("top_4_gram", "max", 0.16),
        ("duplicate_5_grams", "max", 0.15),
        ("duplicate_6_grams", "max", 0.14),
        ("duplicate_7_grams", "max", 0.13),
        ("duplicate_8_grams", "max", 0.12),
        ("duplicate_9_grams", "max", 0.11),
        ("duplicate_10_grams", "max", 0.10),
    ),
    # arXiv:1910.10683, section 2.2, what it asks of a page; what it asks of a line is in curate/lines.py.
    "c4": _rules(
        "c4",
        ("characters", "max", 190_000),
        ("lorem_ipsum", "max", 0),
        ("curly_brackets", "max", 0),
        ("sentences", "min", 3),
    ),
    # arXiv:2406.17557 and the released filter: the three rules of its own, and newlines per word.
    "fineweb": _rules(
        "fineweb",
        ("terminal_lines", "min", 0.12),
        ("short_lines", "max", 0.67),
        ("repeated_line_characters", "max", 0.01),
        ("newlines_per_word", "max", 0.3),
    ),
    # The basic filters of The Stack (arXiv:2211.15533) and generated-file markers (arXiv:2402.19173).
    "code": _rules(
        "code",
        ("generated", "max", 0),
        ("longest_line", "max", 1000),
        ("mean_line", "max", 100),
        ("alphanumeric", "min", 0.25),
        ("words", "min", 20),
    ),
    # Ours, for reference pages: terse, with many short and repeated lines that web rules would condemn.
    "reference": _rules(
        "reference",
        ("words", "min", 30),
        ("words", "max", 100_000),
        ("mean_word_length", "max", 12),
        ("alphabetic_words", "min", 0.6),
        ("stop_words", "min", 2),
        ("lorem_ipsum", "max", 0),
        ("duplicate_line_characters", "max", 0.5),
        ("duplicate_10_grams", "max", 0.5),
    ),
}
"""Name of a rule set -> its rules, in the order they are asked; the first that fails is the one recorded."""

LINE_RULES: tuple[str, ...] = (
    "repeated",
    "long_word",
    "javascript",
    "policy",
    "terminal",
    "terminal_tfds",
    "few_words",
    "few_words_5",
    "citations",
    "upper_case",
    "digits",
    "counter",
    "one_word",
    "cart",
    "read_more",
    "sign_in",
    "prompt",
    "bare_path",
)
"""Rules that cut single lines, or parts of lines, of a document (`curate/line_kernel.py`)."""
