"""The arithmetic of matrix products: what a recipe asks for, what the device can do, and fp16's loss scale."""

import logging
from functools import cache

import torch

from glassbox.model.transformer import Transformer
from glassbox.recipe.loop import Loop
from glassbox.train.float8 import compute_in_float8, refusal

log = logging.getLogger("glassbox")

GROWTH_STEPS = 2000
"""Steps without an overflow after which fp16's loss scale doubles."""


def set_precision(model: Transformer, loop: Loop, device: str) -> None:
    """Make a whole model's products run as `loop.precision` says, in place. It comes before the model is placed; models
    whose log-probabilities are compared need the same. Doing it again changes nothing."""
    model.compute_dtype = compute_dtype(loop, device)
    if loop.precision == "float8" and refusal(device) is None:
        compute_in_float8(model, loop.parallel.tensor)


def compute_dtype(loop: Loop, device: str) -> torch.dtype:
    """The type of matrix products, or of what goes around them in float8.

    fp16 and float8 need a GPU, float8 one of Hopper's kind: elsewhere they are bf16. On a CPU without bf16 instructions
    bf16 products are slower than fp32 ones: there it is fp32. The log says so.
    """
    if loop.precision == "fp32":
        return torch.float32
    why = None
    if loop.precision == "float8":
        why = refusal(device)
    elif loop.precision == "fp16" and device == "cpu":
        why = "not native on a CPU"
    dtype = torch.float16 if loop.precision == "fp16" and why is None else torch.bfloat16
    if device == "cpu" and not _cpu_has_bf16():
        dtype, why = torch.float32, why or "this CPU has no bf16 instructions"
    if why is not None:
        log.warning("precision %s: %s, computing in %s", loop.precision, why, "fp32" if dtype.itemsize == 4 else "bf16")
    return dtype


@cache
def _cpu_has_bf16() -> bool:
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return not capabilities or any("bf16" in name and bool(has) for name, has in capabilities.items())


def next_scale(scale: float, steps_at_scale: int, finite: bool) -> tuple[float, int]:
    """The loss scale after a step, and how many steps in a row it has held: halved by an overflow, doubled after
    `GROWTH_STEPS` steps without one (arXiv:1710.03740, section 3.2; the numbers of torch.amp.GradScaler)."""
    if not finite:
        return scale / 2, 0
    if steps_at_scale + 1 == GROWTH_STEPS:
        return scale * 2, 0
    return scale, steps_at_scale + 1
