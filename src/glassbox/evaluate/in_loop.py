"""Tasks while a model trains: scored every so many steps, each score with its protocol and its interval.

Multiple choice: the log-probability of each continuation after its context. `acc` takes the continuation with the
largest sum, `len_norm` the one with the largest sum over its characters (without the leading blank); `bpb` are bits per
UTF-8 byte of the right continuation, averaged over items. Context and continuation are tokenised apart, no special
token is added, and what is too long is cut from the left (arXiv:2409.02060, appendix C, and its released evaluator).
Written answers: greedy, compared as numbers (`exact_match`).
"""

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from glassbox.errors import RequestError
from glassbox.evaluate.intervals import ratio, wilson
from glassbox.evaluate.stage import first_answer
from glassbox.evaluate.tasks import Asked, Item, items_of, variants
from glassbox.generate.replies import sample_replies
from glassbox.judge.verify import verify
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.ledger.writing import write_json
from glassbox.model.folder import LoadedModel
from glassbox.recipe.training import PretrainStage, Sampling
from glassbox.tokens.pack import Encoded, pack_conversations, rows_to_batch
from glassbox.tokens.tokenizer import END_OF_TEXT, encode, special_id
from glassbox.train.evaluation import logprobs_of_labels
from glassbox.train.parallel.place import Placed
from glassbox.train.parallel.ranks import processes
from glassbox.train.pretrain import Scorer

log = logging.getLogger("glassbox")

LONGEST = 2049
"""Tokens of a context with its continuation: 2,048 are read to predict the last one (OLMo's `model_ctx_len`)."""
ROUND = 256
"""Packed rows scored together, which bounds the memory of their arrays."""
CONFIDENCE = 0.95
SCORES = "task_scores.json"
"""The newest scores with protocol and interval, in the stage's folder."""


@dataclass(frozen=True)
class Outcome:
    """What came of one item."""

    item: Item
    right: bool
    bits_per_byte: float | None = None
    """Of the right continuation; None for a written answer."""


Trial = Callable[[Placed], list[Outcome]]
"""Puts a task to a model."""


def scorer(config: PretrainStage, inputs: Inputs, workspace: Workspace, tokenizer: Tokenizer, context: int) -> Scorer:
    """Read and tokenise the tasks of a stage; what is returned scores a model on them, and gives
    `task/<name>/<metric>` (`task/<name>_<group>/<metric>` for the groups of a task).

    Raises RequestError for a task that cannot be asked, before any training.
    """
    trials: list[tuple[Asked, Trial]] = []
    for task in config.tasks:
        if task.answered and processes() > 1:
            if workspace.rank == 0:
                log.warning("task '%s' is left out: no process holds the whole network to decode with", task.name)
            continue
        asked = items_of(task, inputs.maybe("problems"))
        if task.answered:
            trials.append((asked, written_answers(asked, tokenizer, context, workspace.seed)))
        else:
            trials.append((asked, multiple_choice(asked, tokenizer, context, config.loop.micro_rows)))

    def score(placed: Placed) -> dict[str, float]:
        rows = [row for asked, trial in trials for row in score_rows(asked, trial(placed))]
        if workspace.rank == 0:
            write_json(workspace.path(SCORES), {"confidence": CONFIDENCE, "rows": rows})
        return {f"task/{row['task']}/{row['metric']}": row["value"] for row in rows}

    return score


def multiple_choice(asked: Asked, tokenizer: Tokenizer, context: int, micro_rows: int) -> Trial:
    """Which continuation the model finds most likely, by the metric of the task's form."""
    questions = [item.question for item in asked.items]
    pairs = [pair for one in questions for pair in zip(one.contexts, one.continuations, strict=True)]
    longest = min(LONGEST, context)
    whole = [encoded_pair(tokenizer, before, after) for before, after in pairs]
    encoded = [cut_left(asked.task.name, ids, scored, longest) for ids, scored in whole]
    tell_cuts(asked, sum(len(ids) > longest for ids, _ in whole), longest)
    by_character = asked.form.metric == "len_norm"

    def trial(placed: Placed) -> list[Outcome]:
        sums = iter(continuation_logprobs(placed, encoded, context, micro_rows))
        return [chosen(item, [next(sums) for _ in item.question.continuations], by_character) for item in asked.items]

    return trial


def chosen(item: Item, sums: Sequence[float], by_character: bool) -> Outcome:
    """The outcome of log-probabilities in nats, one a continuation; of equal ones the first is taken."""
    question = item.question
    texts = [text.removeprefix(" ") for text in question.continuations]
    values = [value / max(1, len(text)) for value, text in zip(sums, texts, strict=True)] if by_character else sums
    bits = -sums[question.gold] / math.log(2) / max(1, len(texts[question.gold].encode()))
    return Outcome(item, values.index(max(values)) == question.gold, bits)


def encoded_pair(tokenizer: Tokenizer, before: str, after: str) -> Encoded:
    """(ids, which of them are the continuation's), tokenised apart. An empty context is the end of the text before."""
    context = encode(tokenizer, before) or [special_id(tokenizer, END_OF_TEXT)]
    continuation = encode(tokenizer, after)
    return [*context, *continuation], [False] * len(context) + [True] * len(continuation)


def cut_left(task: str, ids: Sequence[int], scored: Sequence[bool], longest: int) -> Encoded:
    """The last `longest` tokens. Raises RequestError for a continuation that leaves no room for a token before it."""
    if sum(scored) >= longest:
        raise RequestError(
            f"task '{task}': a continuation takes {sum(scored)} tokens, but there are {longest} with its context; "
            "lengthen the phases' context or leave the task out"
        )
    return ids[-longest:], scored[-longest:]


def tell_cuts(asked: Asked, cuts: int, longest: int) -> None:
    """Say in the log how many texts of a task were cut."""
    if cuts:
        log.warning("task '%s': %d texts are cut from the left to %d tokens", asked.task.name, cuts, longest)


def continuation_logprobs(placed: Placed, encoded: Sequence[Encoded], context: int, micro_rows: int) -> list[float]:
    """The summed log-probability in nats of each sequence's scored tokens. Sequences share rows of `context` tokens, as
    documents do in training; all processes of a plan call this and get every sum."""
    rows, _ = pack_conversations(encoded, context)
    sums = [0.0] * len(encoded)
    for start in range(0, len(rows), ROUND):
        some = rows[start : start + ROUND]
        logprobs_RT = logprobs_of_labels(placed, rows_to_batch(encoded, some, context, 0), micro_rows).double()
        for row_T, numbers in zip(logprobs_RT, some, strict=True):
            place = 0
            for number in numbers:
                length = len(encoded[number][0])
                sums[number] = float(row_T[place : place + length].sum())
                place += length
    return sums


def written_answers(asked: Asked, tokenizer: Tokenizer, context: int, seed: int) -> Trial:
    """Whether the model's own greedy answer comes to the right one; prompts are cut from the left."""
    task = asked.task
    room = context - task.max_new_tokens
    if room < 1:
        raise RequestError(f"task '{task.name}' wants {task.max_new_tokens} new tokens, but the context is {context}")
    start = special_id(tokenizer, END_OF_TEXT)
    whole = [[start, *encode(tokenizer, item.question.contexts[0])] for item in asked.items]
    prompts = [prompt[-room:] for prompt in whole]
    tell_cuts(asked, sum(len(prompt) > room for prompt in whole), room)
    sampling = Sampling(temperature=0.0, max_new_tokens=task.max_new_tokens)

    def trial(placed: Placed) -> list[Outcome]:
        model = placed.model
        loaded = LoadedModel(model, model.network, model.vocab_size, context, tokenizer)
        replies = sample_replies(loaded, prompts, sampling, key=(seed, "task", task.name))
        return [judged(item, reply.text) for item, (reply,) in zip(asked.items, replies, strict=True)]

    return trial


def judged(item: Item, reply: str) -> Outcome:
    """The outcome of a reply up to where it answers, or goes on to a question of its own."""
    return Outcome(
        item, verify(gold=item.question.answer, reply=first_answer(reply.partition("\nQuestion:")[0])).score == 1
    )


def score_rows(asked: Asked, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A task's scores, over all items and by group: value, interval, and the protocol."""
    rows = []
    for group in sorted({"", *(outcome.item.group for outcome in outcomes)}):
        part = [outcome for outcome in outcomes if group in ("", outcome.item.group)]
        protocol = {
            "task": f"{asked.task.name}_{group}" if group else asked.task.name,
            "form": asked.task.form,
            "shots": sorted({shots for _, shots in variants(asked.task)}),
            "n": len(part),
            "data_sha256": asked.sha256,
        }
        units: dict[int, list[Outcome]] = defaultdict(list)
        for outcome in part:
            units[outcome.item.row].append(outcome)
        rows.append({**protocol, "metric": asked.form.metric, **share_right(list(units.values()))})
        bits = [
            [outcome.bits_per_byte for outcome in unit if outcome.bits_per_byte is not None] for unit in units.values()
        ]
        if any(bits):
            rows.append({**protocol, "metric": "bpb", **mean(bits)})
    return rows


def share_right(units: Sequence[Sequence[Outcome]]) -> dict[str, float]:
    """The share of right items with its interval; items of one row are one unit of chance."""
    if all(len(unit) == 1 for unit in units):
        right = sum(outcome.right for unit in units for outcome in unit)
        low, high = wilson(right, len(units), CONFIDENCE)
        return {"value": right / len(units), "low": low, "high": high}
    return mean([[float(outcome.right) for outcome in unit] for unit in units])


def mean(units: Sequence[Sequence[float]]) -> dict[str, float]:
    """The mean over all values of all units; its interval where there are two units or more."""
    value, low, high = ratio([sum(unit) for unit in units], [float(len(unit)) for unit in units], CONFIDENCE)
    return {"value": value} | ({"low": low, "high": high} if len(units) > 1 else {})
