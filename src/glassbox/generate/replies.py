"""Replies to questions: what evaluation, preference pairs and RL rollouts sample with, tokens in and tokens out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from glassbox.errors import RequestError
from glassbox.generate.engine import Completion, Engine, Request
from glassbox.generate.template import foreign_manner, render_template
from glassbox.model.folder import LoadedModel
from glassbox.recipe.training import Sampling
from glassbox.tokens.chat import Message, encode_chat
from glassbox.tokens.tokenizer import END_OF_TEXT, END_OF_TURN, decode, encode, special_id


@dataclass(frozen=True)
class Reply:
    """One sampled completion of a prompt."""

    prompt_ids: list[int]
    ids: list[int]
    """The sampled tokens, the end token included."""
    logprobs: list[float]
    """The model's own log-probability of each sampled token (before temperature and cuts)."""
    text: str
    finish_reason: str
    """stop or length."""


def chat_prompt(loaded: LoadedModel, question: str) -> list[int]:
    """The ids that ask `question` as a user and hand the turn to the assistant."""
    return conversation_prompt(loaded, [{"role": "user", "content": question}])


def conversation_prompt(loaded: LoadedModel, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation up to where the assistant's next turn begins.

    Raises RequestError for messages that cannot be told, or where the model has no form for them.
    """
    manner = foreign_manner(loaded)
    if manner is None:
        return encode_chat(loaded.tokenizer, messages, generation_prompt=True)[0]
    return manner.reader.encode(render_template(manner, messages), add_special_tokens=False).ids


def plain_prompt(loaded: LoadedModel, question: str) -> list[int]:
    """The ids of the question as running text, as pretraining documents have it: a base model's way of being asked."""
    return [*start_ids(loaded), *encode(loaded.tokenizer, f"{question}\n")]


def start_ids(loaded: LoadedModel) -> list[int]:
    """What stands before a text: the end of the one before it, or the token that the model's own files name."""
    manner = foreign_manner(loaded)
    return [special_id(loaded.tokenizer, END_OF_TEXT)] if manner is None else list(manner.start_ids)


def stop_ids(loaded: LoadedModel) -> list[int]:
    """The tokens that end a reply: end of turn and end of text."""
    manner = foreign_manner(loaded)
    if manner is not None:
        return list(manner.stop_ids)
    return [special_id(loaded.tokenizer, END_OF_TURN), special_id(loaded.tokenizer, END_OF_TEXT)]


def seed_for(*key: object) -> int:
    """A 63-bit seed from anything that identifies a sample: (run seed, purpose, step, problem, sample)."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little") >> 1


def sample_replies(
    loaded: LoadedModel, prompts: Sequence[list[int]], sampling: Sampling, *, key: tuple[object, ...], samples: int = 1
) -> list[list[Reply]]:
    """`samples` replies to each prompt. Each follows from (`key`, its prompt's index, its own index) alone."""
    stops = stop_ids(loaded)
    longest = max(map(len, prompts))
    if longest >= loaded.context:
        raise RequestError(
            f"a question takes {longest} tokens, but the model's context is {loaded.context}; shorten it"
        )
    room = longest + sampling.max_new_tokens
    engine = Engine(loaded.model, slots=sampling.batch, capacity=min(room, loaded.context))
    requests = [
        Request(
            prompt_ids=prompt,
            max_new_tokens=min(sampling.max_new_tokens, loaded.context - len(prompt)),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=seed_for(*key, index, sample),
            stop_ids=tuple(stops),
        )
        for index, prompt in enumerate(prompts)
        for sample in range(samples)
    ]
    completions = engine.generate(requests)
    replies = [
        _reply(loaded, request.prompt_ids, done, stops) for request, done in zip(requests, completions, strict=True)
    ]
    return [replies[start : start + samples] for start in range(0, len(replies), samples)]


def _reply(loaded: LoadedModel, prompt: Sequence[int], done: Completion, stops: list[int]) -> Reply:
    ids = list(done.ids)
    spoken = ids[:-1] if ids and ids[-1] in stops else ids
    return Reply(list(prompt), ids, list(done.logprobs), decode(loaded.tokenizer, spoken), done.finish_reason)
