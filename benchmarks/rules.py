"""Speed of the rules by their parts, on any JSON Lines files with a field `text`, or on this interpreter's library.

    python benchmarks/rules.py [FOLDER]

MB per CPU second of one thread, after a first batch that compiles and loads.
"""

import itertools
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate import texts_in
from glassbox.curate.rules.lines import cut_lines, edge_hashes
from glassbox.curate.rules.statistics import statistics
from glassbox.curate.rules.verdicts import Verdicts, judge_statistics
from glassbox.recipe.sources import Source

BATCH, MEGABYTES = 256, 20
WEB = ("gopher_repetition", "gopher_quality", "c4_datatrove", "fineweb")
C4_LINES = ("citations", "long_word", "javascript", "policy", "few_words")
"""C4's line rules as FineWeb runs them, which leaves out the one on ends of lines."""


def judge(texts: pa.Array, sets: tuple[str, ...] = WEB) -> None:
    """Statistics and verdicts of some rule sets."""
    source, n = Source(name="web", format="text", path="-", rules=sets), len(texts)
    judge_statistics(Verdicts.kept(n), statistics(texts, sets=sets), [""] * n, np.full(n, "en", object), source)


def together(texts: pa.Array) -> None:
    """C4's line rules, then the rule sets of FineWeb on what is left."""
    judge(cut_lines(texts, C4_LINES)[0])


PARTS: dict[str, Callable[[pa.Array], object]] = {
    "line rules of C4 without ends": lambda texts: cut_lines(texts, C4_LINES),
    "line rules of C4 with ends": lambda texts: cut_lines(texts, (*C4_LINES, "terminal")),
    "rules of Gopher, C4, FineWeb": judge,
    "both: FineWeb's rules": together,
    "the three readings of Gopher": lambda texts: judge(texts, ("gopher_repetition_dclm", "gopher_repetition_dolma")),
    "rules of dots.llm1": lambda texts: judge(texts, ("dots",)),
    "rules of StarCoder": lambda texts: judge(texts, ("starcoder",)),
    "repeats in succession": lambda texts: judge(texts, ("repeats",)),
    "every statistic": statistics,
    "edge lines": lambda texts: edge_hashes(texts, 5),
}


def library() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        yield path.read_bytes().decode("utf-8", "replace")


def main() -> None:
    texts = list(texts_in(Path(sys.argv[1])) if len(sys.argv) > 1 else library())
    texts = texts[: sum(size < MEGABYTES * 1e6 for size in itertools.accumulate(map(len, texts)))]
    batches = [pa.array(texts[at : at + BATCH], pa.large_string()) for at in range(0, len(texts), BATCH)]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts)} documents, {megabytes:.1f} MB")
    for name, part in PARTS.items():
        part(batches[0])
        start = time.process_time()
        for batch in batches:
            part(batch)
        print(f"{name:32} {megabytes / (time.process_time() - start):8.1f} MB per CPU second")


if __name__ == "__main__":
    main()
