"""Curation against its peers on one corpus in one run: near duplicates, rules, tokens, main text of pages, language.

    python benchmarks/curate.py --data FOLDER              what there is in FOLDER and in this interpreter's library
    python benchmarks/curate.py --corpus FOLDER            documents of any JSON Lines files with a field `text`
    python benchmarks/curate.py --only tokens --json       one part; one JSON line per row

MB per CPU second and peak memory of a process that does nothing else, on one thread, after a first run on 0.3 MB that
compiles and loads. A slow side does as much of the corpus, from its start, as some seconds allow. One text in five is
followed by a near copy (1% of its words changed); `planted found` says in how many of these pairs one is removed.
Peers are measured if they can be imported by one of the interpreters that --peers names; install them where you like.
"""

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate_measure import SIDES

from glassbox.tokens.tokenizer import train_tokenizer

VOCABULARY, TRAINED_ON = 32_768, 8_000_000
PIECE = 6000
"""Characters of a document cut from a book."""
CODES = {"eng": "en", "deu": "de", "fra": "fr", "spa": "es", "ita": "it", "por": "pt", "nld": "nl", "rus": "ru",
         "tur": "tr", "pol": "pl", "jpn": "ja", "cmn": "zh", "heb": "he", "fin": "fi", "hun": "hu", "ukr": "uk",
         "ell": "el", "ces": "cs", "swe": "sv", "dan": "da", "kor": "ko", "ara": "ar", "vie": "vi"}  # fmt: skip
"""Three-letter codes of the sentences' file -> those of the identifiers."""


def lines_of(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        yield from file


def texts_of(data: Path) -> Iterator[str]:
    """Prose of the data sets and Python files."""
    for path in sorted(data.glob("*/*.jsonl.gz")):
        for row in map(json.loads, lines_of(path)):
            fields = row.values() if isinstance(row, dict) else []
            yield "\n".join(value for value in fields if isinstance(value, str) and len(value) > 200)
    for path in sorted(data.glob("gutenberg/*.gz")):
        book = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        yield from (book[start : start + PIECE] for start in range(0, len(book), PIECE))
    for folder in ("stdlib", "purelib"):
        for path in sorted(Path(sysconfig.get_path(folder)).rglob("*.py")):
            yield path.read_bytes().decode("utf-8", "replace")


def texts_in(corpus: Path) -> Iterator[str]:
    for path in sorted(corpus.rglob("*.jsonl*")):
        yield from (json.loads(line)["text"] for line in lines_of(path))


def with_copies(texts: list[str], most: int) -> list[dict[str, Any]]:
    """Items in a mixed order, one in five followed within a hundred places by a near copy, up to `most` bytes."""
    draw, items, waiting, total = random.Random(0), [], [], 0
    draw.shuffle(texts)
    for text in texts:
        if total > most:
            break
        items.append({"text": text})
        if draw.random() < 0.2 and text.count(" ") > 100:
            words = text.split(" ")
            for place in draw.sample(range(len(words)), max(1, len(words) // 100)):
                words[place] = draw.choice(words)
            waiting.append((len(items) + draw.randrange(100), {"text": " ".join(words), "copy_of": len(items) - 1}))
            total += len(text.encode())
        while waiting and waiting[0][0] <= len(items):
            items.append(waiting.pop(0)[1])
        total += len(text.encode())
    return items


def pages_of(data: Path) -> Iterator[dict[str, str]]:
    """Pages with hand-made main text."""
    folder = data / "article_extraction"
    if folder.is_dir():
        for name, row in sorted(json.loads((folder / "ground-truth.json").read_text(encoding="utf-8")).items()):
            html = gzip.decompress((folder / "html" / f"{name}.html.gz").read_bytes()).decode("utf-8", "replace")
            yield {"html": html, "gold": row["articleBody"]}
    for path in sorted(data.glob("webmainbench/*.jsonl.gz")):
        for row in map(json.loads, lines_of(path)):
            yield {"html": row["html"], "gold": row["groundtruth_content"]}


def sentences_of(data: Path) -> Iterator[dict[str, str]]:
    for path in sorted(data.glob("tatoeba_langid/*.tsv.gz")):
        for line in lines_of(path):
            code, _, text = line.rstrip("\n").partition("\t")
            if code in CODES:
                yield {"text": text, "lang": CODES[code]}


def write(path: Path, items: Any) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for item in items)
    return path


def measured(part: str, side: str, path: Path, interpreters: list[str], folder: Path) -> dict[str, Any]:
    """The row of one side, from the first interpreter that has what it needs."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    places = {"TOKENIZER": str(folder / "tokenizer.json"), "SENTENCES": str(folder / "sentences.jsonl")}
    environment = os.environ | single | places | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    script = str(Path(__file__).with_name("curate_measure.py"))
    missing = ""
    for interpreter in interpreters if side != "glassbox" else [sys.executable]:
        command = [interpreter, script, part, side, str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"failed": done.stderr.strip().splitlines()[-1][:160]}
        row = json.loads(done.stdout.splitlines()[-1])
        if "missing" not in row:
            return row
        missing = missing or row["missing"]
    return {"not installed": missing}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--corpus", type=Path, help="folder of .jsonl or .jsonl.gz files instead")
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--only", choices=[*SIDES], help="one part alone")
    parser.add_argument("--peers", default=sys.executable, help="interpreters that have the peers, comma-separated")
    parser.add_argument("--json", action="store_true", help="one JSON line per row")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [
            text for text in (texts_in(arguments.corpus) if arguments.corpus else texts_of(arguments.data)) if text
        ]
        items = with_copies(texts, int(arguments.megabytes * 1e6))
        corpus = write(folder / "corpus.jsonl", items)
        pages = write(folder / "pages.jsonl", pages_of(arguments.data))
        write(folder / "sentences.jsonl", sentences_of(arguments.data))
        if arguments.only in (None, "tokens"):
            sample = [item["text"] for item in items][: 1 + TRAINED_ON * len(items) // int(arguments.megabytes * 1e6)]
            (folder / "tokenizer.json").write_text(train_tokenizer(sample, VOCABULARY).to_str(), encoding="utf-8")
        for part in [arguments.only] if arguments.only else SIDES:
            for side in SIDES[part]:
                path = pages if part == "pages" else corpus
                row = {"part": part, "side": side}
                row |= measured(part, side, path, arguments.peers.split(","), folder)
                text = "  ".join(f"{key} {value}" for key, value in list(row.items())[2:])
                print(json.dumps(row) if arguments.json else f"{part:9} {side:15} {text}", flush=True)


if __name__ == "__main__":
    main()
