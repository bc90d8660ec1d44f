"""A recipe that goes the whole way in seconds, for tests that need real stages."""

from pathlib import Path

import torch

from glassbox.judge.problems import Problem, generate
from glassbox.model.folder import LoadedModel
from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, Network
from glassbox.recipe.text import ProblemKind
from glassbox.tokens.tokenizer import train_tokenizer

HEAD = """\
name: tiny
seed: 5
machine: {device: cpu, threads: 1}
stages:
  problems: {kind: problems, train: 400, held_out: 40, kinds: [{kind: addition, low: 1, high: 30}, {kind: comparison}]}
  documents:
    kind: curate
    from: problems
    sources: [{name: notes, format: text, path: NOTES}]
  tokenizer: {kind: tokenizer, from: [documents, problems], vocab_size: 400}
  tokens: {kind: tokenize, from: [documents, problems, tokenizer], held_out: 0.1}
"""
"""The recipe up to its tokens."""

TINY = (
    HEAD
    + """\
  base:
    kind: pretrain
    from: tokens
    model:
      dim: 32
      layers: 2
      attention: {heads: 4, kv_heads: 2, window: 32}
      experts: {count: 4, top_k: 2, hidden: 32, normalise: true}
      tie_embeddings: true
    phases:
      - {name: broad, steps: 20, context: 64, rows: 4, mixture: {notes: 0.5, problems: 0.5}}
      - {name: reasoning, steps: 20, context: 128, rows: 4, mixture: {problems: 1.0}}
    optimizer: {lr: 5.0e-3}
    loop: {checkpoint_every: 2, log_every: 2, evaluate_every: 6, micro_rows: 2}
  sft:
    kind: sft
    from: [base, problems]
    epochs: 4
    context: 128
    rows: 16
    optimizer: {lr: 5.0e-3}
    loop: {checkpoint_every: 2, log_every: 1, micro_rows: 8}
  rl:
    kind: grpo
    from: [sft, problems]
    steps: 8
    prompts: 4
    group: 4
    sampling: {max_new_tokens: 24, batch: 8}
    optimizer: {lr: 1.0e-3}
    loop: {checkpoint_every: 1, log_every: 1, micro_rows: 8}
  scores:
    kind: evaluate
    from: [base, sft, rl, problems, tokens]
    problems: 20
    sampling: {temperature: 0.0, max_new_tokens: 24, batch: 8}
"""
)

SENTENCES = (
    "The {a} of the library describes how the {b} is opened, read and closed by the program that calls it.",
    "When a {a} cannot be found, the {b} raises an error and says where it was looked for, which helps the reader.",
    "It is usual that the {b} keeps its own {a}, and that the two of them are written at the same time.",
    "Nothing in the {a} depends on the {b}, so that each of them may be tested and changed without the other.",
    "A reader of this page who wants a {b} will have to make one with the {a} that was shown in the last part.",
)
NOUNS = (
    "file",
    "module",
    "table",
    "stream",
    "parser",
    "record",
    "window",
    "server",
    "message",
    "folder",
    "index",
    "clock",
)


def write_notes(folder: Path, count: int = 40) -> Path:
    """Text documents that pass the quality rules: every page other sentences about other nouns."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in range(count):
        lines = []
        for line in range(12):
            turn = page * 12 + line
            a, b = NOUNS[turn % 12], NOUNS[(turn * 5 + page) % 12]
            lines.append(SENTENCES[(turn * 7 + page // 3) % 5].format(a=a, b=b) + f" See note {turn}.")
        (folder / f"note-{page:03d}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_tiny(folder: Path) -> Path:
    """The recipe file with its notes beside it."""
    notes = write_notes(folder / "notes")
    path = folder / "tiny.yaml"
    path.write_text(TINY.replace("NOTES", str(notes)), encoding="utf-8")
    return path


def tiny_loaded(context: int = 96) -> LoadedModel:
    """A small random model with a tokenizer of its own."""
    tokenizer = train_tokenizer([problem.question + "\n" + problem.solution for problem in tiny_problems(60)], 300)
    network = Network(dim=32, layers=2, hidden=64, attention=Attention(heads=4, kv_heads=2), init_std=0.2)
    model = Transformer(network, tokenizer.get_vocab_size())
    model.init_weights(3)
    return LoadedModel(model, network, tokenizer.get_vocab_size(), context, tokenizer)


def tiny_problems(count: int) -> list[Problem]:
    """Small additions."""
    return list(generate((ProblemKind(kind="addition", low=1, high=30),), count, 1, "train"))


OBJECTIVE_VOCABULARY = 29


def objective_model(seed: int) -> Transformer:
    """A dense network small enough to compare objectives on, with weights from the seed; one thread."""
    torch.set_num_threads(1)
    network = Network(dim=16, layers=2, attention=Attention(heads=2, kv_heads=1), hidden=32, init_std=0.3)
    model = Transformer(network, OBJECTIVE_VOCABULARY)
    model.init_weights(seed)
    return model
