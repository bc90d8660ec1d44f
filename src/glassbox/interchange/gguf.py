"""From a model folder to a GGUF file, which llama.cpp reads.

Its own converter cannot take a model trained here: it knows a tokenizer by a hash over the ids of a fixed text, which
every new vocabulary changes. Written here: names and layouts by `model/names.py`, the network as metadata, the
tokenizer whole.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer

from glassbox.errors import RequestError
from glassbox.interchange.check import compare, logits
from glassbox.interchange.conversion import Done, count_parameters, for_others, types_of_weights
from glassbox.ledger.writing import atomic_path
from glassbox.model.families import Sizes, family_of
from glassbox.model.folder import TOKENIZER, OpenModel, open_model, read_chat, read_manner, read_tokenizer
from glassbox.model.names import LLAMA_CPP, AsOurs, AsTheirs, check_names, parts, their_entries
from glassbox.model.tensors import Entry, Tensors, Typed, read_rows, write_bytes
from glassbox.recipe.network import Network
from glassbox.tokens.tokenizer import PATTERN, PRE_TOKENIZER

ARCHITECTURES = {"mistral": "llama", "mixtral": "llama", "olmoe": "olmoe", "dots1": "dots1", "qwen2": "qwen2"}
"""Family -> llama.cpp's name."""
PAIRED = {"llama"}
"""Architectures whose queries and keys llama.cpp turns in pairs of neighbours."""
OWN_HEAD = {"olmoe", "dots1"}
"""Architectures that llama.cpp wants the head of even where it is the embedding."""
TYPES = {
    torch.float32: gguf.GGMLQuantizationType.F32,
    torch.float16: gguf.GGMLQuantizationType.F16,
    torch.bfloat16: gguf.GGMLQuantizationType.BF16,
}
FILE_TYPES = {
    torch.float32: gguf.LlamaFileType.ALL_F32,
    torch.float16: gguf.LlamaFileType.MOSTLY_F16,
    torch.bfloat16: gguf.LlamaFileType.MOSTLY_BF16,
}


def export_gguf(source: Path, out: Path, dtype: str | None = None) -> Done:
    """Write a model as the GGUF file `out`, its matrices in their own type or in `dtype`, the rest in fp32.

    Raises `RequestError` where llama.cpp has no such network or tokenizer, and `GlassboxError` if the file read back
    computes anything else; then there is no file.
    """
    began = time.monotonic()
    if out.suffix != ".gguf" or out.exists():
        raise RequestError(f"{out}: give the name of a new file that ends in .gguf")
    opened = open_model(source)
    tensors, sizes = for_others(opened, without_drafts=True)
    family = family_of(sizes.network).model_type
    architecture, network = ARCHITECTURES[family], sizes.network
    _refuse(architecture, network)
    warnings = _warn(opened.sizes)
    if network.tie_embeddings and architecture in OWN_HEAD:
        tensors, network = _WithHead(tensors), network.model_copy(update={"tie_embeddings": False})
        sizes = sizes._replace(network=network)
    typed = Typed(tensors, _matrices_only(types_of_weights(dtype)))
    pieces = parts(network, typed.entries, LLAMA_CPP, architecture in PAIRED)
    theirs = AsTheirs(typed, pieces)
    kind = typed.entries["embedding.weight"].dtype
    with atomic_path(out) as temporary:
        writer = gguf.GGUFWriter(None, architecture)
        writer.add_file_type(FILE_TYPES[kind])
        _write_metadata(writer, architecture, sizes)
        _write_tokenizer(writer, source, opened)
        _write_tensors(writer, temporary, theirs)
        found = GgufFile(temporary)
        check_names(found.entries, their_entries(pieces, typed.entries), str(out))
        difference = compare(logits(sizes, typed), logits(sizes, AsOurs(found, pieces, typed.entries)))
    return Done(
        family=architecture,
        parameters=count_parameters(typed),
        read=opened.found,
        written=len(found.entries),
        bytes=sum(entry.bytes for entry in theirs.entries.values()),
        largest=difference.largest,
        share=difference.share,
        seconds=time.monotonic() - began,
        warnings=warnings,
    )


class GgufFile:
    """A GGUF file's tensors as `Tensors`."""

    def __init__(self, path: Path):
        self._path = path
        types = {kind: dtype for dtype, kind in TYPES.items()}
        self.entries: dict[str, Entry] = {}
        self._offsets: dict[str, int] = {}
        for tensor in gguf.GGUFReader(path).tensors:
            self.entries[tensor.name] = Entry(types[tensor.tensor_type], tuple(map(int, reversed(tensor.shape))))
            self._offsets[tensor.name] = int(tensor.data_offset)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows `start` to `stop` (None: the last) of a tensor, as stored."""
        return read_rows(self._path, self._offsets[name], self.entries[name], start, stop)


class _WithHead:
    """Tensors with a tied embedding as the head, too."""

    def __init__(self, tensors: Tensors):
        self._tensors = tensors
        self.entries = {**tensors.entries, "head.weight": tensors.entries["embedding.weight"]}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        return self._tensors.read("embedding.weight" if name == "head.weight" else name, start, stop)


def _matrices_only(dtype_of: Any) -> Any:
    """As `dtype_of` for matrices; gains, biases and routers in fp32, as llama.cpp wants them."""

    def wanted(name: str, entry: Entry) -> torch.dtype:
        return torch.float32 if len(entry.shape) == 1 or "router" in name else dtype_of(name, entry)

    return wanted


def _refuse(architecture: str, network: Network) -> None:
    """Raise `RequestError` for what llama.cpp's network of that name cannot do."""
    attention, experts = network.attention, network.experts
    lacking = []
    if architecture == "olmoe":
        assert experts is not None
        lacking += ["experts.normalise true"] if experts.normalise else []
        lacking += [f"attention.clip_qkv {attention.clip_qkv}"] if attention.clip_qkv else []
        if attention.kv_heads != attention.heads:
            lacking.append(f"attention.kv_heads {attention.kv_heads} with heads {attention.heads}")
    if lacking:
        raise RequestError(f"llama.cpp's {architecture} has no {', no '.join(lacking)}; `--to hf` keeps everything")


def _warn(sizes: Sizes) -> list[str]:
    found = []
    window = sizes.network.attention.window
    if window is not None and window < sizes.context:
        found.append(
            f"llama.cpp has no window for this family: beyond {window:,} tokens it computes something else; keep its "
            f"context (-c) at {window:,}"
        )
    if sizes.network.multi_token is not None:
        found.append("llama.cpp has no MiMo: the blocks that predict further ahead are left out, the rest is Qwen2")
    return found


def _write_metadata(writer: gguf.GGUFWriter, architecture: str, sizes: Sizes) -> None:
    """The network as llama.cpp's keys, every one of them explicit."""
    network, vocab_size, context = sizes
    attention, experts = network.attention, network.experts
    writer.add_context_length(context)
    writer.add_vocab_size(vocab_size)
    writer.add_embedding_length(network.dim)
    writer.add_block_count(network.layers)
    writer.add_head_count(attention.heads)
    writer.add_head_count_kv(attention.kv_heads)
    writer.add_key_length(network.head_dim)
    writer.add_value_length(network.head_dim)
    writer.add_rope_dimension_count(network.head_dim)
    writer.add_rope_freq_base(attention.rope_base)
    writer.add_layer_norm_rms_eps(network.norm_eps)
    writer.add_feed_forward_length(network.hidden or experts.hidden)  # type: ignore[union-attr]
    if experts is None:
        return
    writer.add_expert_count(experts.count)
    writer.add_expert_used_count(experts.top_k)
    if architecture == "dots1":
        writer.add_expert_feed_forward_length(experts.hidden)
        writer.add_expert_shared_count(experts.shared)
        writer.add_leading_dense_block_count(experts.first_dense)
        writer.add_expert_weights_scale(experts.scale)
        writer.add_expert_weights_norm(experts.normalise)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def _write_tensors(writer: gguf.GGUFWriter, path: Path, theirs: Tensors) -> None:
    """Header, metadata, and the tensors one after the other, a piece in memory at a time."""
    for name, entry in theirs.entries.items():
        writer.add_tensor_info(name, entry.shape, np.dtype(np.float32), entry.bytes, TYPES[entry.dtype])
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    file = writer.fout[0]
    for name, entry in theirs.entries.items():
        writer.write_padding(file, file.tell())
        write_bytes(file, theirs, name)
        writer.write_padding(file, entry.bytes)
    writer.close()


def _write_tokenizer(writer: gguf.GGUFWriter, source: Path, opened: OpenModel) -> None:
    """Tokens with their kinds, merges, special tokens and the chat template."""
    tokenizer = read_tokenizer(source, opened.sizes.vocab_size)
    about = json.loads((source / TOKENIZER).read_text(encoding="utf-8"))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(about, str(source / TOKENIZER)))
    tokens, kinds = _tokens(tokenizer, about, opened.sizes.vocab_size)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = about["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    chat = read_chat(source, tokenizer)
    if chat is not None:
        writer.add_add_bos_token(False)
        writer.add_bos_token_id(chat["ids"]["end_of_text"])
        writer.add_eos_token_id(chat["ids"]["end_of_turn"])
        writer.add_eot_token_id(chat["ids"]["end_of_turn"])
        writer.add_pad_token_id(chat["ids"]["end_of_text"])
        writer.add_chat_template(chat["template"])
        return
    manner = read_manner(source, opened.config, tokenizer)
    writer.add_add_bos_token(bool(manner.start_ids))
    found = {use: tokenizer.token_to_id(token) for use, token in manner.tokens.items()}
    ids = {use: i for use, i in found.items() if i is not None}
    adds = {"bos": writer.add_bos_token_id, "pad": writer.add_pad_token_id, "unk": writer.add_unk_token_id}
    for use, add in adds.items():
        if f"{use}_token" in ids:
            add(ids[f"{use}_token"])
    if manner.stop_ids:
        writer.add_eos_token_id(ids.get("eos_token", manner.stop_ids[0]))
    if manner.template:
        writer.add_chat_template(manner.template)


def pre_tokenizer(about: Mapping[str, Any], where: str) -> str:
    """llama.cpp's name of how a byte-level BPE's `tokenizer.json` cuts texts. `RequestError` where it is not known."""
    steps = about.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    patterns = [step.get("pattern", {}).get("Regex") for step in steps if step.get("type") == "Split"]
    byte_level = [step for step in steps if step.get("type") == "ByteLevel"]
    if about["model"].get("type") == "BPE" and len(byte_level) == 1 and not byte_level[0].get("add_prefix_space"):
        if patterns == [PATTERN] and not byte_level[0].get("use_regex"):
            return PRE_TOKENIZER
        if not patterns and len(steps) == 1 and byte_level[0].get("use_regex", True):
            return "gpt-2"
    raise RequestError(
        f"{where}: of tokenizers, a GGUF file can be written here for byte-level BPE that cuts texts like Qwen2 or "
        "GPT-2; for others export with `--to hf` and take llama.cpp's own convert_hf_to_gguf.py"
    )


def _tokens(tokenizer: Tokenizer, about: Mapping[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    """(token, kind) of every id of the model; ids the tokenizer does not know are unused."""
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    kinds = [int(gguf.TokenType.UNUSED)] * vocab_size
    for token, i in tokenizer.get_vocab().items():
        tokens[i], kinds[i] = token, int(gguf.TokenType.NORMAL)
    for added in about.get("added_tokens", ()):
        kinds[added["id"]] = int(gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED)
    return tokens, kinds
