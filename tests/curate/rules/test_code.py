"""Rules for code: paths, licences, comments against Python's tokenizer, encoded data against regular expressions."""

import ast
import io
import json
import re
import tokenize
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.curate.rules.code import CODE_COLUMNS, code_statistics, extension, fields, is_permissive
from glassbox.curate.rules.statistics import statistics
from glassbox.curate.rules.verdicts import Verdicts, judge_statistics
from glassbox.recipe.sources import Source


def measured(text: str, **meta: object) -> dict[str, float]:
    row = code_statistics(pa.array([text], pa.large_string()), [json.dumps(meta)])[0]
    return dict(zip(CODE_COLUMNS, row.tolist(), strict=True))


def verdict(text: str, rules: str, **meta: object) -> str:
    texts, metas, verdicts = pa.array([text], pa.large_string()), [json.dumps(meta)], Verdicts.kept(1)
    where = Source(name="s", format="code", path="x", rules=(rules,))
    judge_statistics(verdicts, statistics(texts, metas, sets=(rules,)), metas, np.array([""], object), where)
    return verdicts.rule[0]


def test_extensions_are_read_from_the_path() -> None:
    paths = ("src/Main.PY", "a\\b.tar.gz", "Makefile", "dir.d/Dockerfile", ".gitignore", "x/")
    endings = (".py", ".gz", ".makefile", ".dockerfile", ".gitignore", ".x")
    for path, ending in zip(paths, endings, strict=True):
        assert extension(json.dumps({"path": path})) == ending, path
    assert [extension(meta) for meta in ("", "{}", "no json", '["path"]', '{"path": 3}')] == [""] * 5
    assert fields("[" * 100_000) == {}


@pytest.mark.parametrize(
    ("licence", "permissive"),
    [
        ("MIT", True),
        ("apache-2.0", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0", True),
        ("(MIT AND GPL-3.0)", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        (["MIT", "BSD-3-Clause"], True),
        (["MIT", "GPL-2.0"], False),
        (["MIT", ""], False),
        ("", None),
        (None, None),
        ([], None),
        ([[["MIT"]]], False),
        ("or" + " " * 100_000 + "and", False),
    ],
)
def test_licences_are_permissive_as_expressions(licence: object, permissive: bool | None) -> None:
    assert is_permissive(licence) is permissive


def python_comments(text: str) -> int:
    """Characters of comments and of strings that are statements, by Python's tokenizer and parser."""
    found = sum(
        len(token.string)
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    )
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found += len(ast.get_source_segment(text, node))
    return found


@pytest.mark.parametrize("module", [json, re, ast, tokenize, io, pytest, np])
def test_comments_of_real_python_are_those_of_its_tokenizer(module: object) -> None:
    text = Path(module.__file__).read_text(encoding="utf-8")
    assert measured(text, path="a.py")["comments"] == pytest.approx(python_comments(text) / len(text), abs=0.01)


def test_comments_of_other_languages() -> None:
    text = 'let a = "// no"; // yes\n/* and\nthis */ let b = `/* no\n*/`; // "end'
    marked = len('// yes/* and\nthis */// "end')
    assert measured(text, path="a.js")["comments"] == pytest.approx(marked / len(text))
    assert np.isnan(measured(text, path="a.unknown")["comments"])


NUMBERS = r"(?<![A-Za-z0-9_])(?:(?:0x|\\x)?[0-9a-fA-F]{2}(?![A-Za-z0-9_])[,\s]*){8,}"
ENCODED = re.compile(rf"[a-zA-Z0-9+/\n=]{{64,}}|(?:\\u[0-9a-fA-F]{{4}}){{8,}}|{NUMBERS}")


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["\\u00e9", "0x4f,", "ff ", "A" * 30, "\\x41", "a b", "\n", ".", "QUJD+/==", ", ", "12,"]),
        max_size=30,
    )
)
def test_encoded_data_is_found_as_by_the_published_patterns(parts: list[str]) -> None:
    text = "".join(parts)
    if re.search(r"[A-Za-z0-9_]\\x|\\x[0-9A-Fa-f]{2}\w", text):
        return  # escapes without anything between are told apart by the test below
    found = [match.group() for match in ENCODED.finditer(text)]
    out = measured(text)
    assert out["encoded"] == pytest.approx(sum(map(len, found)) / max(len(text), 1))
    assert out["longest_encoded"] == max(map(len, found), default=0)


def test_escapes_in_a_string_are_encoded_data() -> None:
    blob = "".join(f"\\x{i:02x}" for i in range(200))
    assert measured(f's = "{blob}"')["longest_encoded"] == len(blob)
    assert measured("x = [1, 2, 3, 10, 20, 30]")["encoded"] == 0


def test_visible_text_of_html() -> None:
    page = "<html><style>p {}</style><!-- no <p> --><script>if (a < b) no()</script><p class='x'>Yes, 1 < 2</p></html>"
    assert measured(page)["visible_characters"] == len("Yes, 1 < 2")
    for broken in ("<script>" * 20_000, "<!--" * 20_000, "<" * 80_000, "<style><" * 20_000):
        assert measured(broken)["visible_characters"] <= len(broken)


GOOD = '"""Adds."""\n\n\ndef add(first: int, second: int) -> int:\n    # The sum of both.\n    return first + second\n'
CASES = {
    "starcoder_min_permissive": (GOOD, {"licence": "GPL-3.0"}),
    "starcoder_max_data_extension": (GOOD, {"path": "a.sexp"}),
    "starcoder_max_generated": ("# This file is autogenerated.\n" + GOOD, {}),
    "starcoder_max_minified": ("var a=1;" * 20, {"path": "a.js"}),
    "starcoder_max_longest_line": (GOOD + "x = [" + "ab, " * 300 + "]\n" + "# shorter\n" * 20, {}),
    "starcoder_max_mean_line": (("# " + "long " * 25 + "\n") * 5, {}),
    "starcoder_min_alphanumeric": (GOOD + "# " + "-+*/ " * 400, {"path": "a.txt"}),
    "starcoder_min_letters": ("1 2 3 4 5 6 7 8\n" * 20 + "let", {"path": "a.bas"}),
    "starcoder_data_min_letters": ('{"a": [' + "1234, " * 50 + "]}", {"path": "a.json"}),
    "starcoder_min_characters": ('{"name": "value"}', {"path": "a.json"}),
    "starcoder_max_characters": ('{"name": "some value"}\n' * 300, {"path": "a.yaml"}),
    "starcoder_max_xml_header": ('<?xml version="1.0"?>\n' + GOOD, {"path": "a.svg"}),
    "starcoder_min_visible": ("<div class='one two three'></div>\n" * 50 + "text " * 30, {"path": "a.html"}),
    "starcoder_min_visible_characters": ("<p>short page</p>", {"path": "a.html"}),
    "starcoder_min_comments": (GOOD.split('"""\n')[1].replace("# The sum of both.", "pass"), {}),
    "starcoder_max_comments": ("# only words and nothing else here\n" * 9, {}),
    "starcoder_max_encoded": ("\n".join(["// some blob of data"] + ["QUJDREVGRw" * 9] * 10), {"path": "a.go"}),
    "starcoder_max_longest_encoded": (GOOD * 20 + "\n".join(["QUJDREVGRw" * 9] * 12), {}),
    "": (GOOD, {"licence": "MIT", "stars": 0}),
}


@pytest.mark.parametrize("rule", CASES)
def test_each_rule_of_starcoder_on_a_file_made_for_it(rule: str) -> None:
    text, meta = CASES[rule]
    assert verdict(text, "starcoder", **({"path": "a.py"} | meta)) == rule


def test_long_lines_are_allowed_where_the_language_has_them() -> None:
    text = "word and word " * 200
    assert verdict(text, "starcoder", path="notes.md") == ""
    assert verdict(text, "starcoder", path="notes.rs") == "starcoder_max_longest_line"


def test_other_sets_for_code() -> None:
    assert verdict(GOOD, "olmoe_code", stars=1) == "olmoe_min_stars"
    assert verdict(GOOD, "olmoe_code", stars=10**400) == ""
    assert verdict(GOOD, "olmoe_code", stars=2) == verdict(GOOD, "olmoe_code") == ""
    assert verdict(GOOD, "redpajama_code", path="a.py") == ""
    assert verdict(GOOD, "redpajama_code", path="a.zig") == "redpajama_max_unlisted_extension"
    assert verdict("a1 b2 c3 - d4 =\n" * 9, "redpajama_code", path="a.c") == "redpajama_min_letters_per_piece"
    assert verdict("spam " * 9 + "ham eggs " * 5, "repeats") == "repeats_max_top_word"
    assert verdict("".join(f"w{i} " for i in range(90)) + "go on now " * 32, "repeats") == "repeats_max_repeated_words"
    assert verdict("".join(f"w{i} " for i in range(90)) + "abc" * 32, "repeats") == "repeats_max_repeated_characters"
    assert verdict("".join(f"w{i} " for i in range(90)) + "-" * 99, "repeats") == ""
