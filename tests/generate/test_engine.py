"""Decoding does not depend on batching, order, chunks or neighbours, and agrees with the training forward."""

import random

import pytest
import torch

import glassbox.generate.engine as engine_module
from glassbox.errors import RequestError
from glassbox.generate.engine import Engine, Request
from glassbox.generate.score import logprobs
from glassbox.recipe.network import Experts

from ..model.peers import peer
from .models import DENSE, MIXTURE, NETWORKS, NORMALISED, WINDOWED, V, build, prompts


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS.keys())
def model(request):
    return build(request.param)


def greedy_by_hand(model, prompt, count, stops=()):
    """The plainest loop: a whole forward pass for every token."""
    ids = list(prompt)
    with torch.inference_mode():
        while len(ids) < len(prompt) + count:
            ids.append(int((model(torch.tensor([ids])).hidden_BTD[0, -1] @ model.head_VD.T).argmax()))
            if ids[-1] in stops:
                break
    return ids[len(prompt) :]


def mixed_requests(count=24, seed=0):
    """Greedy and sampled requests of many lengths, some with the same prompt."""
    chance = random.Random(seed)
    made = prompts(count, seed)
    return [
        Request(
            prompt_ids=chance.choice(made[: max(1, i // 2)]) if i % 3 == 0 else prompt,
            max_new_tokens=chance.randint(1, 12),
            temperature=chance.choice([0.0, 0.7, 1.0]),
            top_p=chance.choice([1.0, 0.8]),
            top_k=chance.choice([0, 5]),
            seed=i,
            stop_ids=(3, 4),
        )
        for i, prompt in enumerate(made)
    ]


def test_greedy_equals_whole_forwards(model):
    made = prompts(9)
    requests = [Request(prompt, 8, temperature=0, stop_ids=(5,)) for prompt in made]
    completions = Engine(model, slots=4, capacity=32).generate(requests)
    for prompt, completion in zip(made, completions, strict=True):
        assert completion.ids == greedy_by_hand(model, prompt, 8, stops=(5,))
        assert completion.finish_reason == ("stop" if completion.ids[-1] == 5 else "length")


def test_a_window_decodes_far_beyond_itself_in_its_own_columns(monkeypatch):
    monkeypatch.setattr(engine_module, "PREFILL_TOKENS", 16)
    model, made = build(WINDOWED), [*prompts(5), *prompts(2, seed=1, longest=60)]
    engine = Engine(model, slots=4, capacity=140)
    assert engine.cache.columns == 6
    requests = [Request(prompt, 80, temperature=0) for prompt in made]
    # the same prompt again, while the first one is decoding and after
    requests += [Request(made[0], 3, temperature=0), Request(made[5], 9, temperature=0)]
    for request, completion in zip(requests, engine.generate(requests), strict=True):
        assert completion.ids == greedy_by_hand(model, request.prompt_ids, request.max_new_tokens)


def test_experts_that_choose_their_tokens_cannot_decode():
    experts = Experts(count=4, top_k=2, hidden=24, choice="expert", balance_loss=0)
    model = build(MIXTURE)
    model.network = MIXTURE.model_copy(update={"experts": experts})
    with pytest.raises(RequestError, match="cannot decode token by token"):
        Engine(model, slots=1, capacity=8)


@pytest.mark.parametrize("slots", [1, 3, 24])
@pytest.mark.parametrize("prefill", [2048, 7])
def test_neighbours_slots_and_chunks_change_nothing(model, slots, prefill, monkeypatch):
    requests = mixed_requests()
    alone = [Engine(model, slots=1, capacity=40).generate([request])[0] for request in requests]
    monkeypatch.setattr(engine_module, "PREFILL_TOKENS", prefill)
    together = Engine(model, slots=slots, capacity=40).generate(requests)
    for one, other in zip(alone, together, strict=True):
        assert one.ids == other.ids
        assert one.finish_reason == other.finish_reason
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_any_order_of_arrival_gives_the_same(model, monkeypatch):
    monkeypatch.setattr(engine_module, "PREFILL_TOKENS", 16)
    requests = mixed_requests()
    expected = Engine(model, slots=24, capacity=40).generate(requests)
    for seed in range(3):
        chance = random.Random(seed)
        engine, todo, got = Engine(model, slots=5, capacity=40), list(enumerate(requests)), {}
        chance.shuffle(todo)
        numbers = {}
        while todo or engine.busy:
            for _ in range(min(len(todo), chance.randint(0, 3))):
                i, request = todo.pop()
                numbers[engine.submit(request)] = i
            for event in engine.step():
                got.setdefault(numbers[event.id], []).append(event.token)
        assert [got[i] for i in range(len(requests))] == [completion.ids for completion in expected]


def test_logprobs_equal_the_training_forward(model):
    requests = mixed_requests()
    completions = Engine(model, slots=7, capacity=40).generate(requests)
    rows = [[*request.prompt_ids, *completion.ids] for request, completion in zip(requests, completions, strict=True)]
    for row, scored, completion in zip(rows, logprobs(model, rows), completions, strict=True):
        assert completion.logprobs == pytest.approx(scored[-len(completion.ids) :].tolist(), abs=1e-4)
        hidden = model(torch.tensor([row])).hidden_BTD[0]
        trained = (hidden @ model.head_VD.T).log_softmax(-1)[:-1].gather(1, torch.tensor(row[1:])[:, None])[:, 0]
        torch.testing.assert_close(scored, trained.detach(), atol=1e-4, rtol=0)


def test_samples_of_one_prompt_read_it_once():
    model = build(MIXTURE)
    prompt, read = list(range(11)), []
    model.register_forward_pre_hook(lambda module, args, kwargs: read.append(tuple(args[0].shape)), with_kwargs=True)
    requests = [Request(prompt, 4 + i % 3, seed=i) for i in range(10)]
    completions = Engine(model, slots=4, capacity=40).generate(requests)
    assert sum(rows for rows, width in read if width == len(prompt)) == 1
    assert len({tuple(completion.ids) for completion in completions}) > 5
    for request, completion in zip(requests, completions, strict=True):
        assert Engine(model, slots=1, capacity=40).generate([request])[0].ids == completion.ids


def test_slots_come_back_after_random_work_and_aborts():
    model, chance = build(DENSE), random.Random(0)
    engine = Engine(model, slots=6, capacity=40)
    open_requests, made, finished = set(), mixed_requests(200, seed=1), 0
    while made or engine.busy:
        for _ in range(min(len(made), chance.randint(0, 5))):
            open_requests.add(engine.submit(made.pop()))
        if open_requests and chance.random() < 0.4:
            victim = chance.choice(sorted(open_requests))
            engine.abort(victim)
            open_requests.discard(victim)
        for event in engine.step():
            assert event.id in open_requests
            if event.finish_reason:
                open_requests.discard(event.id)
                finished += 1
        assert 0 <= engine.free_slots <= 6
    assert not open_requests
    assert finished > 50
    assert engine.free_slots == 6
    engine.abort(0)  # long gone: nothing happens


def test_aborted_neighbours_do_not_disturb(monkeypatch):
    monkeypatch.setattr(engine_module, "PREFILL_TOKENS", 16)
    model, requests = build(MIXTURE), mixed_requests(12)
    expected = [completion.ids for completion in Engine(model, slots=12, capacity=40).generate(requests)]
    engine = Engine(model, slots=5, capacity=40)
    numbers = [engine.submit(request) for request in requests]
    got = {number: [] for number in numbers}
    for step in range(1000):
        if step in (1, 2, 4, 6):
            engine.abort(numbers[step])
        for event in engine.step():
            got[event.id].append(event.token)
        if not engine.busy:
            break
    for i in set(range(12)) - {1, 2, 4, 6}:
        assert got[numbers[i]] == expected[i]


def test_the_last_column_of_the_cache_is_used():
    model = build(DENSE)
    prompt = prompts(1, seed=9)[0]
    completion = Engine(model, slots=2, capacity=len(prompt) + 7).generate([Request(prompt, 7, temperature=0)])[0]
    assert completion.ids == greedy_by_hand(model, prompt, 7)


def test_decoding_computes_in_the_weights_type_whatever_training_left():
    model = build(MIXTURE)
    request = Request(prompts(1)[0], 6, temperature=0)
    expected = Engine(model, slots=1, capacity=40).generate([request])[0]
    model.compute_dtype = torch.bfloat16
    assert Engine(model, slots=1, capacity=40).generate([request])[0] == expected
    assert model.compute_dtype == torch.bfloat16


def test_bf16_weights_decode_near_their_training_forward():
    model = build(MIXTURE).to(torch.bfloat16)
    model.compute_dtype = torch.bfloat16
    requests = [Request(prompt, 8, seed=i) for i, prompt in enumerate(prompts(8))]
    completions = Engine(model, slots=8, capacity=40).generate(requests)
    rows = [[*request.prompt_ids, *completion.ids] for request, completion in zip(requests, completions, strict=True)]
    for scored, completion in zip(logprobs(model, rows), completions, strict=True):
        assert completion.logprobs == pytest.approx(scored[-len(completion.ids) :].tolist(), abs=0.3)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request([], 4), "at least one"),
        (Request([1], 0), "at least one"),
        (Request([1] * 30, 11), "do not fit in 40"),
        (Request([1, V], 4), f"ids 0 to {V - 1}"),
        (Request([-1], 4), "token id -1"),
        (Request([1], 4, temperature=-1), "temperature"),
        (Request([1], 4, temperature=float("nan")), "temperature"),
        (Request([1], 4, top_p=0), "top_p"),
    ],
)
def test_requests_that_cannot_run_are_refused(request_, words):
    engine = Engine(build(DENSE), slots=2, capacity=40)
    with pytest.raises(RequestError, match=words):
        engine.submit(request_)
    with pytest.raises(RequestError, match=words):
        engine.generate([Request([1], 1), request_])
    assert not engine.busy


@pytest.mark.parametrize("network", [DENSE, NORMALISED], ids=["Mistral", "Mixtral"])
def test_greedy_equals_transformers_generate(network):
    model = build(network)
    theirs, made = peer(model), prompts(6, seed=5)
    ours = Engine(model, slots=3, capacity=64).generate([Request(prompt, 16, temperature=0) for prompt in made])
    for prompt, completion in zip(made, ours, strict=True):
        ids = torch.tensor([prompt])
        out = theirs.generate(ids, max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=0)
        assert completion.ids == out[0, len(prompt) :].tolist()
