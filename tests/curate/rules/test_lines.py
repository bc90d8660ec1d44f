"""Line rules against a plain reading with regular expressions; every cut in place; shared head and foot lines."""

import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.curate.edits import Cut
from glassbox.curate.rules.lines import EDGE_RULE, count_words, cut_edges, cut_lines, edge_hashes, words_cut
from glassbox.curate.rules.phrases import COUNTED, POLICIES, PROMPTS
from glassbox.recipe.rules import LINE_RULES

CASES = {
    "long_word": ("x" * 1001 + " tail", "x" * 1000 + " tail"),
    "javascript": ("Please enable JavaScript now.", "Please enable scripts now."),
    "policy": ("See our Privacy Policy.", "See our policy on privacy."),
    "terminal": ("And so on...", "An end, isn't it?'"),
    "terminal_tfds": ("An end, isn't it?'", 'An end."'),
    "few_words": ("Two words.", "Three whole words."),
    "few_words_5": ("One two three four", "One two three four five"),
    "upper_case": ("SHOUTING loud", "Hardly Shouting"),
    "digits": ("2024", "2024 was a year"),
    "counter": ("1,204 Likes", "I have 3 likes to give"),
    "one_word": ("Home", "At home"),
    "prompt": ("Sign up for our free newsletter!", "The ship came in at dawn."),
    "bare_path": ("/usr/lib/python3/os.py", "see /usr/lib"),
}
CHINESE = {
    "long_word": ("x" * 1001 + "中文", "中" * 1500),
    "terminal": ("没有句号", "有句号。”"),
    "terminal_tfds": ("没有……", "真的吗？"),
    "few_words": ("首页", "首页上"),
    "few_words_5": ("首页导航", "首页的导航"),
    "one_word": ("好", "好的"),
    "prompt": ("登录后查看更多内容", "他昨天登上了那座山。"),
}
INLINE = {
    "citations": ("As shown[12] before[edit] and[citation needed] now[].", "As shown before and now."),
    "cart": ("There are items in cart today", "There are  today"),
    "read_more": ("The story goes on. Read More...", "The story goes on. "),
    "sign_in": ("Sign-in to see it", " to see it"),
}
COUNTER = re.compile(rf"\W*\d(?:,|\.|\d)*(?:K|M|B)?\s+(?:{'|'.join(COUNTED)})\W*", re.IGNORECASE)
PATTERNS = {
    "citations": r"\[\d*\]|\[edit\]|\[citation needed\]",
    "cart": r"items in cart",
    "read_more": r"read more(?:\.\.\.|…)$",
    "sign_in": r"^sign-in",
}


def array(*texts: str) -> pa.Array:
    return pa.array(texts, pa.large_string())


def one(text: str, *rules: str) -> tuple[str, list[Cut]]:
    out, cuts = cut_lines(array(text), rules)
    return out[0].as_py(), cuts[0]


def goes(rule: str, words: list[str], now: str) -> bool:
    """Whether a stripped line of these words goes, which after what was cut inside it is `now`."""
    lower, few = now.lower(), len(now.split()) <= 12 and len(now) <= 200
    return {
        "long_word": any(len(word) > 1000 for word in words),
        "javascript": "javascript" in lower,
        "policy": any(phrase in lower for phrase in POLICIES),
        "terminal": not now.endswith((".", "!", "?", '"', "'")) or now.endswith("..."),
        "terminal_tfds": not now.endswith((".", "!", "?", '"')) or now.endswith("..."),
        "few_words": len(words) < 3,
        "few_words_5": len(words) < 5,
        "one_word": len(words) < 2,
        "upper_case": sum(map(str.isupper, now)) > 0.5 * len(now),
        "digits": now.isdigit(),
        "counter": COUNTER.fullmatch(now) is not None,
        "prompt": few and any(phrase in lower for phrase in PROMPTS),
        "bare_path": len(words) == 1 and ("/" in now or "\\" in now),
    }[rule]


def plain(text: str, rules: tuple[str, ...]) -> str:
    """The text as the rules leave it, line by line."""
    kept = []
    for line in text.split("\n"):
        now, words, stays = line.strip(), line.split(), True
        for rule in rules if now else ():
            if rule in PATTERNS:
                if rule == "citations" or len(words) <= 10:
                    edited = re.sub(PATTERNS[rule], "", now, flags=0 if rule == "citations" else re.IGNORECASE)
                    stays &= bool(edited.strip())
                    line = line.replace(now, edited) if stays else line
                    now = edited.strip()
            elif goes(rule, words, now):
                stays = False
            if not stays:
                break
        kept += [line] if stays else []
    return "\n".join(kept)


def restored(text: str, cuts: list[Cut]) -> str:
    """The lines that are not blank, with every cut put back."""
    lines = [line for line in text.split("\n") if line.strip()]
    for number in sorted({cut.line for cut in cuts}):
        parts = [cut for cut in cuts if cut.line == number]
        if parts[0].column < 0:
            lines.insert(number, parts[0].text)
        for cut in parts:
            if cut.column >= 0:
                lines[number] = lines[number][: cut.column] + cut.text + lines[number][cut.column :]
    return "\n".join(lines)


def test_every_rule_a_recipe_may_name_is_tested() -> None:
    assert {*CASES, *INLINE, "repeated"} == set(LINE_RULES)


@pytest.mark.parametrize(("rule", "pair"), [*CASES.items(), *CHINESE.items()])
def test_each_rule_cuts_its_line_and_leaves_its_neighbour(rule: str, pair: tuple[str, str]) -> None:
    gone, stays = pair
    assert one(f"{gone}\n\n{stays}", rule) == (f"\n{stays}", [Cut(0, -1, rule, gone)])


@pytest.mark.parametrize("rule", INLINE)
def test_parts_of_lines_are_cut_in_place(rule: str) -> None:
    line, left = INLINE[rule]
    text, cuts = one(f"first\n\n{line}", rule)
    assert text == f"first\n\n{left}"
    assert {(cut.line, cut.rule) for cut in cuts} == {(1, rule)}
    assert all(line[cut.column :].startswith(cut.text) for cut in cuts)


def test_a_line_of_nothing_but_a_phrase_goes_and_long_lines_keep_theirs() -> None:
    assert one("Items in cart\nx", "cart") == ("x", [Cut(0, -1, "cart", "Items in cart")])
    long = "we counted all the items in cart after cart for a week"
    assert one(long, "cart") == (long, [])


def test_a_cut_around_an_earlier_one_holds_it() -> None:
    assert one("2 items [1]in cart", "citations", "cart") == ("2 ", [Cut(0, 2, "cart", "items [1]in cart")])


def test_cuts_go_to_the_first_rule_that_asks() -> None:
    text, cuts = one("2024\nA whole sentence here.\nhttp://x/y", "few_words", "digits", "bare_path")
    assert (text, [cut.rule for cut in cuts]) == ("A whole sentence here.", ["few_words", "few_words"])


def test_a_sentence_ends_before_the_citation_after_it() -> None:
    assert one("It ends here.[3]", "citations", "terminal")[0] == "It ends here."
    assert one("It ends here.[3]", "terminal", "citations")[0] == ""


def test_repeated_spans_of_three_lines_are_cut_once_seen() -> None:
    inherited = "f(x)\n  does f\n\n  returns y"
    text = f"class A\n{inherited}\nclass B\n{inherited}\nclass C\nf(x)\n  does f\n  but not y"
    kept, cuts = one(text, "repeated")
    assert kept == f"class A\n{inherited}\nclass B\n\nclass C\nf(x)\n  does f\n  but not y"
    assert cuts == [
        Cut(line, -1, "repeated", text) for line, text in ((5, "f(x)"), (6, "  does f"), (7, "  returns y"))
    ]


LINES = st.text(st.sampled_from("aB1 .?'[]/é,\t"), max_size=14) | st.sampled_from(
    [*INLINE, *(line for pair in CASES.values() for line in pair if len(line) < 80), "3K views!", "use cookies [2] of"]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(LINES, max_size=6), st.permutations([rule for rule in LINE_RULES if rule != "repeated"]), st.data())
def test_batches_are_cut_as_the_plain_reading_cuts(lines: list[str], order: list[str], data: st.DataObject) -> None:
    rules = tuple(order[: data.draw(st.integers(1, 5))])
    text = "\n".join(lines)
    out, cuts = cut_lines(array("before", text, "after", text), rules)
    assert out[1] == out[3]
    assert cuts[1] == cuts[3]
    assert out[1].as_py() == plain(text, rules)
    if not any(rule in INLINE for rule in rules):
        assert restored(out[1].as_py(), cuts[1]) == "\n".join(line for line in lines if line.strip())


def test_the_share_of_words_cut_counts_the_rules_asked_for() -> None:
    text, rules = "TOP MENU\nSix words are in this line.\nHome\n语言模型", ("upper_case", "one_word", "few_words_5")
    out, cuts = cut_lines(array(text, "all of it stays here now"), rules)
    assert words_cut(out, cuts).tolist() == [np.float32(3 / 9), 0]
    assert words_cut(out, cuts, ("few_words_5",)).tolist() == [np.float32(4 / 10), 0]
    assert count_words(array("语言 model，好")).tolist() == [4]


def edge_reading(texts: list[str], width: int, limit: int) -> list[str]:
    """The procedure of dots.llm1 (arXiv:2506.05767, app. C.2): of each line so many places stay, in document order."""
    count: Counter[str] = Counter()
    out = []
    for text in texts:
        lines = text.split("\n")
        filled = [i for i, line in enumerate(lines) if any(map(str.isalnum, line))]
        drop = set()
        for i in sorted({*filled[:width], *filled[-width:]}):
            count[lines[i].strip()] += 1
            if count[lines[i].strip()] > limit:
                drop.add(i)
        out.append("\n".join(line for i, line in enumerate(lines) if i not in drop))
    return out


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["Menu", " Menu", "***", "", "Foot", "b 1", "c"]), max_size=9), max_size=5),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_edges_are_cut_as_the_published_procedure_cuts(pages: list[list[str]], width: int, limit: int) -> None:
    texts = ["\n".join(page) for page in pages]
    hashes, bounds = edge_hashes(array(*texts), width)
    assert len(bounds) == len(texts) + 1
    counts = Counter(hashes.tolist())
    allowed = {key: limit for key, count in counts.items() if count > limit}
    expected = edge_reading(texts, width, limit)
    whole, cuts = cut_edges(array(*texts), width, dict(allowed))
    assert whole.to_pylist() == expected
    assert {cut.rule for one in cuts for cut in one} <= {EDGE_RULE}
    assert [cut_edges(array(text), width, allowed)[0][0].as_py() for text in texts] == expected


def test_a_line_at_both_ends_counts_twice_and_symbols_never() -> None:
    hashes, bounds = edge_hashes(array("a\n---\nb\n a", "", "x"), 5)
    assert bounds.tolist() == [0, 3, 3, 4]
    assert hashes[0] == hashes[2] != hashes[1]


def test_hostile_lines_take_linear_time() -> None:
    texts = ["[" * 200_000, "1," * 200_000 + "likes", "read more" * 50_000, "a b " * 200_000, "x\ny\nz\n" * 50_000]
    out, cuts = cut_lines(array(*texts), LINE_RULES)
    assert len(out) == len(cuts) == len(texts)
    assert sum(cut.rule == "repeated" for cut in cuts[4]) == 150_000 - 3
