"""From a Hugging Face folder to a model folder of ours."""

import time
from pathlib import Path

from tokenizers import Tokenizer

from glassbox.errors import RequestError
from glassbox.interchange.check import compare, logits
from glassbox.interchange.conversion import Done, count_parameters, new_folder, types_of_weights
from glassbox.ledger.writing import write_json
from glassbox.model.folder import CHAT, FOREIGN_FILES, copy_tokenizer, open_model, read_tokenizer, write_config
from glassbox.model.tensors import SHARD_BYTES, write_tensors
from glassbox.tokens.chat import chat_format
from glassbox.tokens.tokenizer import SPECIAL_TOKENS


def import_model(source: Path, out: Path, dtype: str | None = None, shard_bytes: int = SHARD_BYTES) -> Done:
    """Write the model of a Hugging Face folder as a model folder of ours, in its own types or in `dtype`.

    Raises `RequestError` for a folder that is damaged, incomplete, of an unknown family or holds numbers that are not
    finite, and `GlassboxError` if the result computes anything else; then there is no `out`.
    """
    began = time.monotonic()
    opened = open_model(source, types_of_weights(dtype))
    if not opened.foreign:
        raise RequestError(f"{source} is a glassbox model already: use it as it is, or `glassbox export` it")
    tokenizer = read_tokenizer(source, opened.sizes.vocab_size)
    with new_folder(out) as folder:
        write_tensors(folder, opened.tensors, shard_bytes)
        write_config(folder, opened.sizes)
        copy_tokenizer(source, folder)
        if speaks_chatml(tokenizer):  # then our form of conversation holds, and goes on through training
            for name in FOREIGN_FILES:
                (folder / name).unlink(missing_ok=True)
            write_json(folder / CHAT, chat_format(tokenizer))
        result = open_model(folder)
        difference = compare(logits(opened.sizes, opened.tensors), logits(result.sizes, result.tensors))
    return Done(
        family=opened.config["model_type"],
        parameters=count_parameters(result.tensors),
        read=opened.found,
        written=result.found,
        bytes=sum(entry.bytes for entry in result.tensors.entries.values()),
        largest=difference.largest,
        share=difference.share,
        seconds=time.monotonic() - began,
    )


def speaks_chatml(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has the special tokens of our conversations."""
    return all(tokenizer.token_to_id(token) is not None for token in SPECIAL_TOKENS)
