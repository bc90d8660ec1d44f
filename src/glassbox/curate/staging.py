"""The folder a curation works in: what every worker must know, and each pass's results part by part.

Everything here is a file, so that workers of any machine find it and an interrupted stage goes on at the next part. A
part's result appears whole or not at all.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from glassbox.curate.parts import Part
from glassbox.ledger.writing import atomic_open, atomic_path
from glassbox.recipe.curation import CurateStage
from glassbox.recipe.files import InputFile
from glassbox.recipe.sources import Source

T = TypeVar("T")
_FORGET: list[Callable[[], None]] = []


def read_once(read: Callable[..., T]) -> Callable[..., T]:
    """`read`, whose results this process keeps until a stage begins."""
    remembered = cache(read)
    _FORGET.append(remembered.cache_clear)
    return remembered


def forget() -> None:
    """Let go what `read_once` keeps: files of the same name may hold something else when another stage begins."""
    for clear in _FORGET:
        clear()


@dataclass(frozen=True)
class Staging:
    """A stage's settings, the artefacts it takes, and its parts over all sources in order."""

    folder: Path
    config: CurateStage
    seed: int
    artefacts: dict[str, Path]
    """Stage -> folder of what it left."""
    problems: Path | None
    parts: tuple[tuple[int, Part], ...]
    """(source number, part)."""

    def save(self) -> None:
        about = {
            "config": self.config.model_dump(mode="json", by_alias=True),
            "seed": self.seed,
            "artefacts": {name: str(path) for name, path in self.artefacts.items()},
            "problems": str(self.problems) if self.problems else None,
            "parts": [
                [source, [[str(file.path), file.origin] for file in part.files], part.start, part.stop]
                for source, part in self.parts
            ],
        }
        with atomic_open(self.folder / "context.json", "wb") as file:
            file.write(orjson.dumps(about))

    def source(self, number: int) -> Source:
        """The source of part `number`."""
        return self.config.sources[self.parts[number][0]]

    def path(self, step: str, number: int, ending: str) -> Path:
        return self.folder / f"{step}-{number:06d}.{ending}"

    def todo(self, step: str, ending: str) -> list[int]:
        """Parts whose result of a pass is not there yet."""
        return [number for number in range(len(self.parts)) if not self.path(step, number, ending).exists()]

    def facts(self, step: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """(part number, what its JSON result of a pass says), in order."""
        for number in range(len(self.parts)):
            yield number, orjson.loads(self.path(step, number, "json").read_bytes())

    def first(self, source: int) -> list[int]:
        """The part numbers of a source."""
        return [number for number, (one, _) in enumerate(self.parts) if one == source]


@read_once
def load(folder: Path) -> Staging:
    """The staging that `save` left in `folder`; read once in a worker."""
    about = orjson.loads((folder / "context.json").read_bytes())
    parts = tuple(
        (source, Part(tuple(InputFile(Path(path), origin) for path, origin in files), start, stop))
        for source, files, start, stop in about["parts"]
    )
    artefacts = {name: Path(path) for name, path in about["artefacts"].items()}
    problems = Path(about["problems"]) if about["problems"] else None
    return Staging(folder, CurateStage.model_validate(about["config"]), about["seed"], artefacts, problems, parts)


def write_facts(path: Path, facts: dict[str, Any]) -> None:
    with atomic_open(path, "wb") as file:
        file.write(orjson.dumps(facts))


def write_array(path: Path, array: NDArray) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


COLUMNS: dict[str, Any] = {
    "code": np.int16,
    "value": np.float32,
    "threshold": np.float32,
    "size": np.int64,
    "id": "S32",
    "content": (np.uint64, 2),
    "text": np.uint64,
    "address": np.uint64,
    "rank": np.float32,
    "category": np.int16,
}
"""What is known of every document between the passes, some hundred bytes each: the verdict so far (a number of
`Table.names`, 0 for kept), bytes of text, hashes, the score that `duplicates.prefer` goes by, the category."""


class Table:
    """`COLUMNS` of all documents in the order of the parts, in files that the system maps and lets go as it needs."""

    def __init__(self, staging: Staging, names: Sequence[tuple[str, str]], extra: dict[str, Any]) -> None:
        self.staging, self.names = staging, [("kept", ""), *names]
        """(step, rule) of each verdict number."""
        counts = [len(np.load(staging.path("size", n, "npy"), mmap_mode="r")) for n in range(len(staging.parts))]
        self.bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        """Part number -> its first document."""
        self.columns = {name: self._gathered(name, kind) for name, kind in {**COLUMNS, **extra}.items()}
        self.other = self.scratch("other", np.int64, -1)
        """The document that a dropped one repeats; -1 for none."""
        self.left = self.scratch("left", np.int64, self["size"])
        """Bytes of each text that are left when passages are cut."""

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def __getitem__(self, name: str) -> NDArray:
        return self.columns[name]

    def scratch(self, name: str, kind: Any, value: Any) -> NDArray:
        """A column of its own on disk, filled with `value` (one for all, or one for each document)."""
        array = np.lib.format.open_memmap(self.staging.folder / f"table-{name}.npy", "w+", kind, (len(self),))
        array[:] = value
        return array

    def _gathered(self, name: str, kind: Any) -> NDArray:
        kind, width = kind if isinstance(kind, tuple) else (kind, 0)
        shape = (len(self), width) if width else (len(self),)
        array = np.lib.format.open_memmap(self.staging.folder / f"table-{name}.npy", "w+", kind, shape)
        for number in range(len(self.staging.parts)):
            array[self.rows(number)] = np.load(self.staging.path(name, number, "npy"), mmap_mode="r")
        return array

    def rows(self, number: int) -> slice:
        """The documents of a part."""
        return slice(int(self.bounds[number]), int(self.bounds[number + 1]))

    def kept(self) -> NDArray[np.bool_]:
        return np.asarray(self["code"] == 0)

    def drop(self, where: NDArray[np.bool_], step: str, rule: str, value: NDArray | float, threshold: float) -> None:
        """Condemn the documents in `where` that no earlier step has condemned."""
        if (step, rule) not in self.names:
            self.names.append((step, rule))
        new = where & self.kept()
        self["code"][new] = self.names.index((step, rule))
        self["value"][new] = value[new] if isinstance(value, np.ndarray) else value
        self["threshold"][new] = threshold

    @cached_property
    def sources(self) -> NDArray[np.int16]:
        """The number of each document's source."""
        return np.repeat(np.array([source for source, _ in self.staging.parts], np.int16), np.diff(self.bounds))
