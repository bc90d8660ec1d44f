"""Speed, growth, memory and accuracy of the steps between documents.

    python benchmarks/duplicates.py speed     MB per CPU second of each step on mixed prose and code
    python benchmarks/duplicates.py growth    near copies of 1, 2, 4, 8 times as many documents: CPU, peak memory
    python benchmarks/duplicates.py accuracy  how often pairs meet against the curve of theory; recall and precision
                                              against exact Jaccard similarity on labelled sets (--data: their folder)

One thread; --json prints one JSON line per row. Memory is what the process holds of its own (RssAnon), beside the table
of signatures, which lies on disk.
"""

import argparse
import gzip
import json
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from glassbox.curate.repeats.contamination import evaluations, hits
from glassbox.curate.repeats.exact import content_keys
from glassbox.curate.repeats.minhash import shingle_sets, signatures
from glassbox.curate.repeats.near import near_copies
from glassbox.curate.repeats.semantic import embed
from glassbox.curate.repeats.substrings import repeated_passages
from glassbox.recipe.duplicates import Decontaminate, EvaluationSet, NearDuplicates, SemanticDuplicates, Substrings

BATCH = 256
PUBLISHED = {
    "SlimPajama": (9, 13), "FineWeb": (14, 8), "16 x 8": (16, 8), "default": (20, 6), "32 x 4": (32, 4),
    "BigCode": (25, 10), "NeMo Curator": (20, 13), "dots.llm1": (128, 16), "RefinedWeb": (450, 20),
}  # fmt: skip
MEMORY = 64_000_000
Row = dict[str, object]


def mixed_texts(size: int, data: Path) -> list[str]:
    """About `size` bytes of Python files and, where `data` is, pieces of books, shuffled."""
    texts = []
    for path in sorted(data.glob("gutenberg/*.gz")):
        book = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        texts += [book[start : start + 6000] for start in range(0, len(book), 6000)]
    for folder in ("stdlib", "purelib"):
        for path in sorted(Path(sysconfig.get_path(folder)).rglob("*.py")):
            texts.append(path.read_bytes().decode("utf-8", "replace"))
    random.Random(0).shuffle(texts)
    total = np.cumsum([len(text) for text in texts])
    return texts[: int(np.searchsorted(total, size)) + 1]


def reader(texts: list[str]) -> Callable[[np.ndarray], Iterator[tuple[int, str]]]:
    return lambda documents: ((number, texts[number]) for number in documents.tolist())


def column(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def speed(texts: list[str], data: Path) -> Iterator[Row]:
    """MB of text per CPU second, of each step that reads texts."""
    steps: dict[str, Callable[[pa.Array], object]] = {
        "content keys, spaces": lambda some: content_keys(some, "spaces"),
        "content keys, normalised": lambda some: content_keys(some, "normalised"),
        "embedding": lambda some: embed(some, SemanticDuplicates()),
    }
    for name, unit, ngram in (("words", "words", 5), ("characters", "characters", 13), ("code", "code", 5)):
        settings = NearDuplicates(unit=unit, ngram=ngram, bands=16, rows=8)  # type: ignore[arg-type]
        steps[f"signatures 16 x 8, {ngram}-grams of {name}"] = lambda some, settings=settings: signatures(
            some, settings
        )
    if (data / "gsm8k").is_dir():
        sets = tuple(
            EvaluationSet(name=name, path=str(data / name), fields=("question", "answer", "prompt", "problem"))
            for name in ("gsm8k", "mmlu", "humaneval", "math")
        )
        known = evaluations(Decontaminate(sets=sets), None)
        steps[f"decontamination, {len(known.names):,} texts"] = lambda some: hits(some, known)
    size = sum(len(text.encode()) for text in texts)
    batches = [column(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    for name, step in steps.items():
        step(batches[0])
        yield {"step": name, "MB/s": size / 1e6 / cpu_seconds(lambda step=step: [step(one) for one in batches])}
    with tempfile.TemporaryDirectory() as scratch:
        arguments = np.arange(len(texts)), Substrings(), Path(scratch), MEMORY
        yield {
            "step": "repeated passages of 50 words",
            "MB/s": size / 1e6 / cpu_seconds(lambda: repeated_passages(reader(texts), *arguments)),
        }


def cpu_seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def growth() -> Iterator[Row]:
    """A process for each number of documents, so that one's memory is not another's."""
    for count in (100_000, 200_000, 400_000, 800_000):
        done = subprocess.run(
            [sys.executable, __file__, "one", "--documents", str(count)], capture_output=True, text=True, check=True
        )
        yield json.loads(done.stdout)


def one(count: int) -> Row:
    """Near copies among `count` documents, two fifths of them edited copies."""
    settings = NearDuplicates()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table"
        table = np.memmap(path, np.uint32, "w+", shape=(count, settings.permutations))
        draw = np.random.default_rng(0)
        originals = count * 3 // 5
        for start in range(0, originals, 10_000):
            rows = table[start : min(start + 10_000, originals)]
            rows[:] = draw.integers(0, 2**32, rows.shape, np.uint32)
        for start in range(originals, count, 10_000):
            rows = table[start : min(start + 10_000, count)]
            source = np.sort(draw.integers(0, originals, len(rows)))
            changed = draw.random(rows.shape) < 0.3 * draw.random((len(rows), 1))
            rows[:] = np.where(changed, draw.integers(0, 2**32, rows.shape, np.uint32), table[source])
        table.flush()
        order = draw.permutation(count)
        near_copies(table[:100], np.arange(100), settings, reader([]), Path(folder), MEMORY)
        before, peak = held(), [0]
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.01):
                peak[0] = max(peak[0], held())

        watcher = threading.Thread(target=watch)
        watcher.start()
        start_wall = time.perf_counter()
        seconds = cpu_seconds(lambda: near_copies(table, order, settings, reader([]), Path(folder), MEMORY))
        wall = time.perf_counter() - start_wall
        ended.set()
        watcher.join()
        return {
            "documents": count,
            "CPU s": seconds,
            "wall s": wall,
            "us a document": seconds / count * 1e6,
            "sort memory MB": MEMORY / 1e6,
            "peak MB": (peak[0] - before) / 1e6,
            "band records MB": count * settings.bands * 16 / 1e6,
        }


def held() -> int:
    """Bytes of memory this process holds of its own; mapped files are not its own."""
    return 1024 * int(re.findall(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def curves() -> Iterator[Row]:
    """How often pairs of known Jaccard similarity meet, and 1 - (1 - J^r)^b."""
    draw = np.random.default_rng(0)
    for who, (bands, rows) in PUBLISHED.items():
        settings = NearDuplicates(ngram=1, bands=bands, rows=rows, permutations=max(bands * rows, 128), check="none")
        for similarity in (0.6, 0.7, 0.8, 0.9):
            pairs = [planted(draw, similarity) for _ in range(500)]
            texts = [text for pair in pairs for text in pair]
            with tempfile.TemporaryDirectory() as scratch:
                kept, _ = near_copies(
                    signatures(column(texts), settings), np.arange(1000), settings, reader(texts), Path(scratch), MEMORY
                )
            yield {
                "who": who,
                "bands x rows": f"{bands}x{rows}",
                "J": similarity,
                "found": float(np.mean(kept[1::2] == np.arange(0, 1000, 2))),
                "theory": 1 - (1 - similarity**rows) ** bands,
            }


def planted(draw: np.random.Generator, similarity: float) -> tuple[str, str]:
    """Two texts whose sets of words have just that Jaccard similarity (a multiple of 0.1)."""
    both = round(similarity * 100)
    found = [f"x{value}" for value in draw.integers(0, 1 << 40, 100)]
    cut = both + (100 - both) // 2
    return " ".join(found[:cut]), " ".join(found[:both] + found[cut:])


def labelled(data: Path) -> Iterator[Row]:
    """Recall and precision of what goes, against exact Jaccard similarity of the same shingles."""
    for name, texts, threshold, ngram in sets_of(data):
        for bands, rows in ((16, 8), (20, 6), (32, 4)):
            for check in ("none", "minhash", "exact"):
                settings = NearDuplicates(
                    ngram=ngram, bands=bands, rows=rows, threshold=threshold, check=check  # type: ignore[arg-type]
                )  # fmt: skip
                with tempfile.TemporaryDirectory() as scratch:
                    kept, _ = near_copies(
                        signatures(column(texts), settings), np.arange(len(texts)), settings, reader(texts),
                        Path(scratch), MEMORY,
                    )  # fmt: skip
                recall, precision = against_exact(texts, kept, settings)
                yield {
                    "set": name,
                    "documents": len(texts),
                    "threshold": threshold,
                    "bands x rows": f"{bands}x{rows}",
                    "check": check,
                    "dropped": int((kept != np.arange(len(texts))).sum()),
                    "recall": recall,
                    "precision": precision,
                }


def sets_of(data: Path) -> Iterator[tuple[str, list[str], float, int]]:
    """(name, texts, threshold, n) of planted and labelled sets."""
    draw = random.Random(0)
    vocabulary = [f"w{i}" for i in range(20_000)]
    texts = []
    for _ in range(600):
        base = [draw.choice(vocabulary) for _ in range(draw.randint(40, 400))]
        texts.append(" ".join(base))
        for _ in range(draw.randint(0, 3)):
            rate = draw.random() * 0.1
            texts.append(" ".join(draw.choice(vocabulary) if draw.random() < rate else word for word in base))
    yield "planted edits", texts, 0.8, 5
    if not data.is_dir():
        return
    texts = []
    for path in sorted(data.glob("gutenberg_editions/*/*.gz")):
        text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        texts += [one for one in re.split(r"\r?\n\s*\r?\n", text) if len(one) >= 300]
    yield "paragraphs of editions", texts, 0.8, 5
    yield "cmath distractors", [row["input"] for row in rows_of(data / "cmath" / "distractor_a.jsonl.gz")], 0.7, 3
    rows = rows_of(data / "gpteacher_code" / "codegen_a.jsonl.gz")
    yield "gpteacher_code", [" ".join(str(value) for value in row.values()) for row in rows], 0.7, 5


def rows_of(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def against_exact(texts: list[str], kept: np.ndarray, settings: NearDuplicates) -> tuple[float, float]:
    """Recall: of documents as similar to one that stays before them, the share that goes. Precision: of those that go,
    the share that is as similar to what it is said to repeat."""
    sets = shingle_sets(column(texts), settings)
    sizes = np.array([len(one) for one in sets])
    owners: dict[int, list[int]] = {}
    missed = right = 0
    for document, shingles in enumerate(sets):
        if kept[document] != document:
            common = len(np.intersect1d(shingles, sets[kept[document]], assume_unique=True))
            right += common / (sizes[document] + sizes[kept[document]] - common) >= settings.threshold - 1e-9
            continue
        common_with: dict[int, int] = {}
        for value in shingles.tolist():
            for other in owners.setdefault(value, []):
                common_with[other] = common_with.get(other, 0) + 1
            owners[value].append(document)
        missed += any(
            count / (sizes[document] + sizes[other] - count) >= settings.threshold - 1e-9
            for other, count in common_with.items()
        )
    gone = int((kept != np.arange(len(texts))).sum())
    return right / max(right + missed, 1), right / max(gone, 1)


def show(rows: Iterator[Row], as_json: bool) -> None:
    for row in rows:
        if as_json:
            print(json.dumps(row))
        else:
            values = (
                f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            )
            print("  ".join(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "growth", "accuracy", "one"))
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.what == "one":
        print(json.dumps(one(arguments.documents)))
    elif arguments.what == "speed":
        show(speed(mixed_texts(arguments.megabytes * 1_000_000, arguments.data), arguments.data), arguments.json)
    elif arguments.what == "growth":
        show(growth(), arguments.json)
    else:
        show(curves(), arguments.json)
        show(labelled(arguments.data), arguments.json)


if __name__ == "__main__":
    main()
