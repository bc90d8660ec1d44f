"""Measures one side of one part for `curate.py`, in a process of its own: `curate_measure.py PART SIDE ITEMS`."""

import json
import os
import re
import sys
import time
from collections import Counter
from types import ModuleType
from typing import Any

import curate_near
import curate_sides
from curate_sides import Item, Run

WARM_UP, MOST = 300_000, 10
"""Bytes of the first run, which compiles, and CPU seconds that the measured one should take."""


def sides(part: str, module: ModuleType) -> dict[str, Any]:
    """Functions of a module by the side they stand for: `tokens_tiktoken` is tiktoken's."""
    found = {name.removeprefix(f"{part}_"): one for name, one in vars(module).items() if name.startswith(f"{part}_")}
    return {name.replace("_", "-"): one for name, one in found.items()}


SIDES = {"near": sides("near", curate_near)} | {
    part: sides(part, curate_sides) for part in ("rules", "tokens", "pages", "language")
}


def quality(part: str, run: Run, items: list[Item], made: Any) -> dict[str, float]:
    """What a result is worth, in one number or two."""
    if part == "near":
        pairs = [(n, item["copy_of"]) for n, item in enumerate(items) if item.get("copy_of") is not None]
        removed = set(made)
        found = sum(bool({n, other} & removed) for n, other in pairs) / max(1, len(pairs))
        return {"planted found": round(found, 3), "removed": round(len(removed) / len(items), 3)}
    if part == "rules" or made is None:
        return {}
    if part == "tokens":
        return {"bytes a token": round(sum(len(item["text"].encode()) for item in items) / made, 3)}
    if part == "pages":
        scores = [f1(text, item["gold"]) for text, item in zip(made, items, strict=True)]
        return {"token F1": round(sum(scores) / len(scores), 4)}
    with open(os.environ["SENTENCES"], encoding="utf-8") as file:
        sentences = [json.loads(line) for line in file]
    right = sum(code == item["lang"] for code, item in zip(run(sentences), sentences, strict=True))
    return {"right on sentences": round(right / max(1, len(sentences)), 4)}


def f1(text: str, gold: str) -> float:
    """Of bags of words; a Han character is a word."""
    mine, theirs = (Counter(re.findall(r"[\u3040-\u9fff]|[^\W\u3040-\u9fff]+", one.lower())) for one in (text, gold))
    both = (mine & theirs).total()
    return 2 * both / (mine.total() + theirs.total()) if both else 0.0


def size(item: Item) -> int:
    return len((item.get("html") or item["text"]).encode())


def resident(what: str) -> float:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(what))


def head(items: list[Item], most: float) -> list[Item]:
    """As many items from the start as `most` bytes hold, one at least."""
    for n, item in enumerate(items):
        most -= size(item)
        if most < 0:
            return items[: max(1, n)]
    return items


def measure(part: str, side: str, path: str) -> dict[str, Any]:
    """MB per CPU second and MB of memory at the peak over what the items take; after a first run that compiles."""
    with open(path, encoding="utf-8") as file:
        items = [json.loads(line) for line in file]
    run = SIDES[part][side]()
    first = head(items, WARM_UP)
    run(first)
    start = time.process_time()
    run(first)
    rate = sum(map(size, first)) / max(1e-3, time.process_time() - start)
    some = head(items, rate * MOST)
    before = resident("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the peak starts anew
    start = time.process_time()
    made = run(some)
    seconds = time.process_time() - start
    megabytes = sum(map(size, some)) / 1e6
    row = {"MB": round(megabytes, 1), "MB/CPU s": round(megabytes / seconds, 2)}
    return row | {"peak MB": round(resident("VmHWM") - before)} | quality(part, run, some, made)


if __name__ == "__main__":
    try:
        print("\n" + json.dumps(measure(*sys.argv[1:])))
    except ImportError as error:
        print("\n" + json.dumps({"missing": str(error)}))
