"""A model folder: `config.json`, `model.safetensors` (or shards), and the tokenizer's `tokenizer.json`, `chat.json`.

A folder of a published family in Hugging Face's form is read as it is; `interchange/` turns one into the other. A
checkpoint of a training run is read too: there the weights lie in pieces (`pieces.py`).
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from glassbox.errors import RequestError
from glassbox.ledger.writing import atomic_path, write_json
from glassbox.model.families import Sizes, from_config, what_is_wrong, whole
from glassbox.model.names import AsOurs, check_names, hub_names, own_entries, parts, their_entries
from glassbox.model.pieces import PIECES, Pieces
from glassbox.model.tensors import WEIGHTS, Checkpoint, Entry, Tensors, Typed, write_tensors
from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Network
from glassbox.recipe.size import parameters

CONFIG, TOKENIZER, CHAT = "config.json", "tokenizer.json", "chat.json"
TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP = "tokenizer_config.json", "special_tokens_map.json"
GENERATION_CONFIG, CHAT_TEMPLATE = "generation_config.json", "chat_template.jinja"
FOREIGN_FILES = (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, GENERATION_CONFIG, CHAT_TEMPLATE)
"""What a Hugging Face folder says of its tokens beside `tokenizer.json`; kept where there is no `chat.json`."""
SPARE = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)
"""Tensors that old files hold and no model needs."""


@dataclass(frozen=True)
class Manner:
    """How texts begin and end, and how turns are framed, for a model that was not trained here."""

    start_ids: tuple[int, ...]
    """What stands before every text."""
    stop_ids: tuple[int, ...]
    """Any of these ends a reply."""
    template: str | None
    """The Jinja template of a conversation; None: the model has none."""
    reader: Tokenizer
    """The tokenizer, taking special tokens in a text for what they are called: for what the template writes."""
    tokens: dict[str, str]
    """The special tokens that the template may name: bos_token, eos_token and so on."""


@dataclass(frozen=True)
class LoadedModel:
    """A model as read from its folder."""

    model: Transformer
    network: Network
    vocab_size: int
    context: int
    """Longest row it was trained on, in tokens."""
    tokenizer: Tokenizer
    manner: Manner | None = None
    """None: as `tokens/chat.py` has it."""

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.network, self.vocab_size, self.context)


@dataclass(frozen=True)
class OpenModel:
    """A model folder of either form, its weights still on disk."""

    sizes: Sizes
    tensors: Tensors
    """Under our names, complete and in their shapes."""
    config: dict[str, Any]
    """The content of `config.json`."""
    found: int
    """Tensors in the files."""

    @property
    def foreign(self) -> bool:
        """Whether the folder is in Hugging Face's form."""
        return "network" not in self.config


def save_model(folder: Path, tensors: Tensors, sizes: Sizes, tokenizer_folder: Path) -> None:
    """Write a model folder, each file whole or not at all; files of an earlier try are replaced. The same tensors in
    the same order give the same bytes."""
    write_tensors(folder, tensors)
    describe_model(folder, sizes, tokenizer_folder)


def describe_model(folder: Path, sizes: Sizes, tokenizer_folder: Path) -> None:
    """Write what a model folder holds beside the weights: the tokenizer's files and `config.json`."""
    copy_tokenizer(tokenizer_folder, folder)
    write_config(folder, sizes)


def write_config(folder: Path, sizes: Sizes) -> None:
    """Write the `config.json` of a folder of ours."""
    network = sizes.network.model_dump(mode="json")
    write_json(folder / CONFIG, {"network": network, "vocab_size": sizes.vocab_size, "context": sizes.context})


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer's files of a folder into another."""
    others = (CHAT,) if (source / CHAT).is_file() else FOREIGN_FILES
    for name in (TOKENIZER, *(name for name in others if (source / name).is_file())):
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(source / name, temporary)


def load_model(folder: Path, device: str = "cpu", dtype: torch.dtype | None = None) -> LoadedModel:
    """Read a model folder, ours or Hugging Face's, ready to compute on `device`.

    `dtype` (None: fp32) is the type of the matrix products; the matrices are turned to it once, so that decoding does
    not cast them at every step, while gains and routers stay fp32. Raises `RequestError` naming the file that is
    missing or damaged, or the tensor that holds numbers that are not finite.
    """
    loaded, tensors = lay_out(folder)
    state = {}
    for name, weight in loaded.model.state_dict().items():
        kept = dtype is None or weight.dim() == 1 or "router" in name
        state[name] = tensors.read(name).to(device, torch.float32 if kept else dtype)
    loaded.model.load_state_dict(state, assign=True)
    if dtype is not None:
        loaded.model.compute_dtype = dtype
    return loaded


def lay_out(folder: Path) -> tuple[LoadedModel, Tensors]:
    """What `load_model` reads but for the weights: the network is on the meta device, and they are still on disk."""
    opened = open_model(folder, lambda name, entry: entry.dtype)
    network, vocab_size, context = opened.sizes
    tokenizer = read_tokenizer(folder, vocab_size)
    with torch.device("meta"):
        model = Transformer(network, vocab_size)
    manner = None if read_chat(folder, tokenizer) else read_manner(folder, opened.config, tokenizer)
    return LoadedModel(model, network, vocab_size, context, tokenizer, manner), opened.tensors


def open_model(folder: Path, dtype_of: Callable[[str, Entry], torch.dtype] | None = None) -> OpenModel:
    """Read what a model folder is and hold its files against that; the weights stay on disk.

    `dtype_of` (name in the file and what it is -> type): turn tensors as they are read, see `tensors.Typed`. Raises
    `RequestError` naming the file that is missing or damaged, or what of the model cannot be done here.
    """
    path = folder / CONFIG
    config = _read_json(path)
    if "network" not in config and "model_type" not in config:
        raise RequestError(f"{path} describes neither a glassbox model nor one in Hugging Face's form")
    own = "network" in config
    sizes = _own_sizes(config, path) if own else from_config(config, str(path))
    files: Tensors = Pieces(folder, "model.") if (folder / PIECES).is_file() else Checkpoint(folder)
    turned = files if dtype_of is None else Typed(files, dtype_of)
    _check_size(sizes, files, path)
    entries = own_entries(sizes.network, sizes.vocab_size)
    if own:
        check_names(files.entries, entries, f"{folder / WEIGHTS} holds the weights of another network: it")
        return OpenModel(sizes, turned, config, len(files.entries))
    pieces = parts(sizes.network, entries, hub_names(config["model_type"]))
    tied = sizes.network.tie_embeddings
    spare = (*SPARE, r"lm_head\.weight") if tied else SPARE
    check_names(files.entries, their_entries(pieces, entries), str(folder), spare)
    if tied and "lm_head.weight" in files.entries:
        _check_tied(files, folder)
    return OpenModel(sizes, AsOurs(turned, pieces, entries), config, len(files.entries))


def _own_sizes(config: dict[str, Any], path: Path) -> Sizes:
    try:
        network = Network.model_validate(config["network"], strict=True)
        return Sizes(network, *(whole(config.get(name), name) for name in ("vocab_size", "context")))
    except ValueError as error:
        raise RequestError(f"{path} does not describe a glassbox model ({what_is_wrong(error)})") from error


def _check_size(sizes: Sizes, files: Tensors, path: Path) -> None:
    """A damaged `config.json` may name a network of any size: none is laid out that is not about as large as the
    weights beside it."""
    network = sizes.network
    blocks = network.layers + (network.multi_token.depth if network.multi_token else 0)
    held = sum(entry.size for entry in files.entries.values())
    if blocks > len(files.entries) or parameters(network, sizes.vocab_size).total > 2 * held:
        raise RequestError(f"{path} describes a network far larger than the weights beside it, of {held:,} numbers")


def _check_tied(files: Tensors, folder: Path) -> None:
    """A file may hold a head although the embedding is the head: then the same one."""
    shape = files.entries["model.embed_tokens.weight"].shape
    rows = 1 << 14
    if files.entries["lm_head.weight"].shape == shape and all(
        torch.equal(*(files.read(f"{name}.weight", at, at + rows) for name in ("model.embed_tokens", "lm_head")))
        for at in range(0, shape[0], rows)
    ):
        return
    raise RequestError(f"{folder}: lm_head.weight differs from the embedding that config.json ties it to")


def read_tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    """Read `tokenizer.json`. Raises `RequestError` if it is missing, damaged or larger than the model's vocabulary."""
    path = folder / TOKENIZER
    if not path.is_file() and (folder / "tokenizer.model").is_file():
        raise RequestError(
            f"{path} is missing: the folder has its tokenizer only as tokenizer.model, which glassbox does not read; "
            "transformers' AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes the other"
        )
    _require(path)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise RequestError(f"{path} is not a readable tokenizer ({_first_line(error)})") from error
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= vocab_size:
        raise RequestError(f"{path} has token ids up to {largest}, but the model knows only {vocab_size} tokens")
    tokenizer.encode_special_tokens = True  # text is text: no user's words may open or close a turn
    return tokenizer


def read_chat(folder: Path, tokenizer: Tokenizer) -> dict[str, Any] | None:
    """What `chat.json` holds (`tokens.chat.chat_format`); None where there is none.

    Raises `RequestError` if it is damaged or speaks of other tokens than the tokenizer.
    """
    path = folder / CHAT
    if not path.is_file():
        return None
    chat = _read_json(path)
    ids, uses = chat.get("ids"), ("end_of_text", "end_of_turn")
    if not isinstance(chat.get("template"), str) or not isinstance(ids, dict):
        raise RequestError(f"{path} is damaged: it has no template or no ids")
    for use in uses:
        token = chat.get(use)
        if not isinstance(token, str) or ids.get(use) is None or tokenizer.token_to_id(token) != ids[use]:
            raise RequestError(
                f"{path} is damaged: its {use} {token!r} with id {ids.get(use)!r} is not the tokenizer's"
            )
    return chat


def read_manner(folder: Path, config: dict[str, Any], tokenizer: Tokenizer) -> Manner:
    """What the files of a model that was not trained here say of how its texts begin, end and are framed."""
    about = _read_json(folder / TOKENIZER_CONFIG) if (folder / TOKENIZER_CONFIG).is_file() else {}
    generation = _read_json(folder / GENERATION_CONFIG) if (folder / GENERATION_CONFIG).is_file() else {}
    tokens = {}
    for use in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = about.get(use)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            tokens[use] = value
    ends = generation.get("eos_token_id", config.get("eos_token_id"))
    stops = {end for end in (ends if isinstance(ends, list) else [ends]) if type(end) is int and end >= 0}
    stops |= {i for i in [tokenizer.token_to_id(tokens.get("eos_token", ""))] if i is not None}
    start = tokenizer.token_to_id(tokens.get("bos_token", ""))
    begins = about.get("add_bos_token", start in tokenizer.encode("").ids)
    template = about.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = [each for each in template if isinstance(each, dict) and each.get("name") == "default"]
        template = named[0].get("template") if named else None
    if (folder / CHAT_TEMPLATE).is_file():
        template = _read_text(folder / CHAT_TEMPLATE)
    return Manner(
        start_ids=(start,) if start is not None and begins else (),
        stop_ids=tuple(sorted(stops)),
        template=template if isinstance(template, str) else None,
        reader=Tokenizer.from_file(str(folder / TOKENIZER)),
        tokens=tokens,
    )


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path} is damaged: not valid JSON ({_first_line(error)})") from error
    if not isinstance(value, dict):
        raise RequestError(f"{path} is damaged: not a JSON object")
    return value


def _read_text(path: Path) -> str:
    _require(path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is damaged: not UTF-8 text (byte {error.start})") from error


def _require(path: Path) -> None:
    if not path.is_file():
        raise RequestError(f"{path} is missing: not a complete model folder")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
