"""From the network's hidden states to log-probabilities and losses, without ever holding all logits.

Logits are made for a chunk of tokens at a time and made again in the backward pass, so that the memory for
(tokens, vocabulary) stays bounded. Products run in the type of the hidden states; softmax, loss and sums in fp32, or
in fp64 if the hidden states are.

Letters: B rows, T positions, D model width, V vocabulary, N tokens that carry a label, C tokens of a chunk.
"""

from typing import Any

import torch
from torch import Tensor

from glassbox.model.transformer import Output
from glassbox.train.rows import IGNORE, Rows

CHUNK_LOGITS = {"cpu": 1 << 20, "cuda": 1 << 27}
"""Logits held at a time: on a CPU 4 MB in fp32, which stay near its cache; on a GPU 512 MB, enough to fill it."""


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


def labelled(hidden_BTD: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden states that predict a labelled token, with those labels: (N, D), (N,).

    This is the one place that shifts: `labels[:, t]` is the token at position t, predicted from `hidden[:, t - 1]`. A
    label at position 0 has nothing to be predicted from and is left out.
    """
    has_label_BT = labels_BT != IGNORE
    has_label_BT[:, 0] = False
    index_N = has_label_BT.flatten().nonzero().squeeze(1)
    return hidden_BTD.flatten(0, 1).index_select(0, index_N - 1), labels_BT.flatten().index_select(0, index_N)


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
    hidden_ND, labels_N = labelled(output.hidden_BTD, rows["labels"])
    return summed_nll(hidden_ND, head_VD, labels_N), {}


def _chunks(hidden_ND: Tensor, head_VD: Tensor) -> list[slice]:
    size = max(16, CHUNK_LOGITS[hidden_ND.device.type] // len(head_VD))
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
            logits_CV, labels_C1 = _logits(hidden_ND[part], head_VD), labels_N[part, None]
            total_C1 = logits_CV.logsumexp(-1, keepdim=True)
            total += (total_C1 - logits_CV.gather(-1, labels_C1)).sum()
            slope_CV = _slope(logits_CV, total_C1, labels_N[part]).to(hidden_ND.dtype)
            torch.mm(slope_CV, head_VD, out=hidden_grad_ND[part])
            _add_product(head_grad_VD, slope_CV.T, hidden_ND[part])
        ctx.save_for_backward(hidden_grad_ND, head_grad_VD.to(head_VD.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_grad_ND, head_grad_VD = ctx.saved_tensors
        return hidden_grad_ND * grads[0], head_grad_VD * grads[0], None


def _add_product(sum_VD: Tensor, left_VC: Tensor, right_CD: Tensor) -> None:
    """sum += left @ right; in place in one pass where the types agree."""
    if left_VC.dtype == sum_VD.dtype:
        sum_VD.addmm_(left_VC, right_CD)
    else:
        sum_VD += left_VC @ right_CD
