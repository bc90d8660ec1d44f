"""How a source's files are divided among workers: parts of about equal size, the same whatever the workers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from glassbox.recipe.files import InputFile
from glassbox.recipe.sources import Source

PART_BYTES = 32_000_000
"""Stored bytes of a part. A compressed file is not divided, nor is a source with a limit."""


@dataclass(frozen=True)
class Part:
    """Some files of a source, or a stretch of one file."""

    files: tuple[InputFile, ...]
    start: int = 0
    stop: int = -1
    """jsonl: the lines that begin in bytes [start, stop); parquet: the row groups [start, stop); -1: to the end."""

    def size(self) -> int:
        """Stored bytes of its files (of the whole file, where it is a stretch of row groups)."""
        if self.stop >= 0 and self.files[0].path.suffix != ".parquet":
            return self.stop - self.start
        return sum(file.path.stat().st_size for file in self.files if file.path.exists())


def parts_of(source: Source, files: Sequence[InputFile]) -> Iterator[Part]:
    """The parts of a source, in reading order."""
    if source.limit is not None or source.format == "hf":
        yield Part(tuple(files))
        return
    group: list[InputFile] = []
    size = 0
    for file in files:
        stretches = list(_stretches(source, file.path))
        if len(stretches) > 1:
            if group:
                yield Part(tuple(group))
            group, size = [], 0
            yield from (Part((file,), start, stop) for start, stop in stretches)
            continue
        length = file.path.stat().st_size
        if group and size + length > PART_BYTES:
            yield Part(tuple(group))
            group, size = [], 0
        group.append(file)
        size += length
    if group:
        yield Part(tuple(group))


def _stretches(source: Source, path: Path) -> Iterator[tuple[int, int]]:
    """Where a large file is divided; one stretch for a file that is not."""
    size = path.stat().st_size
    if size <= PART_BYTES:
        yield 0, -1
    elif source.format == "jsonl" and path.suffix in (".jsonl", ".ndjson"):
        yield from ((start, min(start + PART_BYTES, size)) for start in range(0, size, PART_BYTES))
    elif source.format in ("parquet", "documents"):
        yield from _row_groups(path)
    else:
        yield 0, -1


def _row_groups(path: Path) -> Iterator[tuple[int, int]]:
    try:
        meta = pq.read_metadata(path)
    except (OSError, ValueError, pa.ArrowException):  # damaged: the reader says so
        yield 0, -1
        return
    start = size = 0
    for group in range(meta.num_row_groups):
        length = meta.row_group(group).total_byte_size
        if group > start and size + length > PART_BYTES:
            yield start, group
            start, size = group, 0
        size += length
    yield start, meta.num_row_groups
