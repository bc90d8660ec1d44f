"""One small model: trained on the tokens of one arm, measured on held-out texts as it goes, resumable."""

import hashlib
import json
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glassbox.generate.score import logprobs
from glassbox.ledger.workspace import Workspace
from glassbox.ledger.writing import write_json
from glassbox.model.transformer import Transformer
from glassbox.recipe.loop import Loop
from glassbox.recipe.network import Network
from glassbox.recipe.optimizer import Optimizer, Schedule
from glassbox.recipe.phases import Phase
from glassbox.tokens.batches import PretrainData
from glassbox.tokens.shards import TokenFolder
from glassbox.tokens.tokenizer import byte_lengths, encode, load_tokenizer
from glassbox.train.loop import fit, steady
from glassbox.train.losses import next_token


@dataclass(frozen=True)
class Plan:
    """What is the same for every arm."""

    network: Network
    steps: int = 1000
    rows: int = 8
    context: int = 256
    lr: float = 4e-3
    evaluations: int = 10
    """Times the held-out loss is measured on the way."""
    windows: int = 128
    """Most windows of each held-out set, evenly spaced over it."""

    @property
    def every(self) -> int:
        """Steps between evaluations."""
        return max(1, self.steps // self.evaluations)


@dataclass(frozen=True)
class HeldOut:
    """A held-out set in windows of tokens; the first token of a window has nothing before it and is not asked for."""

    windows: list[list[int]]
    bytes_T: NDArray[np.float64]
    """For each text, the UTF-8 bytes of the tokens asked for."""
    text: list[int]
    """For each window, the text it is of."""

    def nats(self, model: Transformer) -> NDArray[np.float64]:
        """Negative log-likelihood of each text, (T,)."""
        losses = [-float(row.double().sum()) for row in logprobs(model, self.windows)]
        return np.bincount(self.text, losses, len(self.bytes_T)).astype(np.float64)


def held_out_sets(pages: Path, tokens: Path, plan: Plan) -> dict[str, HeldOut]:
    """The texts of `held_out.json` in the windows that the plan allows."""
    tokenizer = load_tokenizer(TokenFolder(tokens).tokenizer_folder)
    lengths = byte_lengths(tokenizer)
    sets = {}
    for name, texts in json.loads((pages / "held_out.json").read_text(encoding="utf-8")).items():
        all_ids = [encode(tokenizer, text) for text in texts]
        windows = [
            (text, ids[start : start + plan.context])
            for text, ids in enumerate(all_ids)
            for start in range(0, len(ids) - 1, plan.context)
        ]
        count = min(plan.windows, len(windows))
        chosen = [windows[k * len(windows) // count] for k in range(count)]
        numbers = {text: n for n, text in enumerate(dict.fromkeys(text for text, _ in chosen))}
        of = [numbers[text] for text, _ in chosen]
        sizes = np.bincount(of, [float(lengths[ids[1:]].sum()) for _, ids in chosen]).astype(np.float64)
        sets[name] = HeldOut([ids for _, ids in chosen], sizes, of)
    return sets


def train(pages: Path, tokens: Path, folder: Path, seed: int, plan: Plan) -> None:
    """Train one model on the tokens of one arm; leaves `metrics.jsonl` and, when done, `scores.json`.

    Goes on from its last checkpoint. What was done with other settings, tokens or held-out texts is done anew.
    """
    read_files = [tokens / "pages" / "train" / name for name in ("tokens.bin", "index.npy")]
    read_files += [tokens / "tokenizer" / "tokenizer.json", pages / "held_out.json"]
    identity = {"seed": seed, "plan": plain(plan), "reads": {path.name: _hash(path) for path in read_files}}
    if folder.exists() and read(folder / "identity.json") != identity:
        shutil.rmtree(folder)
    if (folder / "scores.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "identity.json", identity)
    phase = Phase(name="all", steps=plan.steps, mixture={"pages": 1.0}, context=plan.context, rows=plan.rows)
    data = PretrainData(tokens, (phase,), seed)
    model = Transformer(plan.network, TokenFolder(tokens).vocab_size)
    model.init_weights(seed)
    sets = held_out_sets(pages, tokens, plan)

    latest: dict[str, NDArray[np.float64]] = {}

    def evaluate(*_: object) -> dict[str, float]:
        latest.update({name: one.nats(model) for name, one in sets.items()})
        return {f"bits_per_byte/{name}": bits_per_byte(one, latest[name]) for name, one in sets.items()}

    fit(
        model,
        data.batch,
        next_token,
        steps=plan.steps,
        course=steady(Optimizer(lr=plan.lr), Schedule(warmup=0.03, decay=0.3), plan.steps),
        loop=Loop(precision="bf16", micro_rows=plan.rows, evaluate_every=plan.every, log_every=plan.every),
        workspace=Workspace(folder, seed=seed, threads=1),
        evaluate=evaluate,
    )
    if not latest:  # gone on with from the checkpoint after the last step
        evaluate()
    found = {name: {"nats": latest[name].tolist(), "bytes": one.bytes_T.tolist()} for name, one in sets.items()}
    write_json(folder / "scores.json", {"epochs": data.epochs()["pages"], "sets": found})
    shutil.rmtree(folder / "checkpoints")


def bits_per_byte(held_out: HeldOut, nats_T: NDArray[np.float64]) -> float:
    """Over all texts of the set."""
    return float(nats_T.sum() / math.log(2) / held_out.bytes_T.sum())


def plain(plan: Plan) -> dict[str, Any]:
    """The plan as JSON has it."""
    return {**asdict(plan), "network": plan.network.model_dump(mode="json")}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(path: Path) -> Any:
    """What a JSON file holds; None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
