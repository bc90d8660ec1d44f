"""Common Crawl documents with statistics that another implementation published: ours agree, under its definitions.

Not reproduced, because they need what the rules do not: the perplexity of a KenLM model, bad words (a list of theirs),
personal data, and sentences as a trained splitter counts them (ours agree with it in rank only).
"""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glassbox.curate.rules.statistics import STATISTICS, statistics


@pytest.fixture(scope="module")
def published(data: Path) -> pa.Table:
    return pq.read_table(data / "cc_annotated" / "cc_100_docs.parquet")


@pytest.fixture(scope="module")
def ours(published: pa.Table) -> dict[str, np.ndarray]:
    text = published["contents"].combine_chunks()
    return dict(zip(STATISTICS, statistics(text).T.astype(float), strict=True))


@pytest.mark.parametrize(
    ("theirs", "column"),
    [
        ("docq_total_words", "words"),
        ("docq_mean_word_len", "mean_word_length"),
        ("docq_alphabet_word_ratio", "alphabetic_words"),
    ],
)
def test_columns_of_the_same_definition_are_equal(
    published: pa.Table, ours: dict[str, np.ndarray], theirs: str, column: str
) -> None:
    # One document quotes Thai, whose words they count by spaces and we by letters.
    spaced = np.array([re.search("[\u0e00-\u0e7f]", one) is None for one in published["contents"].to_pylist()])
    assert spaced.sum() == 99
    assert ours[column][spaced] == pytest.approx(published[theirs].to_numpy()[spaced], rel=1e-5)


def test_counts_over_characters_follow_from_columns(published: pa.Table, ours: dict[str, np.ndarray]) -> None:
    closing = np.array([text.count("}") for text in published["contents"].to_pylist()])
    assert ours["lorem_ipsum"] / ours["characters"] == pytest.approx(published["docq_lorem_ipsum_ratio"].to_numpy())
    assert (ours["curly_brackets"] + closing) / ours["characters"] == pytest.approx(
        published["docq_curly_bracket_ratio"].to_numpy(), rel=1e-4
    )


def test_two_common_words_are_found_where_they_were(published: pa.Table, ours: dict[str, np.ndarray]) -> None:
    assert (ours["stop_words"] >= 2).tolist() == published["docq_contain_common_en_words"].to_pylist()


def test_shares_of_lines_are_theirs_without_the_marks_they_do_not_know(
    published: pa.Table, ours: dict[str, np.ndarray]
) -> None:
    """They split at every newline, know the bullets - and * alone, and three dots alone as an ellipsis."""
    text = [one.split("\n") for one in published["contents"].to_pylist()]
    bullets = [sum(line.startswith(("-", "*")) for line in lines) / len(lines) for lines in text]
    dots = [sum(line.endswith("...") for line in lines) / len(lines) for lines in text]
    assert published["docq_bullet_point_ratio"].to_pylist() == pytest.approx(bullets)
    assert published["docq_ellipsis_line_ratio"].to_pylist() == pytest.approx(dots)
    assert ours["dolma_bullet_lines"] == pytest.approx(bullets)
    assert (ours["ellipsis_lines"] >= np.array(dots) - 1e-6).all()


def test_words_with_symbols_are_theirs_with_three_dots(published: pa.Table, ours: dict[str, np.ndarray]) -> None:
    """They count words that hold # or three dots; Dolma's reading (`symbol_words`), those that hold # or …."""
    words = [one.split() for one in published["contents"].to_pylist()]
    held = [sum("#" in word or "..." in word for word in one) / len(one) for one in words]
    assert published["docq_symbol_to_word_ratio"].to_pylist() == pytest.approx(held)
    without = [not any("..." in word or "…" in word for word in one) for one in words]
    assert ours["symbol_words"][without] == pytest.approx(np.array(held)[without])


def test_sentences_agree_in_rank(published: pa.Table, ours: dict[str, np.ndarray]) -> None:
    ranks = [np.argsort(np.argsort(one)) for one in (ours["sentences"], published["docq_sentence_count"].to_numpy())]
    assert np.corrcoef(*ranks)[0, 1] > 0.9
