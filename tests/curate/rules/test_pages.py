"""The families of rules that dots.llm1 adds: prompts, differences, titles, addresses; and cuts that condemn."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from glassbox.curate.rules.lines import cut_lines
from glassbox.curate.rules.pages import holds_bad_word, page_statistics
from glassbox.curate.rules.statistics import STATISTICS, statistics
from glassbox.curate.rules.verdicts import Verdicts, judge_statistics
from glassbox.recipe.sources import Source


def row(text: str, url: str = "", **meta: str) -> list[float]:
    return page_statistics(pa.array([text], pa.large_string()), [json.dumps(meta)], [url])[0].tolist()


def test_prompts_and_differences_are_shares_of_lines() -> None:
    text = (
        "Sign up for our newsletter\n\n扫码关注公众号\n@@ -1,2 +1,2 @@\nRevision as of 12:00, 1 May\nA line of prose.\n"
    )
    assert row(text)[:2] == pytest.approx([2 / 5, 2 / 5])
    long = "You can log in to the old system by telnet, as people did for years before anyone had a browser at home."
    assert row(long)[0] == 0


@pytest.mark.parametrize("title", ["404 Not Found", "Page not found | Site", "Log in", "登录 - 论坛", "Index of /pub"])
def test_titles_of_pages_without_an_article(title: str) -> None:
    assert row("x", title=title)[2] == 1


@pytest.mark.parametrize("title", ["4040 days at sea", "Logging in the taiga", "The login of the future", "首页设计"])
def test_titles_of_articles(title: str) -> None:
    assert row("x", title=title)[2] == 0


@pytest.mark.parametrize(
    ("url", "unwanted"),
    [
        ("https://a.org/login?next=/", 1),
        ("https://a.org/w/index.php?title=X&action=edit", 1),
        ("https://a.org/w/index.php?title=X&diff=3&oldid=2", 1),
        ("https://github.com/a/b/commit/abc", 1),
        ("https://a.org/search?q=x", 1),
        ("https://a.org/research/cartography", 0),
        ("https://a.org/2019/05/logins-explained", 0),
        ("https://a.org/" + "?" * 1_000_000, 0),
    ],
)
def test_addresses(url: str, unwanted: int) -> None:
    assert row("x", url=url)[3] == unwanted


def test_what_is_not_known_is_not_a_number() -> None:
    assert np.isnan(row("x")[2:]).all()
    assert np.isnan(page_statistics(pa.array(["x"], pa.large_string()))[0, 2:]).all()


def test_a_page_that_loses_a_twentieth_of_its_words_goes() -> None:
    prose = "\n".join(f"This is sentence number {i} of a page about nothing at all." for i in range(10))
    texts = pa.array([prose + "\nHome\nMENU BAR\n" * 4, prose + "\nHome"], pa.large_string())
    edited, cuts = cut_lines(texts, ("upper_case", "one_word"))
    values = statistics(edited, cuts=cuts, sets=("refinedweb",))
    assert values[:, STATISTICS.index("words_cut")] == pytest.approx([12 / 132, 1 / 121])
    verdicts = Verdicts.kept(2)
    judge_statistics(
        *(verdicts, values, [""] * 2, np.array(["en"] * 2, object)),
        Source(name="s", format="text", path="x", rules=("refinedweb",)),
    )
    assert verdicts.rule.tolist() == ["refinedweb_max_words_cut", ""]


def test_columns_of_sets_that_are_not_wanted_are_not_computed() -> None:
    texts = pa.array(["some words here"], pa.large_string())
    some, every = statistics(texts, sets=("gopher_quality",))[0], statistics(texts)[0]
    known = ~np.isnan(some)
    assert np.array_equal(some[known], every[known])
    assert not known[STATISTICS.index("dclm_top_2_gram")]
    assert known[STATISTICS.index("top_2_gram")]


def test_bad_words_stand_alone_but_in_chinese(data: Path) -> None:
    texts = ["What an Ass he is", "Classes of bass", "grand ass-ault", "一个混蛋在这里", "", "hot dog!", "hot dogs"]
    found = holds_bad_word(pa.array(texts, pa.large_string()), ("ass", "混蛋", "Hot dog", "x", ""))
    assert found.tolist() == [1, 0, 1, 1, 0, 1, 0]
    entries = tuple((data / "bad_word_lists" / "en.txt").read_text(encoding="utf-8").split("\n"))
    page = "The committee met on Tuesday to discuss the budget of the library and the roof of the school. " * 200
    held = statistics(pa.array([page, f"{page} {entries[7]}."], pa.large_string()), bad_words=entries)
    assert held[:, STATISTICS.index("bad_words")].tolist() == [0, 1]
