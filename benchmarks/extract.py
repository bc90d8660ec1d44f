"""Main-text extraction and the line model of clutter against gold texts of real pages.

    python benchmarks/extract.py                    ours, resiliparse and (if installed) trafilatura: a table
    python benchmarks/extract.py --data FOLDER      where the gold pages are; default ../shared/data
    python benchmarks/extract.py --json             one JSON line per figure

Token F1 is scrapinghub's measure (4-word shingles; each page's counts are divided by their sum, then added up), and the
same with single words; on the pages of trafilatura's own evaluation, which has segments that must and must not be
there, F1 of segments. The line model is cross-validated: five parts by site, each judged by a model of the other four.
Times are CPU seconds of one process.
"""

import argparse
import gzip
import importlib.util
import json
import re
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from glassbox.curate.html.page import all_text, page_text
from glassbox.curate.models import boosting
from glassbox.curate.models.clutter_labels import Pages, by_gold_text
from glassbox.curate.models.clutter_stage import lines_of, measure, part_of
from glassbox.curate.reading.extract import decode

BLOCKS = "p|div|li|h[1-6]|tr|t[dh]|pre|br|blockquote|section|article|fig\\w+|[uod]l|d[dt]|header|footer"
DATA = Path(__file__).parents[2] / "shared" / "data"


class Gold(NamedTuple):
    """A page with its gold text, or with segments that are content (`present`) or not (`absent`)."""

    collection: str
    site: str
    html: str
    text: str = ""
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def gold_pages(data: Path) -> list[Gold]:
    """All gold pages of the shared data folder."""
    return [*_articles(data), *_readability(data), *_markdown(data), *_segments(data)]


def _articles(data: Path) -> Iterator[Gold]:
    truth = json.loads((data / "article_extraction" / "ground-truth.json").read_text(encoding="utf-8"))
    for path in sorted((data / "article_extraction" / "html").glob("*.html.gz")):
        gold = truth[path.name.partition(".")[0]]
        html = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        yield Gold("article_extraction", _site(gold["url"]), html, gold["articleBody"])


def _readability(data: Path) -> Iterator[Gold]:
    files = _unpacked(data / "readability_pages" / "pages.tar.gz")
    for name in sorted(name for name in files if name.endswith("/expected.html")):
        folder = name.rpartition("/")[0]
        html = decode(files[f"{folder}/source.html"], "", True) or ""
        yield Gold("readability_pages", folder, html, _stripped(files[name].decode()))


def _stripped(html: str) -> str:
    """The text of clean markup, in no extractor's way: tags of blocks are line feeds, all others nothing."""
    return unescape(re.sub(r"<[^>]*>", "", re.sub(rf"<(?=/?(?:{BLOCKS})\b)", "\n<", html)))


def _markdown(data: Path) -> Iterator[Gold]:
    with gzip.open(data / "webmainbench" / "sample.jsonl.gz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            text = row.get("content") or row.get("groundtruth_content") or row["llm_webkit_md"]
            yield Gold("webmainbench", _site(row["url"]), row["html"], text)


def _segments(data: Path) -> Iterator[Gold]:
    files = {name.rpartition("/")[2]: held for name, held in _unpacked(data / "trafilatura_eval/pages.tar.gz").items()}
    truth = json.loads((data / "trafilatura_eval" / "evaldata.json").read_text(encoding="utf-8"))
    for url, gold in truth.items():
        page = files[gold["file"]]
        html = decode(page, "", True) or page.decode("utf-8", "replace")
        yield Gold("trafilatura_eval", _site(url), html, "", tuple(gold["with"]), tuple(gold["without"]))


def _unpacked(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}


def _site(url: str) -> str:
    return ".".join((urlsplit(url).hostname or url).split(".")[-2:])


def token_f1(pairs: list[tuple[str, str]], size: int) -> tuple[float, float, float]:
    """F1, precision and recall of (found, wanted) texts by shingles of `size` words, every page of the same weight."""
    hit = extra = missed = 0.0
    for found, wanted in ((_grams(found, size), _grams(wanted, size)) for found, wanted in pairs):
        whole = (found | wanted).total() or 1
        hit += (found & wanted).total() / whole
        extra += (found - wanted).total() / whole
        missed += (wanted - found).total() / whole
    return _f1(hit, extra, missed)


def segment_f1(pages: list[Gold], texts: list[str]) -> tuple[float, float, float]:
    """F1, precision and recall of segments, blanks made one."""
    hit = extra = missed = 0
    for page, text in zip(pages, texts, strict=True):
        flat = " ".join(text.split())
        kept = sum(" ".join(segment.split()) in flat for segment in page.present)
        hit, missed = hit + kept, missed + len(page.present) - kept
        extra += sum(" ".join(segment.split()) in flat for segment in page.absent)
    return _f1(hit, extra, missed)


def _f1(hit: float, extra: float, missed: float) -> tuple[float, float, float]:
    precision, recall = hit / max(hit + extra, 1e-9), hit / max(hit + missed, 1e-9)
    return 2 * precision * recall / max(precision + recall, 1e-9), precision, recall


def _grams(text: str, size: int) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1)))


def extractors() -> dict[str, Callable[[str], str]]:
    """Ours, and the others that are installed, each with its ways of working."""
    found: dict[str, Callable[[str], str]] = {"glassbox": page_text}
    if importlib.util.find_spec("resiliparse"):
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.html import HTMLTree

        found["resiliparse"] = lambda html: extract_plain_text(
            HTMLTree.parse(html), main_content=True, preserve_formatting=True, alt_texts=False, comments=False
        )
    if importlib.util.find_spec("trafilatura"):
        import trafilatura

        for name, way in (("", {}), (" precision", {"favor_precision": True}), (" recall", {"favor_recall": True})):
            found[f"trafilatura{name}"] = lambda html, way=way: (
                trafilatura.extract(html, include_comments=False, **way) or ""
            )
    return found


def extraction(pages: list[Gold]) -> Iterator[dict[str, Any]]:
    """A row for each extractor and collection: F1 (of shingles, words or segments) and MB of HTML a CPU-second."""
    for name, extract in extractors().items():
        extract(pages[0].html)
        for collection in dict.fromkeys(page.collection for page in pages):
            chosen = [page for page in pages if page.collection == collection]
            start = time.process_time()
            texts = [extract(page.html) for page in chosen]
            seconds = time.process_time() - start
            speed = sum(len(page.html.encode("utf-8", "replace")) for page in chosen) / 1e6 / max(seconds, 1e-9)
            row: dict[str, Any] = {"extractor": name, "collection": collection, "pages": len(chosen)}
            if chosen[0].text:
                pairs = [(text, page.text) for text, page in zip(texts, chosen, strict=True)]
                row |= {"f1": token_f1(pairs, 4), "word_f1": token_f1(pairs, 1)[0]}
            else:
                row["f1"] = segment_f1(chosen, texts)
            yield row | {"mb_per_s": speed}


def line_model(pages: list[Gold], form: Callable[[str], str] = page_text, trees: int = 150) -> dict[str, float]:
    """Line F1 of the clutter model and of keeping all lines, over all pages with gold text, cross-validated by site.

    `form` makes a page's lines: `page_text` what the extractor leaves, `all_text` the whole page.
    """
    held = Pages()
    for page in pages:
        if page.text:
            text = form(page.html)
            held.add(text, by_gold_text(text, page.text), page.site)
    sites = sorted(set(held.sites))
    lines = model = everything = 0.0
    for part in range(5):
        chosen = np.array([sites.index(site) % 5 == part for site in held.sites])
        features, labels = lines_of(part_of(held, ~chosen))
        quality = measure(boosting.train(features, labels, trees), part_of(held, chosen))
        size = quality["held_out"]["lines"]
        lines, model = lines + size, model + size * quality["model"]["f1"]
        everything += size * quality["keep_all"]["f1"]
    return {"lines": lines, "model_f1": model / lines, "keep_all_f1": everything / lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    pages = gold_pages(options.data)
    rows = [
        *extraction(pages),
        *({"lines_of": form.__name__} | line_model(pages, form) for form in (page_text, all_text)),
    ]
    for row in rows:
        print(json.dumps(row) if options.json else "  ".join(f"{name} {_shown(value)}" for name, value in row.items()))


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "/".join(f"{one:.4f}" for one in value)
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
