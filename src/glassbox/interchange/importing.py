"""From a Hugging Face folder to a model folder of ours."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer

from glassbox.errors import RequestError
from glassbox.interchange.check import compare, logits
from glassbox.ledger.writing import atomic_folder, write_json
from glassbox.model.folder import CHAT, FOREIGN_FILES, copy_tokenizer, open_model, read_tokenizer, write_config
from glassbox.model.tensors import SHARD_BYTES, Entry, Tensors, write_tensors
from glassbox.tokens.chat import chat_format
from glassbox.tokens.tokenizer import SPECIAL_TOKENS

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Done:
    """What an import or export did."""

    family: str
    """The model_type, or llama.cpp's name of the architecture."""
    parameters: int
    read: int
    """Tensors in the source's files."""
    written: int
    """Tensors in the result's files."""
    bytes: int
    """Of the result's weights."""
    largest: float
    """The largest difference of two logits of the fixed text between source and result."""
    share: float
    """The differences' root mean square as a share of the logits' own."""
    seconds: float
    warnings: list[str] = field(default_factory=list)


def import_model(source: Path, out: Path, dtype: str | None = None, shard_bytes: int = SHARD_BYTES) -> Done:
    """Write the model of a Hugging Face folder as a model folder of ours, in its own types or in `dtype`.

    Raises `RequestError` for a folder that is damaged, incomplete, of an unknown family or holds numbers that are not
    finite, and `GlassboxError` if the result computes anything else; then there is no `out`.
    """
    began = time.monotonic()
    opened = open_model(source)
    if not opened.foreign:
        raise RequestError(f"{source} is a glassbox model already: use it as it is, or `glassbox export` it")
    tokenizer = read_tokenizer(source, opened.sizes.vocab_size)
    ours = open_model(source, typing(dtype)).tensors
    with new_folder(out) as folder:
        write_tensors(folder, ours, shard_bytes)
        write_config(folder, opened.sizes)
        copy_tokenizer(source, folder)
        if speaks_chatml(tokenizer):  # then our form of conversation holds, and goes on through training
            for name in FOREIGN_FILES:
                (folder / name).unlink(missing_ok=True)
            write_json(folder / CHAT, chat_format(tokenizer))
        result = open_model(folder)
        difference = compare(
            logits(opened.sizes, opened.tensors), logits(result.sizes, result.tensors), coarsest(opened.tensors, ours)
        )
    return Done(
        family=opened.config["model_type"],
        parameters=count_parameters(result.tensors),
        read=opened.found,
        written=result.found,
        bytes=sum(entry.bytes for entry in ours.entries.values()),
        largest=difference.largest,
        share=difference.share,
        seconds=time.monotonic() - began,
    )


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes it at the end, or vanishes. `RequestError` if something is there."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"{out} exists already and is not an empty folder; choose another name")
    with atomic_folder(out) as folder:
        yield folder


def typing(dtype: str | None) -> Callable[[str, Entry], torch.dtype]:
    """What type each tensor shall have: `dtype` if there is one, else its own; routers' biases are fp32."""
    if dtype is not None and dtype not in TYPES:
        raise RequestError(f"--dtype {dtype}: can be {', '.join(TYPES)}")

    def dtype_of(name: str, entry: Entry) -> torch.dtype:
        if name.endswith(("bias_E", "e_score_correction_bias")):
            return torch.float32
        return entry.dtype if dtype is None else TYPES[dtype]

    return dtype_of


def coarsest(before: Tensors, after: Tensors) -> torch.dtype:
    """The coarsest type that tensors of another type were turned to; fp32 if none was turned."""
    turned = {after.entries[name].dtype for name in before.entries if after.entries[name] != before.entries[name]}
    return max(turned, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)


def count_parameters(tensors: Tensors) -> int:
    """Trained numbers: all but the routers' biases."""
    return sum(entry.size for name, entry in tensors.entries.items() if not name.endswith("bias_E"))


def speaks_chatml(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has the special tokens of our conversations."""
    return all(tokenizer.token_to_id(token) is not None for token in SPECIAL_TOKENS)
