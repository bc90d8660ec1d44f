"""Line rules, repeated spans, shared head and foot lines."""

import pytest

from glassbox.curate.lines import CUTS, cut_edges, cut_lines, cut_repeats, edge_hashes
from glassbox.recipe.rules import LINE_RULES

CASES = {
    "long_word": ("x" * 1001 + " tail", "x" * 1000 + " tail"),
    "javascript": ("Please enable JavaScript now.", "Please enable scripts now."),
    "policy": ("See our Privacy Policy.", "See our policy on privacy."),
    "terminal": ("No end", 'An end."'),
    "few_words": ("Two words.", "Three whole words."),
    "upper_case": ("SHOUTING loud", "Hardly Shouting"),
    "digits": ("2024", "2024 was a year"),
    "counter": ("1,204 Likes", "I have 3 likes to give"),
    "bare_path": ("/usr/lib/python3/os.py", "see /usr/lib"),
}


def test_every_rule_a_recipe_may_name_exists() -> None:
    assert set(CUTS) | {"repeated"} == set(LINE_RULES)
    assert set(CASES) == set(CUTS)


@pytest.mark.parametrize("rule", CASES)
def test_each_rule_cuts_its_line_and_leaves_its_neighbour(rule: str) -> None:
    gone, stays = CASES[rule]
    assert cut_lines(f"{gone}\n\n{stays}", (rule,)) == (stays, [1])


def test_a_line_ending_in_an_ellipsis_is_no_sentence() -> None:
    assert CUTS["terminal"]("And so on...")


def test_counts_go_to_the_first_rule_that_asks() -> None:
    text = "2024\nA whole sentence here.\nhttp://x/y"
    assert cut_lines(text, ("few_words", "digits", "bare_path")) == ("A whole sentence here.", [2, 0, 0])


def test_repeated_spans_of_three_lines_are_cut_once_seen() -> None:
    inherited = "f(x)\n  does f\n  returns y"
    text = f"class A\n{inherited}\nclass B\n{inherited}\nclass C\nf(x)\n  does f\n  but not y"
    kept, cut = cut_repeats(text)
    assert kept == f"class A\n{inherited}\nclass B\nclass C\nf(x)\n  does f\n  but not y"
    assert cut == 3
    assert cut_lines(text, ("repeated", "few_words"))[1][0] == 3


def test_blank_lines_do_not_hide_a_repeat() -> None:
    assert cut_repeats("a\nb\nc\n\na\n\nb\nc\nend") == ("a\nb\nc\n\nend", 3)


def test_shared_edge_lines_are_cut_only_at_the_edges() -> None:
    page = "Menu\n***\nTitle\n" + "\n".join(f"line {i}" for i in range(10)) + "\nMenu\nbody\nmore\nFooter"
    shared = frozenset(edge_hashes("Menu\nFooter", 5))
    text, cut = cut_edges(page, 2, shared)
    assert cut == 2
    assert text.startswith("***\nTitle")
    assert text.endswith("Menu\nbody\nmore")


def test_edges_of_a_short_text_are_counted_once_and_symbols_never() -> None:
    assert len(edge_hashes("a\n---\nb\na", 5)) == 2
