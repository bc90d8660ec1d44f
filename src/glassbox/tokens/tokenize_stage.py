"""The stage `tokenize`: documents to token shards, split into train and held-out by the hash of the document's id."""

import logging
import re
import shutil
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

from tokenizers import Tokenizer

from glassbox.errors import RequestError
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import write_json
from glassbox.recipe.text import TokenizeStage
from glassbox.tokens.documents import PROBLEMS, Document, document_batches, share_of, text_bytes
from glassbox.tokens.encoder import Encoder, encode_texts
from glassbox.tokens.shards import ShardWriter, Split, dtype_for, shard_writer
from glassbox.tokens.tokenizer import END_OF_TEXT, load_tokenizer, special_id

log = logging.getLogger("glassbox")
SPLITS: tuple[Split, ...] = ("train", "held_out")
NO_CATEGORY = "uncategorised"
"""The category of documents of a divided source that nothing gave one."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def run(config: TokenizeStage, inputs: Inputs, workspace: Workspace) -> None:
    """Write one shard folder per source, `tokens.json` and a copy of the tokenizer.

    The training text of a source in `config.categories` is one shard per category instead, `source/category`; what is
    held out of it stays in one piece.
    Empty documents are left out and counted in `tokens.json`, which also says who encoded: the kernels, or the library
    for a tokenizer that they do not know. Training problems are never held out: held-out problems are a set of their
    own and do not enter. Raises RequestError for a name that cannot be a folder's.
    """
    tokenizer = load_tokenizer(inputs.one("tokenizer"))
    shards = Shards(workspace.folder, tokenizer, config.held_out, config.categories)
    done, total = 0, text_bytes(inputs)
    with shards:
        for batch in document_batches(inputs):
            shards.add(batch)
            done += sum(len(document.text.encode()) for document in batch)
            workspace.progress(min(done, total), total, f"{done / 1e6:.1f} MB of text")
    copy_tokenizer(inputs.one("tokenizer"), workspace.path("tokenizer"))
    write_json(workspace.path("tokens.json"), shards.summary())


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the files that belong to a tokenizer."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "chat.json"):
        shutil.copyfile(source / name, target / name)


class Shards:
    """The open shards of all sources; a context manager that finishes them together."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, held_out: float, divided: Collection[str] = ()):
        self._folder, self._tokenizer, self._held_out, self._divided = folder, tokenizer, held_out, divided
        self._encoder = Encoder(tokenizer)
        if self._encoder.reason:
            log.warning("slow tokenization by the tokenizers library: %s", self._encoder.reason)
        self._eos_id = special_id(tokenizer, END_OF_TEXT)
        self._dtype = dtype_for(tokenizer.get_vocab_size())
        self._stack = ExitStack()
        self._writers: dict[str, dict[Split, ShardWriter]] = {}
        self._empty: Counter[str] = Counter()

    def __enter__(self) -> "Shards":
        self._stack.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def add(self, documents: list[Document]) -> None:
        """Encode documents and append each to its source and split; of held-out ones the first copy alone."""
        self._empty.update(document.source for document in documents if not document.text and not document.copy)
        documents = [
            document
            for document in documents
            if document.text and not (document.copy and self._split(document) == "held_out")
        ]
        ids, bounds = encode_texts(self._encoder, [document.text for document in documents])
        parts: dict[tuple[str, Split], list[int]] = {}
        for n, document in enumerate(documents):
            split = self._split(document)
            parts.setdefault((self._shard(document, split), split), []).append(n)
        for (name, split), numbers in parts.items():
            pieces = [ids[bounds[n] : bounds[n + 1]] for n in numbers]
            self._writer(name)[split].add([documents[n] for n in numbers], pieces)

    def summary(self) -> dict[str, object]:
        """What `tokens.json` holds."""
        return {
            "vocab_size": self._tokenizer.get_vocab_size(),
            "dtype": self._dtype,
            "eos_id": self._eos_id,
            "sources": {
                source: {split: writers[split].sizes for split in SPLITS} for source, writers in self._writers.items()
            },
            "empty_documents": dict(self._empty),
            "encoder": f"tokenizers library ({self._encoder.reason})" if self._encoder.reason else "kernels",
        }

    def _split(self, document: Document) -> Split:
        if document.source == PROBLEMS:
            return "train"
        return "held_out" if share_of(document.id, "held out") < self._held_out else "train"

    def _shard(self, document: Document, split: Split) -> str:
        """`source`, or `source/category` for training text of a divided source."""
        if split == "held_out" or document.source not in self._divided:
            return _checked("source", document.source)
        self._writer(_checked("source", document.source))  # for what is held out
        return f"{document.source}/{_checked('category', document.category or NO_CATEGORY)}"

    def _writer(self, name: str) -> dict[Split, ShardWriter]:
        if name not in self._writers:
            self._writers[name] = {
                split: self._stack.enter_context(shard_writer(self._folder / name / split, self._dtype, self._eos_id))
                for split in SPLITS
            }
        return self._writers[name]


def _checked(what: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RequestError(f"{what} name '{name}' must be a folder's: letters, digits, '.', '_' and '-'")
    return name
