"""The statistics that rules compare with thresholds: one row for each document, one pass over a batch.

Conventions. Words are split at white space; of a script without spaces between words (Chinese, Japanese, Thai, Lao,
Tibetan, Burmese, Khmer) each letter is a word. Lines are split at newlines, stripped, and counted if not empty;
paragraphs are split at blank lines. A share is between 0 and 1; a share of nothing is 0. Of lines, paragraphs and
n-grams the second and later copies count as duplicates. Repetition follows datatrove's reading of arXiv:2112.11446,
table A1: characters are those of the whole text, the most frequent n-gram is joined by spaces (the earliest of equals),
and duplicate n-grams are found by a walk that jumps over what it has counted. The columns `dclm_...` and `dolma_...`
hold those two systems' readings, where they differ; docs/curation.md has the table.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from glassbox.curate.characters import character_tables, utf8_buffer
from glassbox.curate.edits import Cut
from glassbox.curate.rules.code import CODE_COLUMNS, code_statistics
from glassbox.curate.rules.lines import words_cut
from glassbox.curate.rules.pages import PAGE_COLUMNS, holds_bad_word, page_statistics
from glassbox.curate.rules.statistics_kernel import KERNEL_COLUMNS, RUN_COLUMNS, VARIANT_COLUMNS, kernel
from glassbox.recipe.rules import RULE_SETS

EXTRA_COLUMNS = ("lorem_ipsum", "generated", "words_cut", "bad_words")
STATISTICS = (*KERNEL_COLUMNS, *EXTRA_COLUMNS, *PAGE_COLUMNS, *CODE_COLUMNS)
"""Names of the columns of `statistics`, in order."""

GENERATED = (
    r"(?i)auto-?\s?generated|automatically generated|generated (automatically|from)|generated file"
    r"|(file|code|module|table)s? (is|are|was|were) generated|do not (edit|modify)"
)
"""Marks of a generated file, looked for in its first five lines (arXiv:2402.19173 looks there too)."""
HEAD = r"^(?:[^\n]*\n){0,4}[^\n]*"
HEAD_CHARACTERS = 2000


def statistics(
    text: pa.Array,
    meta: Sequence[str] = (),
    cuts: Sequence[list[Cut]] = (),
    sets: Sequence[str] | None = None,
    bad_words: tuple[str, ...] = (),
    urls: Sequence[str] = (),
) -> NDArray[np.float32]:
    """(documents,) large_string without nulls -> (documents, len(STATISTICS)) float32.

    meta, urls: each document's columns of these names; cuts: what its cleaning cut; sets: the rule sets whose
    statistics are wanted, by default all; bad_words: the list for the set of that name. What cannot be known without
    them, and groups of columns that no wanted set reads, are NaN.
    """
    wanted = set(STATISTICS)
    if sets is not None:
        wanted = {rule.statistic for name in sets for rule in RULE_SETS[name]}
    data, offsets = utf8_buffer(text)
    main = np.zeros((len(text), len(KERNEL_COLUMNS)), np.float32)
    variants, runs = (bool(wanted & set(columns)) for columns in (VARIANT_COLUMNS, RUN_COLUMNS))
    kernel(data, offsets, *character_tables(), variants, runs, main)
    for measured, columns in ((variants, VARIANT_COLUMNS), (runs, RUN_COLUMNS)):
        if not measured:
            main[:, [KERNEL_COLUMNS.index(name) for name in columns]] = np.nan
    extra = np.full((len(text), len(EXTRA_COLUMNS)), np.nan, np.float32)
    if "lorem_ipsum" in wanted:
        extra[:, 0] = pc.count_substring(text, "lorem ipsum", ignore_case=True).to_numpy(zero_copy_only=False)
    if "generated" in wanted:
        heads = pc.extract_regex(pc.utf8_slice_codeunits(text, 0, HEAD_CHARACTERS), f"(?P<head>{HEAD})")
        found = pc.match_substring_regex(pc.struct_field(heads, "head"), GENERATED)
        extra[:, 1] = found.to_numpy(zero_copy_only=False)
    if "words_cut" in wanted and len(cuts):
        extra[:, 2] = words_cut(text, list(cuts))
    if "bad_words" in wanted and bad_words:
        extra[:, 3] = holds_bad_word(text, bad_words)
    pages, code = (np.full((len(text), len(columns)), np.nan, np.float32) for columns in (PAGE_COLUMNS, CODE_COLUMNS))
    if wanted & set(PAGE_COLUMNS):
        pages = page_statistics(text, meta, urls)
    if wanted & set(CODE_COLUMNS):
        code = code_statistics(text, meta)
    return np.concatenate([main, extra, pages, code], 1)
