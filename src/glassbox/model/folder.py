"""A model folder: `config.json`, `model.safetensors`, and the tokenizer's `tokenizer.json` and `chat.json`."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from glassbox.errors import RequestError
from glassbox.ledger.writing import atomic_path, write_json
from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Network

CONFIG, WEIGHTS = "config.json", "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "chat.json")


@dataclass(frozen=True)
class LoadedModel:
    """A model as read from its folder."""

    model: Transformer
    network: Network
    vocab_size: int
    context: int
    """Longest row it was trained on, in tokens."""
    tokenizer: Tokenizer


def save_model(
    folder: Path, model: Transformer, network: Network, vocab_size: int, context: int, tokenizer_folder: Path
) -> None:
    """Write a model folder, each file whole or not at all; files of an earlier try are replaced."""
    for name in TOKENIZER_FILES:
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(tokenizer_folder / name, temporary)
    save_weights(folder / WEIGHTS, model)
    config = {"network": network.model_dump(mode="json"), "vocab_size": vocab_size, "context": context}
    write_json(folder / CONFIG, config)


def load_model(folder: Path, device: str = "cpu", dtype: torch.dtype | None = None) -> LoadedModel:
    """Read a model folder, ready to compute on `device`.

    `dtype` (None: fp32) is the type of the matrix products; the matrices are turned to it once, so that decoding does
    not cast them at every step, while gains and routers stay fp32. Raises `RequestError` naming the file that is
    missing or damaged.
    """
    config = _read_json(folder / CONFIG)
    try:
        network, vocab_size, context = Network(**config["network"]), int(config["vocab_size"]), int(config["context"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise RequestError(f"{folder / CONFIG} does not describe a glassbox model ({_first_line(error)})") from error
    _require(folder / "tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise RequestError(f"{folder / 'tokenizer.json'} is not a readable tokenizer ({_first_line(error)})") from error
    tokenizer.encode_special_tokens = True  # text is text: no user's words may open or close a turn
    with torch.device("meta"):
        model = Transformer(network, vocab_size)
    model.to_empty(device=device)
    load_weights(folder / WEIGHTS, model)
    if dtype is not None:
        model.compute_dtype = dtype
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "router" not in name:
                weight.data = weight.data.to(dtype)
    return LoadedModel(model, network, vocab_size, context, tokenizer)


def save_weights(path: Path, model: Transformer) -> None:
    """Write a model's weights as safetensors; the same weights give the same bytes."""
    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(weights, temporary)


def load_weights(path: Path, model: Transformer) -> None:
    """Read weights into a model in place. `RequestError` if it is missing, damaged or of another network."""
    _require(path)
    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise RequestError(f"{path} is damaged ({_first_line(error)}); restore it or run its stage again") from error
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        if name not in weights or name not in own or weights[name].shape != own[name].shape:
            raise RequestError(
                f"{path} holds the weights of another network: '{name}' is missing, new or shaped otherwise"
            )
    model.load_state_dict(weights)


def _read_json(path: Path) -> dict:
    _require(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is damaged: not valid JSON ({_first_line(error)})") from error
    if not isinstance(value, dict):
        raise RequestError(f"{path} is damaged: not a JSON object")
    return value


def _require(path: Path) -> None:
    if not path.is_file():
        raise RequestError(f"{path} is missing: not a complete model folder")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
