"""Settings of the stages that make documents: crawl and curate."""

import difflib
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from glassbox.recipe.base import NOT_IDENTITY, Settings, Stage
from glassbox.recipe.rules import LINE_RULES, RULE_SETS


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class CrawlStage(Stage):
    """Crawl a web site over HTTP into WARC files."""

    takes: ClassVar[dict[str, str]] = {}
    gives: ClassVar[str] = "pages"

    kind: Literal["crawl"]
    """Follow links breadth first and record every page."""
    site: Literal["pydoc"] = "pydoc"
    """pydoc: this interpreter's own documentation server, started on the loopback address for the crawl."""
    pages: int | None = Field(default=None, gt=0)
    """Stop after this many pages; default all."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds to wait for one page before it counts as failed."""
    file_bytes: int = Field(default=64_000_000, gt=0)
    """Start a new WARC file when one reaches this many compressed bytes."""


class Language(Settings):
    """Keep documents whose main language is among those wanted."""

    keep: Names = ("en",)
    """Codes of the languages to keep, as fastText's lid.176 names them (en, de, zh, ...)."""
    min_score: float = Field(default=0.65, ge=0, le=1)
    """Smallest probability of that language."""


class EdgeLines(Settings):
    """Cut lines that many documents of a source share at their head or foot (navigation, licences)."""

    lines: int = Field(default=5, gt=0)
    """How many non-empty lines at each end of a document are looked at."""
    copies: int = Field(default=200, gt=0)
    """A line at the edge of more documents than this is cut wherever it stands at an edge."""


class Source(Settings):
    """One source of documents and the rules it goes through."""

    name: str = Field(pattern="^[a-z][a-z0-9_-]*$")
    """What the source is called in mixtures and reports."""
    format: Literal["warc", "html", "jsonl", "parquet", "text", "code", "hf"]
    """How documents are stored; hf streams a Hugging Face data set."""
    path: str = ""
    """A file, a folder (searched whole) or a pattern with *; python:stdlib (this interpreter's library, format code);
    hf://NAME or hf://FOLDER (format hf)."""
    stage: str = ""
    """Instead of a path: the name of the crawl stage whose pages to read."""
    text_key: str = "text"
    """jsonl, parquet, hf: the field that holds the text."""
    split: str = "train"
    """hf: the split to stream."""
    limit: int | None = Field(default=None, gt=0)
    """Read at most this many documents; default all."""
    language: Language | None = None
    """Languages to keep; default any. Not asked of format code."""
    edge_lines: EdgeLines | None = None
    """Cut shared head and foot lines; default none."""
    lines: Names = ()
    """Line rules: repeated (asked first, whatever its place), then in the order given any of long_word, javascript,
    policy, terminal, few_words, upper_case, digits, counter, bare_path."""
    rules: Names = ()
    """Rule sets, in this order: gopher_quality, gopher_repetition, c4, fineweb, code, reference."""
    thresholds: dict[str, float] = Field(default={})
    """Rule name (such as gopher_min_words) -> a threshold that replaces the rule's own."""

    @model_validator(mode="after")
    def _check(self) -> "Source":
        if bool(self.path) == bool(self.stage):
            raise ValueError(f"source '{self.name}' needs either a path or a stage")
        if self.stage and self.format != "warc":
            raise ValueError(f"source '{self.name}' reads pages of a stage, whose format is warc, not {self.format}")
        if self.path.startswith("python:") and (self.path != "python:stdlib" or self.format != "code"):
            raise ValueError(f"source '{self.name}': '{self.path}' is no path; python:stdlib with format code is meant")
        if (self.format == "hf") != self.path.startswith("hf://"):
            raise ValueError(f"source '{self.name}': format hf and a path that starts with hf:// go together")
        known = [rule.name for name in self.rules if name in RULE_SETS for rule in RULE_SETS[name]]
        for what, given, allowed in (
            ("line rule", self.lines, list(LINE_RULES)),
            ("rule set", self.rules, list(RULE_SETS)),
            ("rule in the source's rule sets", tuple(self.thresholds), known),
        ):
            for name in given:
                if name not in allowed:
                    near = difflib.get_close_matches(name, allowed, 1, 0.0)
                    hint = f"; the nearest is '{near[0]}'" if near else ""
                    raise ValueError(f"source '{self.name}': '{name}' is no {what}{hint}")
        return self


class NearDuplicates(Settings):
    """Near-duplicate removal by MinHash and locality-sensitive hashing, verified on whole signatures."""

    ngram: int = Field(default=5, gt=0)
    """Words in a shingle; words are runs of letters and digits, lower case. A shorter document is one shingle."""
    permutations: int = Field(default=128, gt=0)
    """Hash functions, the length of a signature."""
    bands: int = Field(default=20, gt=0)
    """Bands a signature is cut into; documents that agree in one whole band are compared."""
    rows: int = Field(default=6, gt=0)
    """Hash values in a band."""
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Estimated Jaccard similarity to a kept document from which a document is dropped."""

    @model_validator(mode="after")
    def _check(self) -> "NearDuplicates":
        if self.bands * self.rows > self.permutations:
            raise ValueError(f"{self.bands} bands of {self.rows} rows need more than {self.permutations} permutations")
        return self


class Decontaminate(Settings):
    """Drop documents that share a word n-gram with an evaluation problem (the held-out split of the problems stage)."""

    ngram: int = Field(default=13, gt=0)
    """Words of an n-gram; words are runs of letters and digits, lower case. A shorter problem matches as a whole."""


class CurateStage(Stage):
    """Raw pages, text and code to clean, deduplicated, decontaminated documents."""

    takes: ClassVar[dict[str, str]] = {"pages": "0+", "problems": "0-1"}
    gives: ClassVar[str] = "documents"

    kind: Literal["curate"]
    """Read, extract, filter, deduplicate, decontaminate; everything dropped is kept aside with rule and value."""
    sources: tuple[Source, ...] = Field(min_length=1)
    """Where documents come from. Of duplicates the one of the earlier source stays."""
    exact_duplicates: bool = True
    """Whether of documents equal in all but white space only the first stays."""
    near_duplicates: NearDuplicates | None = NearDuplicates()
    """Near-duplicate removal over all sources; null for none."""
    decontaminate: Decontaminate | None = Decontaminate()
    """Removal of evaluation problems, where a problems stage is given; null for none."""
    samples: int = Field(default=4, ge=0)
    """Documents kept for the report, of each source and of each rule that dropped some."""
    workers: int = Field(default=2, gt=0, json_schema_extra=NOT_IDENTITY)
    """Threads that extract and judge documents."""

    @model_validator(mode="after")
    def _check(self) -> "CurateStage":
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError(f"two sources have the same name: {', '.join(names)}")
        for source in self.sources:
            if source.stage and source.stage not in self.inputs:
                raise ValueError(f"source '{source.name}' reads stage '{source.stage}', which is not in `from`")
        return self
