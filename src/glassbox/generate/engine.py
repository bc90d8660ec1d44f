"""Continuous batching: many requests decode side by side, and a finished one's place is given to the next at once.

The cache has `slots` rows. The sequences that are decoding fill rows 0..n-1, so that a step works on contiguous views:
when one finishes, the last one moves into its row. The prompts being read stand in rows after them.

    rows:   [ decoding 0 .. n-1 ][ free ... ][ a group of new prompts ][ free ... ]

A step reads one chunk of the group of new prompts, if there is one, and then decodes one token for every sequence.
Equal prompts are read once: the row is copied for each further request, also from one that is already decoding.

Letters: N decoding sequences, B prompts of a group, T prompt tokens of a chunk, V vocabulary.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from glassbox.errors import RequestError
from glassbox.generate.sampling import sample, uniforms
from glassbox.generate.score import check_ids
from glassbox.model.cache import Cache
from glassbox.model.transformer import Transformer

PREFILL_TOKENS = 2048
"""Prompt tokens read in one step at most, so that long prompts hold up running sequences for a bounded time."""

Reason = Literal["stop", "length"]

COLUMNS = [
    ("token", np.int64),
    ("position", np.int64),
    ("drawn", np.int64),
    ("seed", np.uint64),
    ("temperature", np.float32),
    ("top_k", np.int64),
    ("top_p", np.float32),
]


@dataclass(frozen=True)
class Request:
    """A prompt and how to go on from it."""

    prompt_ids: Sequence[int]
    max_new_tokens: int
    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    top_p: float = 1.0
    """Keep the fewest tokens whose probability reaches this."""
    top_k: int = 0
    """Keep this many most likely tokens; 0 keeps all."""
    seed: int = 0
    """Fixes the draws, whatever runs beside the request. Give each sample of a prompt its own."""
    stop_ids: Sequence[int] = ()
    """Tokens that end the completion."""


@dataclass(frozen=True)
class Completion:
    """What a request gave."""

    ids: list[int]
    """The new tokens; the last one is the stop token when the reason is "stop"."""
    logprobs: list[float]
    """Log-probability in nats of each token under the model itself (temperature 1, nothing cut off)."""
    finish_reason: Reason


@dataclass(frozen=True, slots=True)
class Event:
    """One token of one request, as it comes out of a step."""

    id: int
    """The request's number, as `submit` gave it."""
    token: int
    logprob: float
    finish_reason: Reason | None
    """Set when this was the request's last token."""


@dataclass(eq=False)
class _Sequence:
    number: int
    request: Request
    prompt: tuple[int, ...]
    stops: frozenset[int]
    first_logits_V: Tensor | None = None
    """Logits after the prompt, kept for later requests with the same one."""


@dataclass
class _Group:
    """New prompts read together: `prompts[i]` in row `start + i`; several sequences may wait for the same prompt."""

    start: int
    prompts: list[tuple[int, ...]]
    members: list[_Sequence]
    done: int = 0
    first_logits: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    @property
    def width(self) -> int:
        return max(map(len, self.prompts))


class Engine:
    """Decodes requests with a model, at most `slots` at a time, each of at most `capacity` tokens with its prompt.

    Computes in the type of the weights. The cache takes slots * columns * 2 * layers * kv_heads * head_dim numbers;
    columns are the capacity, or the attention's window if that is smaller. Raises `RequestError` for a network that
    cannot decode.
    """

    def __init__(self, model: Transformer, *, slots: int, capacity: int):
        experts = model.network.experts
        if experts is not None and experts.choice == "expert":
            raise RequestError(
                "this network's experts choose their tokens among all of a row, later ones included, so it cannot "
                "decode token by token; train it with `choice: token`"
            )
        weight = model.embedding.weight
        self.model, self.slots, self.capacity = model, slots, capacity
        self.device, self.dtype = weight.device, weight.dtype
        self.cache = Cache(model.network, slots, capacity, self.device, self.dtype)
        self.waiting: deque[_Sequence] = deque()
        self.group: _Group | None = None
        self.decoding: list[_Sequence] = []
        self.table = np.zeros(slots, dtype=COLUMNS)
        self.submitted = 0

    @property
    def busy(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self.waiting or self.group or self.decoding)

    @property
    def free_slots(self) -> int:
        return self.slots - len(self.decoding) - (len(self.group.members) if self.group else 0)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete all requests, in their order. Raises `RequestError` before any work if one of them cannot run."""
        if self.busy:
            raise RequestError("the engine has unfinished requests; finish them with step() or abort them first")
        for request in requests:
            self.check(request)
        # equal prompts next to each other are read once, similar lengths waste little padding
        order = sorted(
            range(len(requests)), key=lambda i: (len(requests[i].prompt_ids), tuple(requests[i].prompt_ids), i)
        )
        index = {self.submit(requests[i]): i for i in order}
        drawn: list[list[Event]] = [[] for _ in requests]
        while self.busy:
            for event in self.step():
                drawn[index[event.id]].append(event)
        return [_completion(events) for events in drawn]

    def check(self, request: Request) -> None:
        """Raise `RequestError` if the request cannot be served."""
        length, new = len(request.prompt_ids), request.max_new_tokens
        if length == 0 or new < 1:
            raise RequestError(f"a request needs a prompt and at least one new token, not {length} and {new}")
        if length + new > self.capacity:
            raise RequestError(
                f"a prompt of {length} tokens and {new} new ones do not fit in {self.capacity} tokens; "
                "shorten the prompt or ask for fewer"
            )
        if not request.temperature >= 0 or request.top_k < 0 or not 0 < request.top_p <= 1:
            raise RequestError("sampling needs temperature >= 0, top_k >= 0 and 0 < top_p <= 1")
        check_ids([request.prompt_ids], self.model.vocab_size)

    def submit(self, request: Request) -> int:
        """Queue a request; its number names it in later events. Raises `RequestError` if it cannot run."""
        self.check(request)
        sequence = _Sequence(self.submitted, request, tuple(request.prompt_ids), frozenset(request.stop_ids))
        self.waiting.append(sequence)
        self.submitted += 1
        return sequence.number

    def abort(self, number: int) -> None:
        """Stop a request and free its slot now: no more events come of it. A finished or unknown one is left alone."""
        self.waiting = deque(sequence for sequence in self.waiting if sequence.number != number)
        if self.group is not None:
            self.group.members = [sequence for sequence in self.group.members if sequence.number != number]
            if not self.group.members:
                self.group = None
        for row, sequence in enumerate(self.decoding):
            if sequence.number == number:
                self._release(row)
                return

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Read a chunk of new prompts, then decode one token for each running sequence; what came out."""
        with self.model.computing_in(self.dtype):
            events = self._admit_copies()
            if self.group is None:
                self._form_group()
            if self.group is not None:
                events += self._read_chunk(self.group)
            if self.decoding:
                events += self._decode()
        return events

    def _admit_copies(self) -> list[Event]:
        """Start the waiting requests whose prompt a decoding row still holds: its keys and values are copied."""
        begun = len(self.decoding)
        limit = self.group.start if self.group else self.slots
        if not self.waiting or begun >= limit:
            return []
        sources = {
            sequence.prompt: row
            for row, sequence in enumerate(self.decoding)
            if self.cache.holds(len(sequence.prompt), int(self.table["position"][row]))
        }
        kept: deque[_Sequence] = deque()
        for sequence in self.waiting:
            source = sources.get(sequence.prompt)
            if source is None or len(self.decoding) >= limit or self.free_slots == 0:
                kept.append(sequence)
            else:
                sequence.first_logits_V = self.decoding[source].first_logits_V
                self.cache.copy(source, len(self.decoding), len(sequence.prompt))
                self._begin(sequence)
        self.waiting = kept
        return self._first_tokens(begun)

    def _form_group(self) -> None:
        """Take the next waiting requests as a group: as many as have room and are of similar length."""
        free = self.free_slots
        # when more wait than fit, let a few slots come free first: reading prompts one by one is slow
        if not self.waiting or (len(self.waiting) > free and self.decoding and free < self.slots / 8):
            return
        members: list[_Sequence] = []
        prompts: dict[tuple[int, ...], None] = {}
        while self.waiting and len(members) < free:
            prompt = self.waiting[0].prompt
            lengths = [len(each) for each in (*prompts, prompt)]
            if members and len(lengths) * max(lengths) > 1.5 * sum(lengths):
                break
            prompts[prompt] = None
            members.append(self.waiting.popleft())
        if members:
            self.group = _Group(self.slots - len(prompts), list(prompts), members)

    def _read_chunk(self, group: _Group) -> list[Event]:
        """Run the next columns of the group's prompts; at the last ones its sequences join the decoding ones."""
        B = len(group.prompts)
        width = min(max(1, PREFILL_TOKENS // B), group.width - group.done)
        ids_BT = np.zeros((B, width), dtype=np.int64)
        positions_BT = np.tile(np.arange(group.done, group.done + width), (B, 1))
        for ids, positions, prompt in zip(ids_BT, positions_BT, group.prompts, strict=True):
            part = prompt[group.done : group.done + width]
            ids[: len(part)] = part
            positions[len(part) :] = -1
        # at the start plain causal attention is faster; padding that it stores is never looked at
        plain = group.done == 0 and (width <= self.cache.columns or positions_BT[:, -1].min() >= 0)
        places_BT = None if plain else torch.from_numpy(positions_BT).to(self.device)
        rows = self.cache.rows(group.start, group.start + B)
        hidden_BTD = self.model(torch.from_numpy(ids_BT).to(self.device), places_BT, cache=rows).hidden_BTD
        ends = [(i, len(prompt) - 1 - group.done) for i, prompt in enumerate(group.prompts)]
        ends = [(i, end) for i, end in ends if 0 <= end < width]
        if ends:
            last_ND = hidden_BTD[[i for i, _ in ends], [end for _, end in ends]]
            for (i, _), logits_V in zip(ends, last_ND @ self.model.head_VD.T, strict=True):
                group.first_logits[group.prompts[i]] = logits_V.clone()
        group.done += width
        return self._join(group) if group.done >= group.width else []

    def _join(self, group: _Group) -> list[Event]:
        """Move a group that has been read to the rows after the decoding ones, a row for each of its sequences."""
        self.group = None
        begun = len(self.decoding)
        wanted = {sequence.prompt for sequence in group.members}
        source = {prompt: group.start + i for i, prompt in enumerate(group.prompts) if prompt in wanted}
        # each prompt moves once, downwards and in order, before rows above are overwritten by further copies
        firsts = {sequence.prompt: sequence for sequence in reversed(group.members)}
        ordered = [firsts[prompt] for prompt in source]
        ordered += [sequence for sequence in group.members if firsts[sequence.prompt] is not sequence]
        for sequence in ordered:
            row = len(self.decoding)
            if source[sequence.prompt] != row:
                self.cache.copy(source[sequence.prompt], row, len(sequence.prompt))
            source[sequence.prompt] = row
            sequence.first_logits_V = group.first_logits[sequence.prompt]
            self._begin(sequence)
        return self._first_tokens(begun)

    def _begin(self, sequence: _Sequence) -> None:
        """Enter a sequence whose prompt is in the cache in the row after the last decoding one."""
        request = sequence.request
        seed = request.seed % 2**64
        row = (0, len(sequence.prompt) - 1, 0, seed, request.temperature, request.top_k, request.top_p)
        self.table[len(self.decoding)] = row
        self.decoding.append(sequence)

    def _first_tokens(self, begun: int) -> list[Event]:
        """Draw the first token of the sequences that have just begun: rows `begun` and after."""
        logits = [sequence.first_logits_V for sequence in self.decoding[begun:]]
        return self._draw(torch.stack([each for each in logits if each is not None]), begun) if logits else []

    def _decode(self) -> list[Event]:
        """One token for each decoding sequence."""
        N = len(self.decoding)
        ids_N1, positions_N1 = (self._column(name, 0, N)[:, None] for name in ("token", "position"))
        hidden_N1D = self.model(ids_N1, positions_N1, cache=self.cache.rows(0, N)).hidden_BTD
        return self._draw(hidden_N1D.squeeze(1) @ self.model.head_VD.T, 0)

    def _draw(self, logits_NV: Tensor, start: int) -> list[Event]:
        """Draw a token for the sequences from row `start` on, record it, and release those that are finished."""
        stop = len(self.decoding)
        rows = self.table[start:stop]
        uniform_N = torch.from_numpy(uniforms(rows["seed"], rows["drawn"])).to(self.device)
        temperature_N, top_k_N, top_p_N = (
            self._column(name, start, stop) for name in ("temperature", "top_k", "top_p")
        )
        id_N, logprob_N = sample(logits_NV, temperature_N, top_k_N, top_p_N, uniform_N)
        rows["token"] = id_N.cpu().numpy()
        rows["position"] += 1
        rows["drawn"] += 1
        events, finished = [], []
        for row, (token, logprob) in enumerate(zip(id_N.tolist(), logprob_N.tolist(), strict=True), start):
            sequence = self.decoding[row]
            reason: Reason | None = None
            if token in sequence.stops:
                reason = "stop"
            elif rows["drawn"][row - start] == sequence.request.max_new_tokens:
                reason = "length"
            if reason:
                finished.append(row)
            events.append(Event(sequence.number, token, logprob, reason))
        for row in reversed(finished):
            self._release(row)
        return events

    def _release(self, row: int) -> None:
        """Free a decoding row: the last decoding sequence takes its place."""
        last = len(self.decoding) - 1
        moved = self.decoding.pop()
        if row != last:
            self.cache.copy(last, row, int(self.table["position"][last]))
            self.table[row] = self.table[last]
            self.decoding[row] = moved

    def _column(self, name: str, start: int, stop: int) -> Tensor:
        column: Any = np.ascontiguousarray(self.table[name][start:stop])
        return torch.from_numpy(column).to(self.device)


def _completion(events: list[Event]) -> Completion:
    reason = events[-1].finish_reason
    assert reason is not None
    return Completion([event.token for event in events], [event.logprob for event in events], reason)
