"""JSON lines, plain or compressed, as documents with the byte offset of their line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from glassbox.curate.parts import Part
from glassbox.curate.reading.raw import Raw, document, skip
from glassbox.curate.reading.unpack import BLOCK, LARGEST, Damage, blocks, is_packed, too_large
from glassbox.recipe.files import InputFile
from glassbox.recipe.sources import Source

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_jsonl(file: InputFile, source: Source, part: Part) -> Iterator[Raw]:
    """The documents of the lines that begin in the part's stretch; empty lines are passed over."""
    for offset, line in lines(file.path, part.start, part.stop):
        if isinstance(line, Damage):
            yield skip(file, offset, line.reason)
        elif line.strip():
            row = _parsed(line)
            if isinstance(row, str):
                yield skip(file, offset, row)
            else:
                yield document(file, offset, row, source)


def lines(path: Path, start: int = 0, stop: int = -1) -> Iterator[tuple[int, bytes | Damage]]:
    """(offset in the unpacked file, line) of the lines that begin in bytes [start, stop); -1 is the end.

    A line cut by damage is dropped with it, one too large is Damage. A compressed file is not divided: all its lines
    belong to the stretch that starts at 0.
    """
    packed = is_packed(path)
    if packed and start:
        return
    stop = -1 if packed else stop
    # A line begins at `start` if the byte before it ends one: reading begins there, and what ends there is not ours.
    offset, foreign = max(start - 1, 0), start > 0
    held: list[bytes] = []
    size = 0
    for block in blocks(path) if packed else _plain(path, offset):
        if isinstance(block, Damage):
            yield offset, block
            # The rest of the line is lost; what follows the damage starts in the middle of another.
            offset, held, size, foreign = offset + size, [], 0, False
            continue
        *ended, rest = block.split(b"\n")
        for piece in ended:
            size += len(piece)
            if not foreign:
                if 0 <= stop <= offset:
                    return
                yield offset, b"".join([*held, piece]) if size <= LARGEST else Damage(offset, _line_too_large())
            offset, held, size, foreign = offset + size + 1, [], 0, False
        size += len(rest)
        held = [*held, rest] if size <= LARGEST and not foreign else []
        # Also where a line that began before is still going on at the end of the stretch: none begins in it.
        if 0 <= stop <= offset + (size if foreign else 0):
            return
    if size and not foreign:
        yield offset, b"".join(held) if size <= LARGEST else Damage(offset, _line_too_large())


def _line_too_large() -> str:
    return f"line {too_large()}"


def _plain(path: Path, start: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(4 * BLOCK):
            yield block


def _parsed(line: bytes) -> dict[str, Any] | str:
    """The object that a line holds, or the reason why it holds none."""
    line = line.removeprefix(BYTE_ORDER_MARK)
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            # NaN, halves of surrogate pairs and large numbers are common, if no JSON to the letter.
            row = json.loads(line.decode())
        except UnicodeDecodeError:
            return "invalid UTF-8"
        except (ValueError, RecursionError):
            return "broken JSON"
    return row if isinstance(row, dict) else "no JSON object"
