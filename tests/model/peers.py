"""Our networks as transformers models: the same sizes, the same weights, by the tables that imports and exports use."""

import json
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from glassbox.model.families import Sizes, to_config
from glassbox.model.names import AsTheirs, hub_names, parts
from glassbox.model.tensors import InMemory, write_tensors
from glassbox.model.transformer import Transformer


def peer(model: Transformer) -> PreTrainedModel:
    """The same network and weights as a transformers model, multi-token blocks left out."""
    network = model.network.model_copy(update={"multi_token": None})
    config = to_config(Sizes(network, model.vocab_size, 128))
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("multi_token")}
    ours = InMemory(state)
    with tempfile.TemporaryDirectory() as folder:
        write_tensors(Path(folder), AsTheirs(ours, parts(network, ours.entries, hub_names(config["model_type"]))))
        (Path(folder) / "config.json").write_text(json.dumps(config))
        return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def translated(model: Transformer, what: str) -> dict[str, torch.Tensor]:
    """Our weights (`data`) or gradients (`grad`) under the names of transformers' parameters, which hold a layer's
    experts in two tensors."""
    model_type = to_config(Sizes(model.network, model.vocab_size, 128))["model_type"]
    ours = InMemory({name: getattr(weight, what) for name, weight in model.named_parameters()})
    theirs = AsTheirs(ours, parts(model.network, ours.entries, hub_names(model_type)))
    found: dict[str, torch.Tensor] = {}
    experts: dict[str, dict[str, list[torch.Tensor]]] = {}
    for name in theirs.entries:
        if ".experts." not in name:
            found[name.replace("block_sparse_moe", "mlp")] = theirs.read(name)
            continue
        layer, rest = name.replace("block_sparse_moe", "mlp").split(".experts.")
        kind = {"w1": "gate", "w3": "up", "w2": "down"}.get(rest.split(".")[1], rest.split(".")[1].split("_")[0])
        experts.setdefault(layer, {}).setdefault(kind, []).append(theirs.read(name))
    for layer, kinds in experts.items():
        pairs = zip(kinds["gate"], kinds["up"], strict=True)
        found[f"{layer}.experts.gate_up_proj"] = torch.stack([torch.cat(pair) for pair in pairs])
        found[f"{layer}.experts.down_proj"] = torch.stack(kinds["down"])
    if model.head is None:
        found["lm_head.weight"] = found["model.embed_tokens.weight"]
    return found
