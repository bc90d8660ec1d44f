"""How the cost and the memory of curation grow with the corpus: one stage on 1, 2, 4 and 8 times the texts.

    python benchmarks/scale.py                     # 8 x 60 MB, one worker, 600 MB allowed
    python benchmarks/scale.py --megabytes 4500 --memory 450 --sizes 1   # a corpus of ten times the memory allowed

The corpus is made for the purpose: paragraphs of the interpreter's library and its documentation strings, words
swapped at random so that documents differ, one in ten a near copy of an earlier one. Each size runs in a process of its
own; CPU seconds and peak memory are those of that process and its workers. `peak` is all that is resident, `own` (of
the process itself) leaves out mapped files, which the system takes back when it needs the room.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

SIZES = (1, 2, 4, 8)
RULES = ["gopher_quality", "gopher_repetition"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=60, help="size of the smallest corpus")
    parser.add_argument("--memory", type=int, default=600, help="megabytes allowed to the stage")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(Path(given.child[0]), Path(given.child[1]), given.memory, given.workers)))
        return
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        rows = []
        for size in sorted(given.sizes):
            grow(corpus, size * given.megabytes)
            rows.append({"size": size, **child(corpus, Path(folder) / f"out-{size}", given)})
            if given.json:
                print(json.dumps(rows[-1]), flush=True)
    if not given.json:
        show(rows)


def child(corpus: Path, out: Path, given: argparse.Namespace) -> dict:
    arguments = ["--memory", str(given.memory), "--workers", str(given.workers), "--child", str(corpus), str(out)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, capture_output=True, text=True, env=one_thread
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(corpus: Path, out: Path, memory: int, workers: int) -> dict:
    """One run of the stage on everything in `corpus`."""
    from glassbox.curate.stage import run
    from glassbox.ledger.workspace import Inputs, Workspace
    from glassbox.recipe.curation import CurateStage

    source = {"name": "text", "format": "jsonl", "path": str(corpus), "rules": RULES, "language": {"keep": "en"}}
    source["clean"] = {"edge_lines": {"copies": 200}, "lines": ["few_words", "upper_case"]}
    engine = {"workers": workers, "memory": memory * 1_000_000}
    out.mkdir()
    own: list[int] = []
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(own, done))
    watcher.start()
    started = time.monotonic()
    run(CurateStage(kind="curate", sources=[source], engine=engine), Inputs(), Workspace(out))
    wall = time.monotonic() - started
    done.set()
    watcher.join()
    mine, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    funnel = json.loads((out / "funnel.json").read_text())
    return {
        "megabytes": round(sum(path.stat().st_size for path in corpus.iterdir()) / 1e6),
        "documents": funnel[0]["documents"],
        "kept": funnel[-1]["documents"],
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(mine.ru_utime + mine.ru_stime + others.ru_utime + others.ru_stime, 1),
        "own_megabytes": round(max(own) / 1000),
        "peak_megabytes": round((mine.ru_maxrss + workers * others.ru_maxrss) / 1000),
    }


def watch(own: list[int], done: threading.Event) -> None:
    """Note the process's anonymous memory, in kilobytes, five times a second."""
    while True:
        status = Path("/proc/self/status").read_text()
        own.append(int(status.partition("RssAnon:")[2].split()[0]))
        if done.wait(0.2):
            return


def grow(corpus: Path, megabytes: int) -> None:
    """Add files of 8 MB until the corpus has `megabytes`; the same files whatever sizes are asked for."""
    have = len(list(corpus.iterdir()))
    for number in range(have, -(-megabytes // 8)):
        with (corpus / f"{number:06d}.jsonl").open("w", encoding="utf-8") as file:
            for text in texts(number, 8_000_000):
                file.write(json.dumps({"text": text}) + "\n")


def texts(seed: int, size: int) -> Iterator[str]:
    draw = random.Random(seed)
    paragraphs, words = material()
    earlier: list[str] = []
    while size > 0:
        if earlier and draw.random() < 0.1:
            lines = draw.choice(earlier).split("\n")
            lines[draw.randrange(len(lines))] += " " + draw.choice(words)
            text = "\n".join(lines)
        else:
            text = "\n".join(swapped(draw, draw.choice(paragraphs), words) for _ in range(draw.randrange(16, 64)))
            earlier = [*earlier[-200:], text]
        size -= len(text)
        yield text


def swapped(draw: random.Random, paragraph: str, words: list[str]) -> str:
    """One word in eight replaced."""
    return " ".join(draw.choice(words) if draw.random() < 0.125 else word for word in paragraph.split(" "))


def material() -> tuple[list[str], list[str]]:
    root = Path(sysconfig.get_path("stdlib"))
    text = "\n".join(path.read_text("utf-8", "ignore") for path in sorted(root.glob("*.py")))
    paragraphs = [" ".join(one.split()) for one in text.split("\n\n") if 80 < len(one) < 2000 and one.count(" ") > 12]
    return paragraphs, sorted({word for word in text.split() if word.isalpha()})


def show(rows: list[dict]) -> None:
    columns = (
        "size",
        "megabytes",
        "documents",
        "kept",
        "wall_seconds",
        "cpu_seconds",
        "own_megabytes",
        "peak_megabytes",
    )
    print("  ".join(f"{name:>14}" for name in (*columns, "MB/CPU s")))
    for row in rows:
        speed = row["megabytes"] / row["cpu_seconds"]
        print("  ".join(f"{value:>14}" for value in (*(row[name] for name in columns), f"{speed:.1f}")))


if __name__ == "__main__":
    main()
