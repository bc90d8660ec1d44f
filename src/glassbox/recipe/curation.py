"""Settings of the stages that make documents: crawl and curate."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from glassbox.recipe.base import NOT_IDENTITY, Settings, Stage
from glassbox.recipe.classify import ModelUse, Sampling
from glassbox.recipe.duplicates import Decontaminate, Duplicates
from glassbox.recipe.sources import Source


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


class Engine(Settings):
    """Where curation runs; never part of a result's identity."""

    runner: Literal["local", "ray"] = "local"
    """local: processes of this machine; ray: a Ray cluster whose machines share the runs folder and the input files."""
    address: str = ""
    """ray: the cluster's address; default a cluster of this machine alone."""
    workers: int = Field(default=2, gt=0)
    """Processes that read, extract and judge documents."""
    memory: int = Field(default=4_000_000_000, ge=256_000_000)
    """Bytes that all of them together may use; fewer workers are started where it would not do."""


class CurateStage(Stage):
    """Raw pages, text and code to clean, deduplicated, decontaminated, balanced documents."""

    takes: ClassVar[dict[str, str]] = {
        "pages": "0+",
        "documents": "0+",
        "classifier": "0+",
        "clutter": "0+",
        "problems": "0-1",
    }
    gives: ClassVar[str] = "documents"

    kind: Literal["curate"]
    """Read, extract, filter, deduplicate, decontaminate, sample; what is dropped is kept aside with rule and value."""
    sources: tuple[Source, ...] = Field(min_length=1)
    """Where documents come from. Of duplicates the one of the earlier source stays."""
    models: tuple[ModelUse, ...] = ()
    """Classifiers to apply, after the rules."""
    duplicates: Duplicates = Duplicates()
    """Which repeated documents and passages go."""
    decontaminate: Decontaminate | None = Decontaminate()
    """Removal of evaluation problems; null for none."""
    sampling: Sampling | None = None
    """Up- and down-sampling of what is left; default none."""
    samples: int = Field(default=4, ge=0)
    """Documents kept for the report, of each source and of each rule that dropped some."""
    sheet: int = Field(default=50, ge=0)
    """Documents on the sheet for human checks (sheet.csv), half kept and half dropped."""
    engine: Engine = Field(default=Engine(), json_schema_extra=NOT_IDENTITY)
    """Where it runs."""

    @model_validator(mode="after")
    def _check(self) -> "CurateStage":
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError(f"two sources have the same name: {', '.join(names)}")
        for model in self.models:
            for name in model.sources:
                if name not in names:
                    raise ValueError(f"model '{model.stage}' is applied to '{name}', which is no source")
        if "quality" in self.duplicates.prefer and not self.models:
            raise ValueError("duplicates prefer quality, which one of `models` scores, and there is none")
        if sum(model.share is not None for model in self.models) > 1:
            raise ValueError("only one model may keep a share; chain another curate stage for a second one")
        for what, stage in self._named_stages():
            if stage not in self.inputs:
                raise ValueError(f"{what} '{stage}', which is not in `from`")
        return self

    def _named_stages(self) -> list[tuple[str, str]]:
        """What names another stage, and the stage."""
        named = [(f"source '{one.name}' reads stage", one.stage) for one in self.sources if one.stage]
        named += [(f"source '{one.name}' uses", one.clean.clutter.stage) for one in self.sources if one.clean.clutter]
        named += [("models uses", one.stage) for one in self.models]
        if self.sampling:
            used = [model.stage for model in self.models]
            wanted = [score.stage for score in self.sampling.scores]
            wanted += [self.sampling.category] * bool(self.sampling.category)
            for stage in wanted:
                if stage not in used:
                    raise ValueError(f"sampling goes by '{stage}', which is not among the models")
        return named
