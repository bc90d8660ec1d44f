"""How likely each of some continuations of one prompt is, the prompt read once.

Letters: T tokens of a chunk, D model width, V vocabulary.
"""

from collections.abc import Sequence

import torch

from glassbox.generate.engine import PREFILL_TOKENS
from glassbox.generate.score import check_ids, target_logprobs
from glassbox.model.cache import Cache
from glassbox.model.transformer import Transformer


@torch.inference_mode()
def continuation_logprobs(model: Transformer, prompt: Sequence[int], options: Sequence[Sequence[int]]) -> list[float]:
    """The log-probability in nats of each of the options (token ids, at least one) right after the prompt.

    Raises `RequestError` for ids outside the vocabulary.
    """
    check_ids([prompt, *options], model.vocab_size)
    weight, longest = model.embedding.weight, max(map(len, options))
    cache = Cache(model.network, 1, len(prompt) + longest, weight.device, weight.dtype, spare=longest)

    def read(ids: Sequence[int], start: int) -> torch.Tensor:
        """States (T, D) of tokens that stand from `start` on; what was there before is forgotten."""
        ids_1T = torch.tensor([ids], device=weight.device)
        places_1T = torch.arange(start, start + len(ids), device=weight.device)[None]
        return model(ids_1T, places_1T if start else None, cache=cache).hidden_BTD[0]

    with model.computing_in(weight.dtype):
        known = len(prompt) - 1
        for start in range(0, known, PREFILL_TOKENS):
            read(prompt[start : min(start + PREFILL_TOKENS, known)], start)
        found = []
        for option in options:
            hidden_TD = read([prompt[-1], *option[:-1]], known)
            target_T = torch.tensor(option, device=weight.device)
            found.append(float(target_logprobs(hidden_TD, model.head_VD, target_T).double().sum()))
    return found
