"""What the stages of curation leave, in their formats, for a run that never happened."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import write_json, write_lines

HOSTILE = "<script>alert('owned')</script><img src=https://evil.example/x.png onerror=alert(1)> & \u202egnp.exe\x00"
"""What a crawled page may well hold."""
FUNNEL = {
    "web": [
        ("read", 489, 14_312_377), ("extract", 481, 5_204_000), ("urls", 481, 5_204_000), ("lines", 479, 4_411_000),
        ("language", 475, 4_390_200), ("reference", 400, 3_902_600), ("models", 396, 3_880_000),
        ("exact_duplicates", 392, 3_840_000), ("near_duplicates", 355, 3_371_000), ("substrings", 355, 3_371_000),
        ("decontaminate", 354, 3_360_000), ("sampling", 301, 3_401_500),
    ],
    "code": [
        ("read", 1612, 17_840_000), ("extract", 1612, 17_840_000), ("code", 1433, 12_900_100),
        ("models", 1433, 12_900_100), ("exact_duplicates", 1420, 12_830_000), ("near_duplicates", 1377, 12_020_000),
        ("substrings", 1377, 12_020_000), ("decontaminate", 1377, 12_020_000), ("sampling", 1310, 11_200_000),
    ],
}  # fmt: skip
"""Source -> (step, documents, bytes)."""
DROPS = [
    ("web", "lines", "words_left", 2, 9.0, 50.0),
    ("web", "language", "language", 4, 0.31, 0.65),
    ("web", "reference", "reference_min_words", 51, 31.0, 50.0),
    ("web", "reference", "reference_max_duplicate_10_grams", 24, 0.42, 0.3),
    ("web", "models", "topics.news", 4, 0.9, 0.0),
    ("web", "exact_duplicates", "equal_text", 4, 1.0, 1.0),
    ("web", "near_duplicates", "minhash_similarity", 37, 0.93, 0.8),
    ("web", "decontaminate", "evaluation_ngrams", 1, 0.6, 0.0),
    ("web", "sampling", "down_sampled", 53, 0.4, 1.0),
    ("code", "code", "code_min_words", 120, 12.0, 20.0),
    ("code", "code", "code_max_longest_line", 59, 1204.0, 1000.0),
    ("code", "exact_duplicates", "equal_text", 13, 1.0, 1.0),
    ("code", "near_duplicates", "minhash_similarity", 43, 0.88, 0.8),
    ("code", "sampling", "down_sampled", 67, 0.7, 1.0),
]
"""(source, step, rule, documents, value of the last of them, threshold)."""
NAMES = ["code", "maths", "news", "prose"]


def name_of(text: str) -> str:
    """An id as documents have it."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def crawl(config: Any, inputs: Inputs, workspace: Workspace) -> None:
    failed = [{"url": f"http://pydoc.localhost/broken{n}.html", "reason": "HTTP 404"} for n in range(11)]
    failed[0]["reason"] = HOSTILE
    report = {"site": "pydoc", "pages": 489, "bytes": 14_312_377, "failed": failed, "python": "3.11.9"}
    write_json(workspace.path("crawl.json"), report)


def curate(config: Any, inputs: Inputs, workspace: Workspace) -> None:
    rows = [
        {"step": step, "source": source, "documents": documents, "bytes": size, "tokens": round(size / 4)}
        for source, steps in FUNNEL.items()
        for step, documents, size in steps
    ]
    write_json(workspace.path("funnel.json"), rows)
    write_dropped(workspace.path("dropped"), DROPS)
    lines = [
        {"file": f"pages/pages-0000{n}.warc.gz", "offset": 10_331 * n, "reason": "truncated gzip"} for n in range(14)
    ]
    write_lines(workspace.path("skipped.jsonl"), lines)
    write_json(workspace.path("samples.json"), samples())
    write_json(workspace.path("contamination.json"), contamination())
    sampled = {
        "prose": {"documents": 1003, "bytes": 9_410_000, "bytes_used": 7_300_750},
        "code": {"documents": 402, "bytes": 3_350_000, "bytes_used": 3_400_150},
        "maths": {"documents": 204, "bytes": 1_020_000, "bytes_used": 2_920_300},
        "news": {"documents": 122, "bytes": 1_600_000, "bytes_used": 980_300},
    }
    write_json(workspace.path("sampling.json"), sampled)
    workspace.path("sheet.csv").write_text("id,source,text,verdict,note\n", encoding="utf-8")


def write_dropped(folder: Path, drops: list[tuple[Any, ...]]) -> None:
    """`dropped/*.parquet` with the columns that the page reads; values grow towards each rule's last."""
    rows = [
        {"id": name_of(f"{source}{rule}{n}"), "source": source, "stage": step, "rule": rule,
         "value": value * (n + 1) / documents, "threshold": threshold, "n_chars": 1000}
        for source, step, rule, documents, value, threshold in drops
        for n in range(documents)
    ]  # fmt: skip
    folder.mkdir()
    table = pa.Table.from_pylist(rows)
    for name in ("value", "threshold"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.float32()))
    pq.write_table(table.slice(0, 100), folder / "dropped-000000.parquet")
    pq.write_table(table.slice(100), folder / "dropped-000001.parquet")


def contamination() -> dict[str, Any]:
    """Three sets: one found in some documents, one in none, one whose name of a problem is hostile."""
    found = {"h17": [name_of("a"), name_of("b")], "h203": [name_of("a")]}
    many = {f"{HOSTILE}{n}": [name_of(f"{n}{k}") for k in range(n + 1)] for n in range(7)}
    one = {"texts": 800, "too_short": 12, "skipped": 0}
    return {
        "ngram": 13,
        "share": 0.0,
        "documents_dropped": 1,
        "documents_cut": 2,
        "sets": [
            {"name": "held_out", "items": 400, "found": found, **one},
            {"name": "mmlu", "items": 14_042, "found": {}, **one},
            {"name": "gsm8k", "items": 1319, "found": many, **one},
        ],
    }


def samples() -> dict[str, Any]:
    prose = (
        "collections.deque\n\nA deque is a list that is quick at both ends. Items are added to and taken from an end "
        "in constant time; in the middle it is as slow as a linked list. Several threads may use it at once.\n\n"
        "    append(x)\n        Add x at the right end.\n    appendleft(x)\n        Add x at the left end.\n" * 2
    )
    code = (
        'def bisect_right(a, x, lo=0, hi=None):\n    """Where to insert x in a, assuming a is sorted."""\n    ...\n' * 4
    )
    kept = [
        {"id": name_of(f"k{n}"), "source": source, "url": url, "origin": "lib/x.py", "offset": 0, "text": text}
        for n, (source, url, text) in enumerate(
            [
                ("web", "http://pydoc.localhost/collections.html", prose),
                ("web", "http://pydoc.localhost/evil.html", HOSTILE),
                ("web", "http://pydoc.localhost/queue.html", prose[200:]),
                ("code", None, code),
                ("code", None, code[50:]),
                ("code", None, "import os\n" * 40),
                ("code", None, "x = 1\n" * 30),
            ]
        )
    ]
    dropped = [
        {"source": "web", "url": "http://pydoc.localhost/a.html", "text": "a " * 12, "stage": "reference",
         "rule": "reference_min_words", "value": 12, "threshold": 50, "other": None},
        {"source": "web", "url": "http://pydoc.localhost/b.html", "text": HOSTILE * 3, "stage": "reference",
         "rule": "reference_min_words", "value": 31.0, "threshold": 50.0, "other": None},
        {"source": "code", "origin": "lib/tables.py", "text": "T = [" + "0, " * 400 + "]", "stage": "code",
         "rule": "code_max_longest_line", "value": 1204, "threshold": 1000, "other": None},
        {"source": "web", "url": "http://pydoc.localhost/dup.html", "text": prose, "stage": "near_duplicates",
         "rule": "minhash_similarity", "value": 0.93, "threshold": 0.8, "other": kept[0]["id"]},
        {"source": "web", "url": "http://pydoc.localhost/sum.html", "text": prose, "stage": "decontaminate",
         "rule": "evaluation_ngrams", "value": 0.6, "threshold": 0.0, "other": "held_out/h17"},
    ]  # fmt: skip
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for n, row in enumerate(dropped):
        by_rule.setdefault(str(row["rule"]), []).append({"id": name_of(f"d{n}"), **row})
    return {
        "kept": {name: [row for row in kept if row["source"] == name] for name in ("web", "code")},
        "dropped": by_rule,
        "lines_cut": {"web": {"edge_lines": 412, "javascript": 3, "clutter": 2207}, "code": {"edge_lines": 31}},
        "masked": {"web": {"email": 41, "ip": 3}, "code": {"email": 212, "key": 1}},
    }


def agreement() -> dict[str, Any]:
    """What `glassbox sheet RUN FILE` keeps in the run's folder."""
    pairs = {"keep/keep": 22, "keep/drop": 4, "drop/keep": 3, "drop/drop": 21}
    disagreed = [name_of(f"s{n}") for n in range(7)]
    share = {"documents": 50, "agreement": 0.86, "low": 0.738, "high": 0.93, "kappa": 0.7196}
    return {**share, "human/machine": pairs, "disagreed": disagreed}


def topics(config: Any, inputs: Inputs, workspace: Workspace) -> None:
    write_json(workspace.path("quality.json"), classes(NAMES))


def classes(names: list[str]) -> dict[str, Any]:
    """quality.json of a classifier with these classes."""
    k = len(names)
    confusion = [[90 if a == b else (a + 2 * b) % 7 for b in range(k)] for a in range(k)]
    quality = {
        name: {"texts": sum(confusion[n]), "precision": 0.9, "recall": 0.88, "f1": 0.89, "auc": None if n else 0.981}
        for n, name in enumerate(names)
    }
    bins = [
        {"texts": 10 * b, "probability": b / 10 + 0.05, "right": min(1.0, b / 10 + 0.09 - 0.01 * b)}
        for b in range(3, 10)
    ]
    return {
        "task": "classes",
        "names": names,
        "trained_on": 1604,
        "held_out": 401,
        "texts": {"topics.jsonl": dict.fromkeys(names, 400), "judge": {names[0]: 5}},
        "left_out": {"repeated text": 17, "text with two labels": 1},
        "training_set": "9c" * 32,
        "accuracy": 0.9127,
        "macro_f1": 0.8903,
        "classes": quality,
        "confusion": confusion,
        "calibration": bins,
        "calibration_error": 0.0214,
        "ngrams": {name: [f"{name} word {n}" for n in range(14)] + [HOSTILE] for name in names},
    }


def clutter(config: Any, inputs: Inputs, workspace: Workspace) -> None:
    curve = {
        f"{t:g}": {"precision": 0.82 + 0.16 * t, "recall": 1 - t**3 / 1.3, "f1": 0.9 - (t - 0.5) ** 2}
        for t in (n / 20 for n in range(1, 20))
    }
    report = {
        "trained_on": {"pages": 912, "lines": 101_344, "content": 81_002},
        "sites": 640,
        "left_out": {"no gold text": 3},
        "held_out": {"pages": 181, "lines": 21_733, "content": 17_604},
        "auc": 0.9711,
        "keep_all": {"precision": 0.81, "recall": 1.0, "f1": 0.895},
        "model": {"precision": 0.934, "recall": 0.951, "f1": 0.9424},
        "best_threshold": 0.45,
        "by_threshold": curve,
    }
    write_json(workspace.path("quality.json"), report)
