"""The named rule sets of curation: small rules with their thresholds, as data.

A rule compares one statistic of a document (`curate/rules/statistics.py` computes them, under the same names) with a
threshold. A recipe names the sets a source goes through and may move any threshold by the rule's name.
"""

from dataclasses import dataclass
from typing import Literal

from glassbox.recipe.extensions import (
    COMMENTED,
    FEW_LETTERS,
    HTML,
    LONG_LINES,
    NO_ALPHANUMERIC,
    SMALL_DATA,
    XML_LANGUAGES,
)


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
        scopes = {language, extension or language}
        return (not self.only or not scopes.isdisjoint(self.only)) and scopes.isdisjoint(self.but)


Row = tuple[str, Literal["min", "max"], float] | tuple[str, Literal["min", "max"], float, tuple[str, ...]]
UNSPACED = ("zh", "yue", "wuu", "ja", "th", "lo", "km", "my", "bo")
"""Languages (codes of fastText's lid.176) that put no spaces between words."""
CHINESE = ("zh", "yue", "wuu")
ENGLISH = ("en", "")
"""English, and texts whose language was not asked for."""


def _rules(prefix: str, *rows: Row, but: tuple[str, ...] = ()) -> tuple[Rule, ...]:
    """Rows of statistic, bound, threshold and, if the rule is of some languages or files alone, which."""
    return tuple(
        Rule(
            f"{prefix}_{row[1]}_{row[0].removeprefix(prefix.removesuffix('_unspaced') + '_')}",
            *row[:3],
            row[3] if len(row) > 3 else (),
            but,
        )
        for row in rows
    )


def _unspaced(prefix: str, *rows: Row) -> tuple[Rule, ...]:
    """Counterparts for languages without spaces between words; named so that their thresholds can be moved alone."""
    scoped = tuple((*row[:3], row[3] if len(row) > 3 else UNSPACED) for row in rows)
    return _rules(f"{prefix}_unspaced", *scoped)


def _gopher_quality(prefix: str) -> tuple[Rule, ...]:
    """arXiv:2112.11446, appendix A1.1, with counterparts for languages without spaces between words (ours).

    A word of English is about 1.6 Chinese characters, so lengths in words are as much longer there; clauses take the
    place of the length of words; Chinese words of grammar that of the English ones.
    """
    words = _rules(
        prefix,
        *(("words", "min", 50), ("words", "max", 100_000)),
        *(("mean_word_length", "min", 3), ("mean_word_length", "max", 10)),
        but=UNSPACED,
    )
    wide = _unspaced(
        prefix,
        *(("words", "min", 80), ("words", "max", 160_000)),
        *(("clause_length", "min", 3), ("clause_length", "max", 60)),
        ("stop_characters", "min", 3, CHINESE),
    )
    shares = _rules(
        prefix,
        *(("hashes_per_word", "max", 0.1), ("ellipses_per_word", "max", 0.1)),
        *(("bullet_lines", "max", 0.9), ("ellipsis_lines", "max", 0.3)),
        *(("alphabetic_words", "min", 0.8), ("stop_words", "min", 2, ENGLISH)),
    )
    return (*words, *wide, *shares)


def _gopher_repetition(prefix: str, columns: str, paragraphs: bool = True) -> tuple[Rule, ...]:
    """arXiv:2112.11446, table A1; columns: which reading's statistics.

    In languages without spaces, where n letters are words of 0.6 n, the limit of 2-grams is that of 3-grams there, and
    so on.
    """
    rows: list[Row] = [(f"{columns}duplicate_lines", "max", 0.3), (f"{columns}duplicate_line_characters", "max", 0.2)]
    if paragraphs:
        rows[1:1] = [(f"{columns}duplicate_paragraphs", "max", 0.3)]
        rows.append((f"{columns}duplicate_paragraph_characters", "max", 0.2))
    grams: list[Row] = [(f"{columns}top_{n}_gram", "max", limit) for n, limit in ((2, 0.20), (3, 0.18), (4, 0.16))]
    grams += [(f"{columns}duplicate_{n}_grams", "max", (20 - n) / 100) for n in range(5, 11)]
    return (
        *_rules(prefix, *rows),
        *_rules(prefix, *grams, but=UNSPACED),
        *_unspaced(
            prefix,
            *((f"{columns}top_3_gram", "max", 0.20), (f"{columns}top_4_gram", "max", 0.18)),
            *((f"{columns}duplicate_8_grams", "max", 0.15), (f"{columns}duplicate_10_grams", "max", 0.14)),
        ),
    )


def _c4(prefix: str, sentences: int) -> tuple[Rule, ...]:
    """arXiv:1910.10683, section 2.2, what it asks of a page; what it asks of a line is among LINE_RULES."""
    return _rules(prefix, ("lorem_ipsum", "max", 0), ("curly_brackets", "max", 0), ("sentences", "min", sentences))


def _fineweb(prefix: str) -> tuple[Rule, ...]:
    """arXiv:2406.17557 and the released filter: the three rules of its own, and newlines per word.

    In languages without spaces a short line has at most 10 characters, and a newline is held against 1.6 times as many
    words.
    """
    return (
        *_rules(prefix, ("terminal_lines", "min", 0.12)),
        *_rules(prefix, ("short_lines", "max", 0.67), ("newlines_per_word", "max", 0.3), but=UNSPACED),
        *_unspaced(prefix, ("short_wide_lines", "max", 0.67), ("newlines_per_word", "max", 0.19)),
        *_rules(prefix, ("repeated_line_characters", "max", 0.01)),
    )


RULE_SETS: dict[str, tuple[Rule, ...]] = {
    "gopher_quality": _gopher_quality("gopher"),
    "gopher_repetition": _gopher_repetition("gopher", ""),
    # The same rules as DCLM's code reads them (arXiv:2406.11794), and as Dolma's taggers do (arXiv:2402.00159).
    "gopher_quality_dclm": (
        *_rules("dclm", ("dclm_words", "min", 50), ("dclm_words", "max", 100_000)),
        *_rules("dclm", ("mean_word_length", "min", 3), ("mean_word_length", "max", 10), but=UNSPACED),
        *_rules("dclm", ("symbols_per_word", "max", 0.1), ("dclm_bullet_lines", "max", 0.9)),
        *_rules("dclm", ("dclm_ellipsis_lines", "max", 0.3), ("alphabetic_words", "min", 0.8)),
        *_rules("dclm", ("stop_words_any_case", "min", 2, ENGLISH)),
    ),
    "gopher_repetition_dclm": _gopher_repetition("dclm", "dclm_"),
    "gopher_quality_dolma": (
        *_rules("dolma", ("words", "min", 50), ("words", "max", 100_000)),
        *_rules("dolma", ("median_word_length", "min", 3), ("median_word_length", "max", 10), but=UNSPACED),
        *_rules("dolma", ("symbol_words", "max", 0.1), ("dolma_bullet_lines", "max", 0.9)),
        *_rules("dolma", ("dolma_ellipsis_lines", "max", 0.3), ("alphabetic_words", "min", 0.8)),
        *_rules("dolma", ("stop_words_exact", "min", 2, ENGLISH)),
    ),
    "gopher_repetition_dolma": _gopher_repetition("dolma", "dolma_", paragraphs=False),
    # The numbers of the TensorFlow data set and DCLM's replica; those of datatrove.
    "c4": (*_rules("c4", ("characters", "max", 190_000)), *_c4("c4", 3)),
    "c4_datatrove": _c4("c4_datatrove", 5),
    "fineweb": _fineweb("fineweb"),
    # arXiv:1910.10683, section 2.2: a page that holds an entry of a list of bad words, which the source names.
    "bad_words": _rules("c4", ("bad_words", "max", 0)),
    # arXiv:2306.01116, appendix G.2: a page that the line rules rob of more than this is none.
    "refinedweb": _rules("refinedweb", ("words_cut", "max", 0.05)),
    # Characters without punctuation, runs of white space as one; 200 letters of English are some 80 Chinese characters.
    "slimpajama": (
        *_rules("slimpajama", ("clean_characters", "min", 200), but=UNSPACED),
        *_unspaced("slimpajama", ("clean_characters", "min", 80)),
    ),
    # arXiv:2409.02060, section 2: no n-gram, n = 1 ... 13, 32 times in succession; no file that is one or two words.
    # Words and characters stand in for the tokens of a tokenizer.
    "repeats": _rules(
        "repeats",
        *(("repeated_words", "max", 31), ("repeated_characters", "max", 31)),
        *(("top_word", "max", 0.3), ("top_two_words", "max", 0.5)),
    ),
    # arXiv:2506.05767, appendix C.2, names families of rules: these are the published ones it builds on, and ours for
    # prompts, pages of differences, and pages whose title or address says that they hold no article.
    "dots": (
        *_rules("dots", ("unwanted_address", "max", 0), ("unwanted_title", "max", 0)),
        *_gopher_quality("dots"),
        *_gopher_repetition("dots", ""),
        *_c4("dots", 5),
        *_fineweb("dots"),
        *_rules("dots", ("words_cut", "max", 0.05), ("prompt_lines", "max", 0.2), ("difference_lines", "max", 0.05)),
    ),
    # The basic filters of The Stack (arXiv:2211.15533) and generated-file markers (arXiv:2402.19173).
    "code": _rules(
        "code",
        *(("generated", "max", 0), ("longest_line", "max", 1000), ("mean_line", "max", 100)),
        *(("alphanumeric", "min", 0.25), ("words", "min", 20)),
    ),
    # arXiv:2305.06161, section 3, and arXiv:2402.19173, section 3.3. What is not known of a file condemns it not. Files
    # of repositories without stars stay unless the threshold is moved (to 6, where stars are used).
    "starcoder": (
        *_rules("starcoder", ("permissive", "min", 1), ("stars", "min", 0), ("data_extension", "max", 0)),
        *_rules("starcoder", ("generated", "max", 0), ("minified", "max", 0)),
        *_rules("starcoder", ("longest_line", "max", 1000), ("mean_line", "max", 100), but=LONG_LINES),
        *_rules("starcoder", ("alphanumeric", "min", 0.25), but=NO_ALPHANUMERIC),
        *_rules("starcoder", ("letters", "min", 0.25, FEW_LETTERS)),
        *_rules("starcoder_data", ("letters", "min", 0.5, SMALL_DATA)),
        *_rules("starcoder", ("characters", "min", 100, SMALL_DATA), ("characters", "max", 5000, SMALL_DATA)),
        *_rules("starcoder", ("xml_header", "max", 0), but=XML_LANGUAGES),
        *_rules("starcoder", ("visible", "min", 0.2, HTML), ("visible_characters", "min", 100, HTML)),
        *_rules("starcoder", ("comments", "min", 0.01, COMMENTED), ("comments", "max", 0.8, COMMENTED)),
        *_rules("starcoder", ("encoded", "max", 0.5), ("longest_encoded", "max", 1024)),
    ),
    # RedPajama's filter of GitHub. Runs of letters, of digits and of signs stand in for tokens; as each holds one token
    # or more, the rule is a little milder.
    "redpajama_code": _rules(
        "redpajama",
        *(("unlisted_extension", "max", 0), ("longest_line", "max", 1000), ("mean_line", "max", 100)),
        *(("alphanumeric", "min", 0.25), ("letters_per_piece", "min", 1.5)),
    ),
    # What OLMoE asks of code beside `repeats` (arXiv:2409.02060, section 2).
    "olmoe_code": _rules("olmoe", ("stars", "min", 2)),
    # Ours, for reference pages: terse, with many short and repeated lines that web rules would condemn.
    "reference": _rules(
        "reference",
        *(("words", "min", 30), ("words", "max", 100_000), ("mean_word_length", "max", 12)),
        *(("alphabetic_words", "min", 0.6), ("stop_words", "min", 2, ENGLISH), ("lorem_ipsum", "max", 0)),
        *(("duplicate_line_characters", "max", 0.5), ("duplicate_10_grams", "max", 0.5)),
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
"""Rules that cut single lines, or parts of lines, of a document (`curate/rules/line_kernel.py`)."""
