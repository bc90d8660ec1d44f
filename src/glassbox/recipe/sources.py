"""Settings of one source of documents: where they are, how their text is cleaned, which rules they go through."""

import difflib
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from glassbox.recipe.base import Names, Settings
from glassbox.recipe.paths import files_at, home
from glassbox.recipe.rules import LINE_RULES, RULE_SETS

FieldName = Literal["text", "html", "url", "title", "path", "licence", "stars", "repository"]
PersonalData = Literal["email", "ip", "phone", "card", "key"]


READ_OF: dict[str, tuple[str, ...]] = {
    "fields": ("jsonl", "parquet", "hf"),
    "urls": ("warc", "jsonl", "parquet", "hf", "documents"),
    "subset": ("hf", "documents"),
}
"""Settings of a source that only some formats know -> those formats."""


class UrlRules(Settings):
    """What a document's address alone decides, after RefinedWeb (arXiv:2306.01116, app. G.1) and datatrove's filter."""

    domains: Names = ()
    """Files of blocked host or domain names, one a line; a name blocks all hosts below it. A folder in the layout of
    UT1 (category/domains, category/urls) is read whole."""
    urls: Names = ()
    """Files of blocked addresses, one a line, compared in the form that `once` compares."""
    strict: Names = ()
    """Substrings that block an address when all but letters and digits is taken out of it. Of all word lists: a file's
    path (one word a line), or the words themselves."""
    hard: Names = ()
    """Words of an address (runs of letters and digits) of which one blocks it."""
    soft: Names = ()
    """Words of an address of which two block it."""
    once: bool = False
    """Whether of documents with the same address (scheme, user, default port, trailing slash, fragment and tracking
    parameters aside) only one stays, over all sources."""

    def files(self) -> list[Path]:
        """The lists and word lists that are files, sorted. Raises RequestError for one that does not exist."""
        lists = [path for given in (*self.domains, *self.urls) for path in files_at(given, ("",), "the address rules")]
        words = (home(word) for word in (*self.strict, *self.hard, *self.soft))
        return sorted({*lists, *(path for path in words if path.is_file())})


class Language(Settings):
    """Keep documents whose main language is among those wanted."""

    keep: Names = ("en",)
    """Codes of the languages to keep, as fastText's lid.176 names them (en, de, zh, ...)."""
    min_score: float = Field(default=0.65, ge=0, le=1)
    """Smallest probability of that language."""


class EdgeLines(Settings):
    """Cut lines that many documents of a source share at their head or foot (dots.llm1, arXiv:2506.05767, app. C.2)."""

    lines: int = Field(default=5, gt=0)
    """How many lines at each end of a document are looked at; empty ones and those of symbols alone do not count."""
    copies: int = Field(default=200, ge=0)
    """The first so many documents of the source with a line at their edge keep it; from all others it is cut. The
    report's 200 are meant for a crawl of the web; 3 suit ten thousand documents."""


class ClutterModel(Settings):
    """Cut the lines that a trained line model scores low."""

    stage: str
    """The stage of kind clutter that trained it."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """Lines scored lower are cut."""


class Clean(Settings):
    """How the text of a document is edited, in the order of these fields; every cut is kept in the column `cuts`."""

    repair: bool = False
    """Mend broken encodings ("cafÃ©") and put the text in Unicode form NFC (ftfy)."""
    edge_lines: EdgeLines | None = None
    """Cut shared head and foot lines; default none."""
    lines: Names = ()
    """Line rules, asked in the order given; see docs/curation.md for what each one cuts."""
    clutter: ClutterModel | None = None
    """Cut clutter lines by a trained model; default none."""
    mask: tuple[PersonalData, ...] = ()
    """Personal data to put placeholders for: email, ip (public addresses), phone, card (by Luhn's check), key (access
    keys and private keys)."""


class Source(Settings):
    """One source of documents and the rules it goes through."""

    name: str = Field(pattern="^[a-z][a-z0-9_-]*$")
    """What the source is called in mixtures and reports."""
    format: Literal["warc", "html", "jsonl", "parquet", "text", "code", "hf", "documents"]
    """How documents are stored; hf streams a Hugging Face data set; documents are those of an earlier curate stage and
    of its source of the same name."""
    path: str = ""
    """A file, a folder (searched whole) or a pattern with *; python:stdlib (this interpreter's library, format code);
    hf://NAME or hf://FOLDER (format hf)."""
    stage: str = ""
    """Instead of a path: the crawl stage whose pages (format warc) or the curate stage whose documents to read."""
    subset: str = ""
    """hf: the data set's configuration, or a folder inside it; documents: the source there, if it has another name."""
    split: str = "train"
    """hf: the split to stream."""
    limit: int | None = Field(default=None, gt=0)
    """Read at most this many documents; default all."""
    fields: dict[FieldName, str] = Field(default={})
    """jsonl, parquet, hf: what the file calls a field, where it is not the name itself ({text: content})."""
    urls: UrlRules | None = None
    """Rules on addresses; default none."""
    clean: Clean = Clean()
    """How texts are edited before the rules see them."""
    language: Language | None = None
    """Languages to keep; default any. Not asked of format code."""
    rules: Names = ()
    """Rule sets, asked in this order; see docs/curation.md for the rules of each."""
    bad_words: Names = ()
    """The list of the rule set bad_words: files (one entry a line, such as LDNOOBW's), or the words themselves."""
    thresholds: dict[str, float] = Field(default={})
    """Rule name (such as gopher_min_words) -> a threshold that replaces the rule's own."""

    @model_validator(mode="after")
    def _check(self) -> "Source":
        if bool(self.path) == bool(self.stage):
            raise ValueError(f"source '{self.name}' needs either a path or a stage")
        if self.stage and self.format not in ("warc", "documents"):
            raise ValueError(
                f"source '{self.name}' reads a stage, whose format is warc (pages) or documents, not {self.format}"
            )
        if self.format == "documents" and not self.stage:
            raise ValueError(f"source '{self.name}': format documents reads a stage, not a path")
        if self.path.startswith("python:") and (self.path != "python:stdlib" or self.format != "code"):
            raise ValueError(f"source '{self.name}': '{self.path}' is no path; python:stdlib with format code is meant")
        if ("bad_words" in self.rules) != bool(self.bad_words):
            raise ValueError(f"source '{self.name}': the rule set bad_words and a list in bad_words go together")
        if (self.format == "hf") != self.path.startswith("hf://"):
            raise ValueError(f"source '{self.name}': format hf and a path that starts with hf:// go together")
        for setting, formats in READ_OF.items():
            if getattr(self, setting) and self.format not in formats:
                raise ValueError(f"source '{self.name}': {setting} means nothing to format {self.format}")
        known = [rule.name for name in self.rules if name in RULE_SETS for rule in RULE_SETS[name]]
        for what, given, allowed in (
            ("line rule", self.clean.lines, list(LINE_RULES)),
            ("rule set", self.rules, list(RULE_SETS)),
            ("rule in the source's rule sets", tuple(self.thresholds), known),
        ):
            for name in given:
                if name not in allowed:
                    near = difflib.get_close_matches(name, allowed, 1, 0.0)
                    hint = f"; the nearest is '{near[0]}'" if near else ""
                    raise ValueError(f"source '{self.name}': '{name}' is no {what}{hint}")
        return self
