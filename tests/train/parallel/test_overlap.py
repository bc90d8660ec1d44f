"""A pass cut into pieces gives the gradients of the whole, and passes take turns at their pauses."""

from functools import partial

import pytest
import torch

from glassbox.train.parallel.overlap import Tape, _dense, alternate
from tests.train.conftest import build, counting_rows


def test_passes_take_turns_until_each_is_done():
    log: list[str] = []

    def steps(name: str, pauses: int):
        for number in range(pauses):
            log.append(f"{name}{number}")
            yield
        log.append(f"{name} ends")
        return name.upper()

    assert alternate(steps("a", 3), steps("b", 1)) == ["A", "B"]
    assert log == ["a0", "b0", "a1", "b ends", "a2", "a ends"]


@pytest.mark.parametrize("split", [False, True])
def test_pieces_give_the_gradients_of_the_whole(split):
    model, rows = build(experts=False), counting_rows(1)
    ids, documents = torch.tensor(rows["ids"]), torch.tensor(rows["documents"])
    shared = model.shared(ids, None, documents)
    given = torch.randn(*ids.shape, 32, requires_grad=True)
    state = given
    for block in model.blocks:
        state, _ = block(state, shared, None)
    state.square().sum().backward()
    wanted = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)

    tape, state = Tape(None), given.detach()
    for block in model.blocks:
        (state,), _ = tape.run(partial(_dense, block, shared), state)
    weights = list(model.parameters())
    ((grad, later),) = alternate(tape.back(2 * state.detach(), weights, split))
    assert bool(later) == split
    assert split == all(weight.grad is None for weight in weights)
    del tape, state
    for left in later:
        left()
    torch.testing.assert_close(grad, given.grad)
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name])
