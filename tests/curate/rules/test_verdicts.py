"""Rules as data: what each one keeps and drops, of which documents it is asked, and thresholds moved by a recipe."""

import gzip
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from glassbox.curate.rules.statistics import STATISTICS, statistics
from glassbox.curate.rules.verdicts import KEPT, Verdicts, explain_rules, judge_language, judge_statistics
from glassbox.recipe.rules import RULE_SETS, UNSPACED, Rule
from glassbox.recipe.sources import Language, Source


def source(**settings: object) -> Source:
    words = {"bad_words": "frobnicated"} if "bad_words" in settings.get("rules", ()) else {}
    return Source(name="s", format="text", path="x", **words, **settings)


def judged(rows: np.ndarray, where: Source, lang: str = "en", path: str = "") -> Verdicts:
    verdicts, n = Verdicts.kept(len(rows)), len(rows)
    judge_statistics(verdicts, rows, [json.dumps({"path": path})] * n, np.array([lang] * n, object), where)
    return verdicts


def asked_of(rule: Rule) -> tuple[str, str]:
    """A language and a path that the rule is asked of."""
    path = next((f"a{scope}" for scope in rule.only if scope.startswith(".")), "")
    return next((scope for scope in rule.only if not scope.startswith(".")), "en"), path


def neutral(rules: str, lang: str, path: str) -> np.ndarray:
    """One document that every rule of the set keeps: each statistic between its bounds."""
    row = np.zeros(len(STATISTICS), np.float32)
    for rule in RULE_SETS[rules]:
        if rule.bound == "min" and rule.holds_for(lang, path[1:]):
            row[STATISTICS.index(rule.statistic)] = rule.threshold
    return row


@pytest.mark.parametrize(("rules", "rule"), [(name, rule) for name, rules in RULE_SETS.items() for rule in rules])
def test_each_rule_drops_just_beyond_its_threshold_and_nothing_at_it(rules: str, rule: Rule) -> None:
    lang, path = asked_of(rule)
    rows = np.stack([neutral(rules, lang, path)] * 3)
    at = STATISTICS.index(rule.statistic)
    beyond = -np.inf if rule.bound == "min" else np.inf
    threshold = np.float32(rule.threshold)
    rows[:, at] = [threshold, np.nextafter(threshold, np.float32(beyond)), np.nextafter(threshold, np.float32(-beyond))]
    verdicts = judged(rows, source(rules=[rules]), lang, path)
    assert verdicts.step.tolist() == [KEPT, rules, KEPT]
    assert verdicts.rule[1] == rule.name
    assert verdicts.value[1] == rows[1, at]
    assert verdicts.threshold[1] == threshold


@pytest.mark.parametrize("rules", RULE_SETS)
def test_nothing_known_condemns_nothing(rules: str) -> None:
    assert judged(np.full((1, len(STATISTICS)), np.nan, np.float32), source(rules=[rules])).step[0] == KEPT


def test_every_rule_has_a_statistic_and_a_name_of_its_own() -> None:
    rules = [rule for rules in RULE_SETS.values() for rule in rules]
    assert {rule.statistic for rule in rules} <= set(STATISTICS)
    assert len({rule.name for rule in rules}) == len(rules)


def test_rules_are_asked_of_their_languages_and_files() -> None:
    assert Rule("r", "words", "min", 1).holds_for("zh", ".py")
    only = Rule("r", "words", "min", 1, only=("en", "", ".py"))
    assert [only.holds_for(*scope) for scope in (("en", ""), ("", ".c"), ("de", ".py"), ("de", ""), ("de", ".c"))] == [
        *(True, True, True, False, False)
    ]
    assert [Rule("r", "words", "min", 1, but=UNSPACED).holds_for(lang, "") for lang in ("zh", "en")] == [False, True]


def test_the_first_failing_rule_in_the_order_of_the_recipe_is_recorded() -> None:
    rows = np.zeros((1, len(STATISTICS)), np.float32)
    for order in (["gopher_quality", "c4"], ["c4", "gopher_quality"]):
        assert judged(rows, source(rules=order)).step[0] == order[0]


def test_a_recipe_moves_a_threshold() -> None:
    row = neutral("gopher_quality", "en", "")
    row[STATISTICS.index("words")] = 20
    for given, step in (({}, "gopher_quality"), ({"gopher_min_words": 20}, KEPT)):
        assert judged(row[None], source(rules=["gopher_quality"], thresholds=given)).step[0] == step


def test_explained_verdicts_agree_with_the_judgement() -> None:
    text, where = pa.array(["Too short { for this."], pa.large_string()), source(rules=["gopher_quality", "c4"])
    row = statistics(text)[0]
    asked = explain_rules(row, "", "en", where)
    failed = [one for one in asked if not one.passes]
    verdicts = judged(row[None], where)
    assert (failed[0].set, failed[0].rule) == (verdicts.step[0], verdicts.rule[0])
    assert {one.rule for one in failed} >= {"gopher_min_words", "c4_max_curly_brackets", "c4_min_sentences"}
    assert not any("unspaced" in one.rule for one in asked)
    assert any("unspaced" in one.rule for one in explain_rules(row, "", "zh", where))


def test_the_readings_of_one_rule_differ_as_published() -> None:
    # One sentence of six words twice, then others: datatrove counts the second copy, DCLM every covered word.
    text = "one two three four five six. " * 2 + " ".join(f"w{i}" for i in range(40))
    row = dict(zip(STATISTICS, statistics(pa.array([text], pa.large_string()))[0].tolist(), strict=True))
    assert row["dclm_duplicate_5_grams"] > row["dolma_duplicate_5_grams"] > 0
    assert row["dclm_duplicate_5_grams"] == pytest.approx(2 * 22 / (2 * 22 + 10 * 2 + 30 * 3))
    assert row["duplicate_5_grams"] == pytest.approx(len("onetwothreefourfive") / len(text))


def test_languages_are_kept_by_code_and_score() -> None:
    verdicts = Verdicts.kept(3)
    lang, score = np.array(["en", "de", "en"], object), np.array([0.9, 0.9, 0.5], np.float32)
    judge_language(verdicts, lang, score, source(language=Language()))
    assert verdicts.rule.tolist() == ["", "language_unwanted", "language_min_score"]
    judge_language(verdicts := Verdicts.kept(3), lang, score, source())
    assert set(verdicts.step) == {KEPT}


def passing(texts: list[str], rules: str, lang: str = "zh") -> float:
    return float(
        (judged(statistics(pa.array(texts, pa.large_string())), source(rules=[rules]), lang).step == KEPT).mean()
    )


def ideographs(text: str) -> int:
    return sum("\u4e00" <= one <= "\u9fff" for one in text)


def chinese_prose(data: Path) -> list[str]:
    """Modern Chinese: a textbook's chapters without code and tables, encyclopaedia paragraphs, translated histories."""
    with tarfile.open(data / "d2l_zh" / "chapters_a.tar.gz") as files:
        chapters = [files.extractfile(one).read().decode() for one in files if one.isfile()]
    bare = [re.sub(r"(?s)```.*?```", "", chapter).split("\n") for chapter in chapters]
    texts = ["\n".join(line for line in lines if 2 * ideographs(line) > len(line)) for lines in bare]
    with gzip.open(data / "xquad" / "xquad.zh.even.json.gz") as file:
        articles = json.load(file)["data"]
    texts += ["\n".join(one["context"] for one in article["paragraphs"]) for article in articles]
    return [text for text in texts if ideographs(text) > 300]


JUNK = [
    "新闻 体育 财经 娱乐 科技 汽车 房产 教育 游戏 健康\n首页\n登录\n注册\n" * 8,
    "\n".join(f"第{i}章 {'一二三四五'[i % 5]}" for i in range(80)),
    "、".join(["手机", "电脑", "相机", "电视", "冰箱", "空调", "洗衣机", "热水器"] * 15),
    "点击下载 立即购买 加入购物车 " * 30,
    "价格 ¥128.00 库存 35 件\n" * 20,
    "联系我们\n关于我们\n版权所有\n网站地图\n友情链接\n广告服务\n招聘信息\n法律声明\n隐私政策\n意见反馈\n" * 3,
    "好好好好好好好好" * 30,
]


def test_good_chinese_prose_passes_and_junk_fails(data: Path) -> None:
    prose = chinese_prose(data)
    assert len(prose) > 100
    for rules, least in (("gopher_quality", 0.99), ("gopher_repetition", 0.9), ("fineweb", 0.85)):
        assert passing(prose, rules) > least, rules
    assert passing([text.replace("{", "") for text in prose], "dots") > 0.8
    for rules in ("gopher_quality", "fineweb", "dots"):
        assert passing(JUNK, rules) == 0, rules


def test_the_rules_of_english_would_condemn_chinese_prose(data: Path) -> None:
    assert passing(chinese_prose(data), "gopher_quality", "en") == 0
