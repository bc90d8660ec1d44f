"""From the network's hidden states to log-probabilities and losses, without ever holding all logits.

Logits are made for a chunk of tokens at a time and made again in the backward pass, so that the memory for
(tokens, vocabulary) stays bounded. Products run in the type of the hidden states; softmax, loss and sums in fp32, or
in fp64 if the hidden states are.

Letters: B rows, T positions, D model width, V vocabulary, N tokens that carry a label, C tokens of a chunk.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from glassbox.model.transformer import Output
from glassbox.train.rows import IGNORE, Rows, has_target

CHUNK_LOGITS = {"cpu": 1 << 20, "cuda": 1 << 27}
"""Logits held at a time: on a CPU 4 MB in fp32, which stay near its cache; on a GPU 512 MB, enough to fill it."""

CHUNK_TOKENS = 128
"""Tokens of a chunk at least, however large the vocabulary: the head's gradient is read and written for each chunk."""


def token_nll(hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor) -> Tensor:
    """-log softmax(hidden @ head.T)[label] in nats, (N, D), (V, D), (N,) -> (N,); 0 where the label is -100.

    Differentiable with any weight per token; the backward pass computes the logits a second time.
    """
    kept_K = (labels_N != IGNORE).nonzero().squeeze(1)
    if kept_K.numel() == labels_N.numel():
        return _TokenNll.apply(hidden_ND, head_VD, labels_N)
    nll_K = _TokenNll.apply(hidden_ND.index_select(0, kept_K), head_VD, labels_N.index_select(0, kept_K))
    return nll_K.new_zeros(labels_N.shape).index_copy(0, kept_K, nll_K)


def summed_nll(hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor) -> Tensor:
    """Sum of `token_nll` over all tokens, a scalar; labels of -100 are not allowed here.

    All tokens weigh the same, so the gradients are made in the forward pass: three products of the head's size, where
    the general form needs four.
    """
    if not torch.is_grad_enabled():
        return token_nll(hidden_ND, head_VD, labels_N).sum()
    return _SummedNll.apply(hidden_ND, head_VD, labels_N)


def labelled_ahead(hidden_BTD: Tensor, rows: Rows, distance: int) -> tuple[Tensor, Tensor]:
    """The states that predict a labelled token of their own document `distance` places on, with those labels.

    The one place, beside `rows.targets` and `label_logprobs`, that shifts: a label belongs to the state `distance`
    places before it. Where the states are but some columns of the rows, `rows` holds their targets (`with_targets`).
    """
    if f"target_{distance}" in rows:
        target_N = rows[f"target_{distance}"].flatten()
        index_N = (target_N != IGNORE).nonzero().squeeze(1)
        return hidden_BTD.flatten(0, 1).index_select(0, index_N), target_N.index_select(0, index_N)
    index_N = has_target(rows, distance).flatten().nonzero().squeeze(1)
    labels_N = rows["labels"].flatten().index_select(0, index_N)
    return hidden_BTD.flatten(0, 1).index_select(0, index_N - distance), labels_N


def label_logprobs(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor) -> Tensor:
    """log p(label) in nats at each label's own position, (B, T); 0 where there is no label."""
    shifted_BT = torch.cat([labels_BT[:, 1:], labels_BT.new_full((labels_BT.shape[0], 1), IGNORE)], dim=1)
    nll_BT = token_nll(hidden_BTD.flatten(0, 1), head_VD, shifted_BT.flatten()).view(labels_BT.shape)
    return -torch.cat([torch.zeros_like(nll_BT[:, :1]), nll_BT[:, :-1]], dim=1)


def sequence_logprobs(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor) -> Tensor:
    """Sum of log p over each row's labels in nats, (B,)."""
    return label_logprobs(hidden_BTD, head_VD, labels_BT).sum(-1)


def next_token(output: Output, head_VD: Tensor, rows: Rows) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective of pretraining: summed negative log-likelihood of the labelled tokens in nats."""
    hidden_ND, labels_N = labelled_ahead(output.hidden_BTD, rows, 1)
    return summed_nll(hidden_ND, head_VD, labels_N), {}


def multi_token(drafts: tuple[Tensor, ...], head_VD: Tensor, rows: Rows, targets: Sequence[float]) -> Tensor:
    """The loss of the blocks that predict further ahead: for each of the D blocks its summed negative log-likelihood
    over its own `targets` of the whole step, averaged over blocks; nats a token (DeepSeek-V3, arXiv:2412.19437,
    equations 24 and 25).
    """
    total = head_VD.new_zeros((), dtype=torch.float32)
    for k, (hidden_BTD, count) in enumerate(zip(drafts, targets, strict=True), 1):
        hidden_ND, labels_N = labelled_ahead(hidden_BTD, rows, k + 1)
        total = total + summed_nll(hidden_ND, head_VD, labels_N) / max(1, count)
    return total / len(drafts)


@torch.no_grad()
def most_likely(hidden_ND: Tensor, head_VD: Tensor) -> Tensor:
    """The most likely token for each state, (N,)."""
    parts = [(hidden_ND[part] @ head_VD.T).argmax(-1) for part in _chunks(hidden_ND, head_VD)]
    return torch.cat(parts) if parts else hidden_ND.new_zeros(0, dtype=torch.long)


def _chunks(hidden_ND: Tensor, head_VD: Tensor) -> list[slice]:
    size = max(CHUNK_TOKENS, CHUNK_LOGITS[hidden_ND.device.type] // len(head_VD))
    return [slice(start, start + size) for start in range(0, len(hidden_ND), size)]


def _logits(hidden_CD: Tensor, head_VD: Tensor) -> Tensor:
    return _exact(hidden_CD @ head_VD.T)


def _exact(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _slope(logits_CV: Tensor, total_C1: Tensor, labels_C: Tensor) -> Tensor:
    """Derivative of nll by the logits, softmax - onehot, (C, V); overwrites the logits."""
    slope_CV = logits_CV.sub_(total_C1).exp_()
    return slope_CV.scatter_add_(-1, labels_C[:, None], slope_CV.new_full((len(labels_C), 1), -1.0))


class _TokenNll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor) -> Tensor:
        total_N, picked_N = _exact(hidden_ND.new_empty(2, len(labels_N)))
        for part in _chunks(hidden_ND, head_VD):
            logits_CV = _logits(hidden_ND[part], head_VD)
            total_N[part] = logits_CV.logsumexp(-1)
            picked_N[part] = logits_CV.gather(-1, labels_N[part, None]).squeeze(-1)
        ctx.save_for_backward(hidden_ND, head_VD, labels_N, total_N)
        return total_N - picked_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_ND, head_VD, labels_N, total_N = ctx.saved_tensors
        hidden_grad_ND, head_grad_VD = torch.empty_like(hidden_ND), _exact(torch.zeros_like(head_VD))
        for part in _chunks(hidden_ND, head_VD):
            slope_CV = _slope(_logits(hidden_ND[part], head_VD), total_N[part, None], labels_N[part])
            slope_CV = slope_CV.mul_(grads[0][part, None]).to(hidden_ND.dtype)
            torch.mm(slope_CV, head_VD, out=hidden_grad_ND[part])
            _add_product(head_grad_VD, slope_CV.T, hidden_ND[part])
        return hidden_grad_ND, head_grad_VD.to(head_VD.dtype), None


class _SummedNll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor) -> Tensor:
        hidden_grad_ND, head_grad_VD = torch.empty_like(hidden_ND), _exact(torch.zeros_like(head_VD))
        total = head_grad_VD.new_zeros(())
        for part in _chunks(hidden_ND, head_VD):
            logits_CV, labels_C1 = hidden_ND[part] @ head_VD.T, labels_N[part, None]
            picked_C1, top_C1 = _exact(logits_CV.gather(-1, labels_C1)), _exact(logits_CV.amax(-1, keepdim=True))
            slope_CV = logits_CV.softmax(-1, dtype=total.dtype)
            # logsumexp from the largest logit and its probability, which is at least 1/V: no second pass of exp
            total += (top_C1 - slope_CV.amax(-1, keepdim=True).log() - picked_C1).sum()
            slope_CV = slope_CV.scatter_add_(-1, labels_C1, -torch.ones_like(picked_C1)).to(hidden_ND.dtype)
            torch.mm(slope_CV, head_VD, out=hidden_grad_ND[part])
            _add_product(head_grad_VD, slope_CV.T, hidden_ND[part])
        ctx.head_dtype = head_VD.dtype
        if head_VD.dtype != torch.float16:  # a sum over all tokens can be too large for fp16 until it is divided
            head_grad_VD = head_grad_VD.to(head_VD.dtype)
        ctx.save_for_backward(hidden_grad_ND, head_grad_VD)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_grad_ND, head_grad_VD = ctx.saved_tensors
        return hidden_grad_ND * grads[0], (head_grad_VD * grads[0]).to(ctx.head_dtype), None


def _add_product(sum_VD: Tensor, left_VC: Tensor, right_CD: Tensor) -> None:
    """sum += left @ right; in place in one pass where the types agree."""
    if left_VC.dtype == sum_VD.dtype:
        sum_VD.addmm_(left_VC, right_CD)
    else:
        sum_VD += left_VC @ right_CD
