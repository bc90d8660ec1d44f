"""From a model folder to a Hugging Face folder that `AutoModelForCausalLM.from_pretrained` reads."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from glassbox.errors import RequestError
from glassbox.interchange.check import compare, logits
from glassbox.interchange.conversion import Done, count_parameters, for_others, new_folder, types_of_weights
from glassbox.ledger.writing import write_json
from glassbox.model.families import Sizes, to_config
from glassbox.model.folder import (
    CONFIG,
    FOREIGN_FILES,
    GENERATION_CONFIG,
    SPECIAL_TOKENS_MAP,
    TOKENIZER,
    TOKENIZER_CONFIG,
    OpenModel,
    open_model,
    read_chat,
    read_manner,
    read_tokenizer,
)
from glassbox.model.names import AsTheirs, hub_names, parts
from glassbox.model.tensors import SHARD_BYTES, Typed, write_tensors

TYPE_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def export_model(
    source: Path,
    out: Path,
    dtype: str | None = None,
    without_drafts: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Done:
    """Write a model as a Hugging Face folder, in its own types or in `dtype`; `without_drafts` leaves multi-token
    blocks out.

    Raises `RequestError` where no family has the network, numbers are not finite or there are no blocks to leave out,
    and `GlassboxError` if the result computes anything else; then there is no `out`.
    """
    began = time.monotonic()
    opened = open_model(source)
    if without_drafts and opened.sizes.network.multi_token is None:
        raise RequestError(f"{source} has no multi-token blocks to leave out: export it without --without-drafts")
    tensors, sizes = for_others(opened, without_drafts)
    config = to_config(sizes)
    ours = Typed(tensors, types_of_weights(dtype))
    theirs = AsTheirs(ours, parts(sizes.network, ours.entries, hub_names(config["model_type"])))
    with new_folder(out) as folder:
        write_tensors(folder, theirs, shard_bytes)
        names = TYPE_NAMES[ours.entries["embedding.weight"].dtype]
        tokens = write_tokenizer(source, folder, opened, sizes.context)
        write_json(folder / CONFIG, {**config, "dtype": names, "torch_dtype": names, **tokens})
        warnings = warn(sizes, config["model_type"], folder)
        (folder / "README.md").write_text(card(config, count_parameters(ours), warnings), encoding="utf-8")
        result = open_model(folder)
        difference = compare(logits(sizes, ours), logits(result.sizes, result.tensors))
    return Done(
        family=config["model_type"],
        parameters=count_parameters(ours),
        read=opened.found,
        written=result.found,
        bytes=sum(entry.bytes for entry in theirs.entries.values()),
        largest=difference.largest,
        share=difference.share,
        seconds=time.monotonic() - began,
        warnings=warnings,
    )


def warn(sizes: Sizes, model_type: str, folder: Path) -> list[str]:
    """What a reader of the folder should know."""
    found = []
    if sizes.network.multi_token is not None:
        found.append(
            "transformers has no class for MiMo; vLLM and SGLang have: `--without-drafts` writes it as Qwen2, which "
            "all have"
        )
    normal = json.loads((folder / TOKENIZER).read_text(encoding="utf-8")).get("normalizer")
    if model_type == "qwen2" and (normal or {}).get("type") != "NFC":
        found.append(
            "transformers 5 reads every tokenizer of this family as if it composed Unicode (NFC) first: text in "
            "decomposed form gets other ids there than here"
        )
    return found


def write_tokenizer(source: Path, folder: Path, opened: OpenModel, context: int) -> dict[str, Any]:
    """Write the tokenizer's files, the chat template among them, and `generation_config.json`.

    Returns the token ids for `config.json`.
    """
    tokenizer = read_tokenizer(source, opened.sizes.vocab_size)
    shutil.copyfile(source / TOKENIZER, folder / TOKENIZER)
    about: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    chat = read_chat(source, tokenizer)
    if chat is not None:
        ends = [chat["ids"]["end_of_turn"], chat["ids"]["end_of_text"]]
        tokens = {"bos_token": None, "eos_token": chat["end_of_turn"], "pad_token": chat["end_of_text"]}
        ids: dict[str, Any] = {"bos_token_id": None, "eos_token_id": ends}
        generation = {"eos_token_id": ends, "pad_token_id": chat["ids"]["end_of_text"]}
        about |= {**tokens, "add_bos_token": False, "chat_template": chat["template"]}
        write_json(folder / SPECIAL_TOKENS_MAP, {use: token for use, token in tokens.items() if token is not None})
    else:
        manner = read_manner(source, opened.config, tokenizer)
        of = {use: tokenizer.token_to_id(token) for use, token in manner.tokens.items()}
        ids = {"bos_token_id": of.get("bos_token"), "eos_token_id": list(manner.stop_ids) or None}
        generation = {use: i for use, i in ids.items() if i is not None}
        for name in FOREIGN_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        about |= manner.tokens
    if not (folder / TOKENIZER_CONFIG).exists():
        write_json(folder / TOKENIZER_CONFIG, about)
    if not (folder / GENERATION_CONFIG).exists():
        write_json(folder / GENERATION_CONFIG, generation)
    return ids  # not the padding's: transformers would keep that row of the embedding from learning


def card(config: dict[str, Any], parameters: int, warnings: list[str]) -> str:
    """The folder's README.md."""
    window = config.get("sliding_window")
    seen = f"; each layer sees the last {window:,} of them" if window else ""
    loads = config["model_type"] != "mimo"  # transformers has no class for it
    lines = [
        "---",
        *(["library_name: transformers"] if loads else []),
        "pipeline_tag: text-generation",
        "---",
        "",
        f"# {config['architectures'][0]}, {parameters:,} parameters",
        "",
        "Written by `glassbox export`.",
        "",
        f"- family: `{config['model_type']}`",
        f"- context: {config['max_position_embeddings']:,} tokens{seen}",
        f"- vocabulary: {config['vocab_size']:,} tokens",
        *(f"- {warning}" for warning in warnings),
        "",
        *(SNIPPET if loads else []),
    ]
    return "\n".join(lines)


SNIPPET = (
    "```python",
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    "",
    'model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")',
    'tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")',
    "```",
    "",
)
