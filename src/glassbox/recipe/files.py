"""Which files a source names, in a fixed order, and the names documents carry as their origin."""

import platform
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from glassbox.errors import RequestError
from glassbox.recipe.base import Stage
from glassbox.recipe.classify import ClassifierStage
from glassbox.recipe.clutter import ClutterStage
from glassbox.recipe.curation import CrawlStage, CurateStage
from glassbox.recipe.paths import files_at, home
from glassbox.recipe.sources import Source
from glassbox.recipe.training import ImportStage

CODE_ENDINGS = (
    *(".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".rs", ".go", ".java", ".kt", ".scala", ".js", ".jsx"),
    *(".ts", ".tsx", ".rb", ".php", ".cs", ".swift", ".lua", ".pl", ".r", ".jl", ".hs", ".ml", ".ex", ".sh", ".sql"),
)
ENDINGS: dict[str, tuple[str, ...]] = {
    "warc": (".warc", ".warc.gz"),
    "html": (".html", ".htm", ".xhtml"),
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson"),
    "parquet": (".parquet",),
    "text": (".txt", ".md", ".rst", ".tex"),
    "code": CODE_ENDINGS,
}
"""What a folder is searched for. A file that is named itself is read whatever its ending."""
STDLIB_LEFT_OUT = ("site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test")
"""Folders of the standard library that are not read: what was installed into it, and tests (broken code on purpose)."""


@dataclass(frozen=True)
class InputFile:
    """A file to read and the name its documents carry: the path as the user wrote it, or stage/path, never more."""

    path: Path
    origin: str


@dataclass(frozen=True)
class LeftOut:
    """A folder that was not read: how many files and bytes it holds."""

    origin: str
    files: int
    bytes: int


def raw_files(stage: Stage) -> list[Path]:
    """Files from outside the run that a stage reads, sorted; their hashes enter its fingerprint."""
    if isinstance(stage, ImportStage):
        return checkpoint_files(stage)
    if isinstance(stage, (ClassifierStage, ClutterStage)):
        return sorted({path for file in stage.labels.files for path in file.files()})
    if isinstance(stage, CurateStage):
        return sorted({*source_files(stage), *_list_files(stage)})
    return []


def _list_files(config: CurateStage) -> set[Path]:
    """Evaluation sets, block lists, word lists and the encoder of a curate stage."""
    found = {path for one in (config.decontaminate.sets if config.decontaminate else ()) for path in one.files()}
    words = (home(word) for source in config.sources for word in source.bad_words)
    found.update(path for path in words if path.is_file())
    if config.duplicates.semantic:
        found.update(config.duplicates.semantic.files())
    return found.union(*(source.urls.files() for source in config.sources if source.urls))


def checkpoint_files(config: ImportStage) -> list[Path]:
    """The files of an imported checkpoint: its folder's own, those below it not. Raises RequestError without any."""
    folder = home(config.path)
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if not any(path.name == "config.json" for path in files):
        what = "holds no config.json" if folder.is_dir() else "does not exist"
        raise RequestError(f"{config.path} {what}; set the import stage's path to the folder of a checkpoint")
    return files


def surroundings(stage: Stage) -> dict[str, str]:
    """Facts of the machine that decide a stage's result: the version of Python whose pages are crawled."""
    return {"python": platform.python_version()} if isinstance(stage, CrawlStage) else {}


def source_files(config: CurateStage) -> list[Path]:
    """The raw input files of a curate stage, sorted: what its fingerprint depends on beside settings and stages.

    Pages of crawl stages are artefacts of their own and not listed, nor are data sets streamed from a hub. A path that
    does not exist, or holds no file of its format, raises RequestError.
    """
    found = {file.path for source in config.sources if not source.stage for file in files_of(source, {})[0]}
    return sorted(found)


def files_of(source: Source, pages: Mapping[str, Path]) -> tuple[list[InputFile], list[LeftOut]]:
    """The files of one source in reading order, and folders left out. `pages`: stage -> folder of what it left."""
    if source.stage:
        folder = pages[source.stage]
        if source.format == "documents":
            return [InputFile(path, source.stage) for path in sorted((folder / "documents").glob("*.parquet"))], []
        return [InputFile(path, f"{source.stage}/{path.relative_to(folder)}") for path in _below(folder, "warc")], []
    if source.path == "python:stdlib":
        return _stdlib()
    if source.path.startswith("hf://"):
        folder = Path(source.path.removeprefix("hf://"))
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
        return [InputFile(path, str(path)) for path in files], []
    paths = files_at(source.path, ENDINGS[source.format], f"source '{source.name}'")
    return [InputFile(path, str(path)) for path in paths], []


def _below(folder: Path, file_format: str) -> list[Path]:
    paths = (path for path in folder.rglob("*") if path.name.lower().endswith(ENDINGS[file_format]) and path.is_file())
    return sorted(paths)


def _stdlib() -> tuple[list[InputFile], list[LeftOut]]:
    root = Path(sysconfig.get_path("stdlib"))
    files, left_out = [], []
    for path in _walk(root):
        if path.is_dir():
            below = [] if path.name.endswith("-packages") else [file for file in path.rglob("*.py") if file.is_file()]
            if below:
                name = f"python:stdlib/{path.relative_to(root)}"
                left_out.append(LeftOut(name, len(below), sum(file.stat().st_size for file in below)))
        # Build settings of this one machine, written as code.
        elif path.suffix == ".py" and not path.name.startswith("_sysconfigdata"):
            files.append(InputFile(path, f"python:stdlib/{path.relative_to(root)}"))
    return files, left_out


def _walk(folder: Path) -> Iterator[Path]:
    """Files below `folder` in sorted order; of folders only those left out, which are not entered."""
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name in STDLIB_LEFT_OUT or path.name.startswith("config-"):
            yield path
        else:
            yield from _walk(path)
