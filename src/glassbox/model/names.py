"""How a model family's files name and lay out our tensors: tables, and readers that translate by them.

Every tensor of ours is some of theirs laid together along its first dimension (queries, keys, values; gate and up; one
expert after the other), so both ways go piece by piece and need the room of one piece.

Letters: E experts, D model width, H inner width.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from glassbox.errors import RequestError
from glassbox.model.tensors import Entry, Tensors
from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Network


@dataclass(frozen=True)
class Names:
    """The names of one kind of file. A value with several names: laid one below the other."""

    whole: Mapping[str, tuple[str, ...]]
    """Our tensors outside the blocks -> theirs; `{k}` is the number of a multi-token block."""
    block: Mapping[str, tuple[str, ...]]
    """Our tensors of a block -> theirs; `{e}` is the number of an expert (without it, experts are stacked)."""
    prefixes: Mapping[str, str]
    """What stands before a block's names, ours -> theirs."""


WHOLE = {
    "embedding.weight": ("model.embed_tokens.weight",),
    "norm.weight": ("model.norm.weight",),
    "head.weight": ("lm_head.weight",),
    "multi_token.{k}.token_norm.weight": ("model.mtp_layers.{k}.token_layernorm.weight",),
    "multi_token.{k}.hidden_norm.weight": ("model.mtp_layers.{k}.hidden_layernorm.weight",),
    "multi_token.{k}.project.weight": ("model.mtp_layers.{k}.input_proj.weight",),
    "multi_token.{k}.norm.weight": ("model.mtp_layers.{k}.final_layernorm.weight",),
}
PREFIXES = {"blocks.{n}.": "model.layers.{n}.", "multi_token.{n}.block.": "model.mtp_layers.{n}."}
BLOCK = {
    "attention_norm.weight": ("input_layernorm.weight",),
    "attention.qkv.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "attention.qkv.bias": ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"),
    "attention.q_norm.weight": ("self_attn.q_norm.weight",),
    "attention.k_norm.weight": ("self_attn.k_norm.weight",),
    "attention.out.weight": ("self_attn.o_proj.weight",),
    "feed_forward_norm.weight": ("post_attention_layernorm.weight",),
    "feed_forward.gate_up.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "feed_forward.down.weight": ("mlp.down_proj.weight",),
    "feed_forward.router.weight": ("mlp.gate.weight",),
    "feed_forward.router.bias_E": ("mlp.gate.e_score_correction_bias",),
    "feed_forward.gate_up_EDH": ("mlp.experts.{e}.gate_proj.weight", "mlp.experts.{e}.up_proj.weight"),
    "feed_forward.down_EHD": ("mlp.experts.{e}.down_proj.weight",),
    "feed_forward.shared.gate_up.weight": ("mlp.shared_experts.gate_proj.weight", "mlp.shared_experts.up_proj.weight"),
    "feed_forward.shared.down.weight": ("mlp.shared_experts.down_proj.weight",),
}
MIXTRAL = {
    "feed_forward.router.weight": ("block_sparse_moe.gate.weight",),
    "feed_forward.gate_up_EDH": ("block_sparse_moe.experts.{e}.w1.weight", "block_sparse_moe.experts.{e}.w3.weight"),
    "feed_forward.down_EHD": ("block_sparse_moe.experts.{e}.w2.weight",),
}
HUB = Names(WHOLE, BLOCK, PREFIXES)
"""As the Hugging Face hub's files name them."""
HUB_MIXTRAL = Names(WHOLE, {**BLOCK, **MIXTRAL}, PREFIXES)
LLAMA_CPP = Names(
    {
        "embedding.weight": ("token_embd.weight",),
        "norm.weight": ("output_norm.weight",),
        "head.weight": ("output.weight",),
    },
    {
        "attention_norm.weight": ("attn_norm.weight",),
        "attention.qkv.weight": ("attn_q.weight", "attn_k.weight", "attn_v.weight"),
        "attention.qkv.bias": ("attn_q.bias", "attn_k.bias", "attn_v.bias"),
        "attention.q_norm.weight": ("attn_q_norm.weight",),
        "attention.k_norm.weight": ("attn_k_norm.weight",),
        "attention.out.weight": ("attn_output.weight",),
        "feed_forward_norm.weight": ("ffn_norm.weight",),
        "feed_forward.gate_up.weight": ("ffn_gate.weight", "ffn_up.weight"),
        "feed_forward.down.weight": ("ffn_down.weight",),
        "feed_forward.router.weight": ("ffn_gate_inp.weight",),
        "feed_forward.router.bias_E": ("exp_probs_b.bias",),
        "feed_forward.gate_up_EDH": ("ffn_gate_exps.weight", "ffn_up_exps.weight"),
        "feed_forward.down_EHD": ("ffn_down_exps.weight",),
        "feed_forward.shared.gate_up.weight": ("ffn_gate_shexp.weight", "ffn_up_shexp.weight"),
        "feed_forward.shared.down.weight": ("ffn_down_shexp.weight",),
    },
    {"blocks.{n}.": "blk.{n}."},
)
"""As GGUF files name them."""


def hub_names(model_type: str) -> Names:
    """The names in a family's files on the hub."""
    return HUB_MIXTRAL if model_type == "mixtral" else HUB


@dataclass(frozen=True)
class Part:
    """A tensor of theirs, or one expert's slab of it, and the rows of one of ours that it is (a part of)."""

    theirs: str
    shape: tuple[int, ...]
    """Of the tensor, or of the slab."""
    ours: str
    start: int
    stop: int
    expert: int | None = None
    """The expert whose matrices these are; rows `start` to `stop` of ours are then its slab alone."""
    slab: bool = False
    """Whether theirs stacks the experts' matrices."""
    half: int = 0
    """Which of the columns' halves of an expert's slab of ours: gate is 0, up is 1."""
    heads: int = 0
    """Heads whose channels are paired as neighbours; 0: none are."""


def own_entries(network: Network, vocab_size: int, dtype: torch.dtype = torch.float32) -> dict[str, Entry]:
    """Our tensors of a network, in the order of its parts, without building it; the routers' biases are fp32."""
    with torch.device("meta"):
        state = Transformer(network, vocab_size).state_dict()
    return {
        name: Entry(torch.float32 if name.endswith("bias_E") else dtype, tuple(tensor.shape))
        for name, tensor in state.items()
    }


def parts(network: Network, entries: Mapping[str, Entry], names: Names, paired: bool = False) -> list[Part]:
    """Which tensor of theirs holds which rows of ours, for every one of ours, in order.

    `paired`: queries and keys are turned in pairs of neighbouring channels there (llama.cpp's `llama`), not of halves.
    """
    return [part for name, entry in entries.items() for part in _parts(network, name, entry.shape, names, paired)]


def _parts(network: Network, name: str, shape: tuple[int, ...], names: Names, paired: bool) -> Iterator[Part]:
    theirs, prefix = _look_up(name, names)
    if name.endswith(("_EDH", "_EHD")):
        for e in range(shape[0]):
            for half, pattern in enumerate(theirs):
                inner = (shape[2] // len(theirs), shape[1])
                full = prefix + pattern.format(e=e)
                yield Part(full, inner, name, e, e + 1, e, slab="{e}" not in pattern, half=half)
        return
    rows = [shape[0]]
    if len(theirs) == 3:
        attention = network.attention
        rows = [count * network.head_dim for count in (attention.heads, attention.kv_heads, attention.kv_heads)]
    elif len(theirs) == 2:
        rows = [shape[0] // 2] * 2
    start = 0
    for i, (pattern, count) in enumerate(zip(theirs, rows, strict=True)):
        heads = count // network.head_dim if paired and len(theirs) == 3 and i < 2 else 0
        yield Part(prefix + pattern, (count, *shape[1:]), name, start, start + count, heads=heads)
        start += count


def _look_up(name: str, names: Names) -> tuple[tuple[str, ...], str]:
    """(theirs, what stands before them) of one of ours."""
    for ours, theirs in names.prefixes.items():
        if found := re.fullmatch(re.escape(ours).replace(r"\{n\}", r"(\d+)") + "(.+)", name):
            return names.block[found[2]], theirs.format(n=found[1])
    number = re.search(r"\d+", name)
    if number is None:
        return names.whole[name], ""
    general = name.replace(number[0], "{k}", 1)
    return tuple(theirs.format(k=number[0]) for theirs in names.whole[general]), ""


def their_entries(parts: list[Part], entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Type and shape of each of theirs, the type of what it is made from."""
    found: dict[str, Entry] = {}
    for part in parts:
        experts = entries[part.ours].shape[:1] if part.slab else ()
        found[part.theirs] = Entry(entries[part.ours].dtype, (*experts, *part.shape))
    return found


class AsOurs:
    """Their files as `Tensors` under our names."""

    def __init__(self, theirs: Tensors, parts: list[Part], entries: Mapping[str, Entry]):
        """`entries`: ours, of which the shapes count; the types follow from what is there."""
        self._theirs, self._parts = theirs, _by(parts, "ours")
        self.entries = {
            name: replace(entry, dtype=_common(theirs.entries[part.theirs].dtype for part in self._parts[name]))
            for name, entry in entries.items()
        }

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start` to `stop` of one of ours."""
        entry = self.entries[name]
        start, stop, _ = slice(start, stop).indices(entry.shape[0])
        tensor = torch.empty((stop - start, *entry.shape[1:]), dtype=entry.dtype)
        for part in self._parts[name]:
            first, last = max(part.start, start), min(part.stop, stop)
            if first < last:
                into = tensor[first - start : last - start]
                if part.expert is not None:
                    _half(into[0], part).copy_(self._matrix(part).T)
                elif part.heads:
                    into.copy_(_halved(self._matrix(part), part.heads)[first - part.start : last - part.start])
                else:
                    into.copy_(self._theirs.read(part.theirs, first - part.start, last - part.start))
        return tensor

    def _matrix(self, part: Part) -> Tensor:
        if part.slab:
            assert part.expert is not None
            return self._theirs.read(part.theirs, part.expert, part.expert + 1)[0]
        return self._theirs.read(part.theirs)


class AsTheirs:
    """Our tensors as `Tensors` under their names."""

    def __init__(self, ours: Tensors, parts: list[Part]):
        self._ours, self._parts = ours, _by(parts, "theirs")
        self.entries = their_entries(parts, ours.entries)
        self._last: tuple[Part, Tensor] | None = None

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start` to `stop` of one of theirs."""
        start, stop, _ = slice(start, stop).indices(self.entries[name].shape[0])
        part = self._parts[name][0]
        if part.slab:
            return torch.stack([self._matrix(part) for part in self._parts[name][start:stop]])
        if part.expert is not None or part.heads:
            return self._matrix(part)[start:stop]
        return self._ours.read(part.ours, part.start + start, part.start + stop)

    def _matrix(self, part: Part) -> Tensor:
        """The part turned to their layout; kept until another is asked for, as it may be read in pieces."""
        if self._last is None or self._last[0] is not part:
            self._last = None
            tensor = self._ours.read(part.ours, part.start, part.stop)
            turned = _paired(tensor, part.heads) if part.heads else _half(tensor[0], part).T.contiguous()
            self._last = part, turned
        return self._last[1]


def _half(slab: Tensor, part: Part) -> Tensor:
    """The part's columns of an expert's slab of ours, which is input by output: turned, they are the part's matrix."""
    width = part.shape[0]
    return slab[:, part.half * width : (part.half + 1) * width]


def _paired(tensor: Tensor, heads: int) -> Tensor:
    """Rows of each head from two halves to neighbouring pairs: i and i + d/2 become 2i and 2i + 1."""
    return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _halved(tensor: Tensor, heads: int) -> Tensor:
    """The way back from `_paired`."""
    return tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _by(parts: list[Part], key: str) -> dict[str, list[Part]]:
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(getattr(part, key), []).append(part)
    return found


def _common(dtypes: Iterator[torch.dtype]) -> torch.dtype:
    """The type that holds all of them."""
    common = next(dtypes)
    for dtype in dtypes:
        common = torch.promote_types(common, dtype)
    return common


def check_names(
    found: Mapping[str, Entry], wanted: Mapping[str, Entry], where: str, spare: tuple[str, ...] = ()
) -> None:
    """Raise `RequestError` unless exactly the wanted tensors were found, `spare` ones aside, each in its shape."""
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted and not any(re.fullmatch(way, name) for way in spare)]
    shaped = [name for name in wanted if name in found and found[name].shape != wanted[name].shape]
    if missing:
        raise RequestError(f"{where} lacks {len(missing)} of {len(wanted)} tensors, first '{missing[0]}'")
    if extra:
        raise RequestError(f"{where} holds {len(extra)} tensors that the network has no place for, first '{extra[0]}'")
    if shaped:
        name = shaped[0]
        raise RequestError(f"{where}: '{name}' has shape {list(found[name].shape)}, not {list(wanted[name].shape)}")


class Folded:
    """The tensors of a network under muP as those of a plain one: the head's factor goes into the norms before it."""

    def __init__(self, ours: Tensors, network: Network):
        assert network.mup_base is not None
        self._ours, self.entries = ours, ours.entries
        self._factor = network.mup_base / network.dim

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows of a tensor, the norms before the head scaled."""
        tensor = self._ours.read(name, start, stop)
        return tensor * self._factor if re.fullmatch(r"(multi_token\.\d+\.)?norm\.weight", name) else tensor
