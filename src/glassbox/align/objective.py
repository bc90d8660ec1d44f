"""Objectives of alignment: supervised fine-tuning and direct preference optimisation.

Letters: B sequences, P pairs, T positions, D model width, V vocabulary.
"""

from torch import Tensor
from torch.nn.functional import logsigmoid

from glassbox.model.transformer import Output
from glassbox.train.losses import next_token, sequence_logprobs
from glassbox.train.rows import Rows
from glassbox.train.step import Objective


def sft(output: Output, head_VD: Tensor, rows: Rows) -> tuple[Tensor, dict[str, Tensor]]:
    """Summed negative log-likelihood of the assistant's tokens in nats; only those carry a label.

    It is pretraining's objective: what differs is the labels.
    """
    return next_token(output, head_VD, rows)


def dpo_loss(chosen_ratio_P: Tensor, rejected_ratio_P: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta * (chosen - rejected)) for each pair, (P,) (arXiv:2305.18290, equation 7).

    A ratio is log p(completion | model) - log p(completion | reference), summed over the completion's tokens.
    """
    return -logsigmoid(beta * (chosen_ratio_P - rejected_ratio_P))


def dpo(beta: float) -> Objective:
    """DPO over pairs; a row is a pair and the loss counts rows (`denominator=row_count`).

    Rows: `ids` and `labels` (P, 2, T), chosen first, prompt and padding without labels; `reference` (P, 2), summed log
    p of each completion under the starting model in nats. Metrics are means over pairs: `reward_chosen` and
    `reward_rejected` (beta * ratio), their `margin`, `accuracy` (margin above 0), and `logprob_chosen` in nats.
    """

    def objective(output: Output, head_VD: Tensor, rows: Rows) -> tuple[Tensor, dict[str, Tensor]]:
        labels_BT = rows["labels"].flatten(0, 1)
        logprob_P2 = sequence_logprobs(output.hidden_BTD, head_VD, labels_BT).view(-1, 2)
        chosen_P, rejected_P = (logprob_P2 - rows["reference"]).unbind(1)
        margin_P = beta * (chosen_P - rejected_P).detach()
        metrics = {
            "reward_chosen": beta * chosen_P.sum(),
            "reward_rejected": beta * rejected_P.sum(),
            "margin": margin_P.sum(),
            "accuracy": (margin_P > 0).float().sum(),
            "logprob_chosen": logprob_P2[:, 0].sum(),
        }
        return dpo_loss(chosen_P, rejected_P, beta).sum(), metrics

    return objective
