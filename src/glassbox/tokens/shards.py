"""Token shards: one raw array of ids per source and split, with an index of documents.

tokens.json                          sizes, dtype, ids; `tokenizer/` holds the tokenizer
<source>/<split>/tokens.bin          little-endian uint16 or uint32; each document ends with end-of-text
                 index.npy           int64 (documents + 1): where each document starts, and the end
                 documents.parquet   per document: id, origin, offset, url, bytes
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from glassbox.errors import RequestError
from glassbox.ledger.writing import atomic_open, atomic_path
from glassbox.tokens.documents import Document

Split = Literal["train", "held_out"]

_SCHEMA = pa.schema(
    [("id", pa.string()), ("origin", pa.string()), ("offset", pa.int64()), ("url", pa.string()), ("bytes", pa.int64())]
)


def dtype_for(vocab_size: int) -> str:
    """The smallest type that holds every id: "uint16" up to 65,536 entries, else "uint32"."""
    return "uint16" if vocab_size <= 65_536 else "uint32"


class ShardWriter:
    """Appends documents to one shard; made by `shard_writer`."""

    def __init__(self, tokens: IO[bytes], table: pq.ParquetWriter, dtype: str, eos_id: int):
        self._tokens, self._table, self._eos_id = tokens, table, eos_id
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self.starts = array("q", [0])
        self.bytes = 0

    def add(self, documents: Sequence[Document], ids: Sequence[NDArray[np.uint32]]) -> None:
        """Append documents with their ids; the end-of-text token is added here."""
        sizes = [len(document.text.encode()) for document in documents]
        end = np.array([self._eos_id], np.uint32)
        for piece in ids:
            self._tokens.write(np.concatenate([piece, end]).astype(self._dtype).tobytes())
            self.starts.append(self.starts[-1] + len(piece) + 1)
        self.bytes += sum(sizes)
        rows = {name: [getattr(document, name) for document in documents] for name in ("id", "origin", "offset", "url")}
        self._table.write_table(pa.table({**rows, "bytes": sizes}, schema=_SCHEMA))

    @property
    def sizes(self) -> dict[str, int]:
        return {"documents": len(self.starts) - 1, "tokens": self.starts[-1], "bytes": self.bytes}


@contextmanager
def shard_writer(folder: Path, dtype: str, eos_id: int) -> Iterator[ShardWriter]:
    """A writer whose three files appear when the block ends without error, each whole."""
    with ExitStack() as stack:
        tokens = stack.enter_context(atomic_open(folder / "tokens.bin", "wb"))
        table_path = stack.enter_context(atomic_path(folder / "documents.parquet"))
        table = stack.enter_context(pq.ParquetWriter(table_path, _SCHEMA))
        writer = ShardWriter(tokens, table, dtype, eos_id)
        yield writer
        with atomic_open(folder / "index.npy", "wb") as file:
            np.save(file, np.frombuffer(writer.starts, dtype=np.int64))


class TokenShards:
    """One shard, memory-mapped."""

    def __init__(self, folder: Path, dtype: str):
        self.folder = folder
        path = folder / "tokens.bin"
        try:
            self.index: NDArray[np.int64] = np.load(folder / "index.npy")
            empty = path.stat().st_size == 0
            self.tokens: NDArray[Any] = (
                np.zeros(0, dtype) if empty else np.memmap(path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r")
            )
        except (OSError, ValueError) as error:
            raise RequestError(f"{folder}: no readable token shard ({error})") from error
        if self.index[-1] != len(self.tokens):
            raise RequestError(f"{path}: holds {len(self.tokens)} tokens but index.npy counts {self.index[-1]}")

    def __len__(self) -> int:
        return len(self.tokens)

    def document_at(self, token: int) -> int:
        """The number of the document that holds a token position."""
        return int(np.searchsorted(self.index, token, side="right")) - 1

    @cached_property
    def _documents(self) -> pa.Table:
        return pq.read_table(self.folder / "documents.parquet")

    def document(self, number: int) -> dict[str, Any]:
        """The row of documents.parquet: id, origin, offset, url, bytes."""
        return self._documents.slice(number, 1).to_pylist()[0]


class TokenFolder:
    """A tokens artefact: its `tokens.json` and its shards."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.info: dict[str, Any] = json.loads((path / "tokens.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RequestError(f"{path / 'tokens.json'}: cannot be read ({error}); give a tokens folder") from error
        self.vocab_size: int = self.info["vocab_size"]
        self.eos_id: int = self.info["eos_id"]
        self.sources: dict[str, dict[Split, dict[str, int]]] = self.info["sources"]
        """Per source and split: documents, tokens and bytes."""

    @property
    def tokenizer_folder(self) -> Path:
        return self.path / "tokenizer"

    @property
    def train_sizes(self) -> dict[str, int]:
        """Training tokens of each shard: a source's, or `source/category`'s."""
        return {source: splits["train"]["tokens"] for source, splits in self.sources.items()}

    def check(self, names: Iterable[str]) -> None:
        """Raises RequestError for a shard that is not there."""
        for name in names:
            if name not in self.sources:
                raise RequestError(f"no token source '{name}'; there are: {', '.join(self.sources)}")

    def shard(self, source: str, split: Split) -> TokenShards:
        """Raises RequestError for a source that is not there."""
        self.check([source])
        return TokenShards(self.path / source / split, self.info["dtype"])
