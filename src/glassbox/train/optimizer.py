"""AdamW with its decay groups."""

import torch
from torch import nn

from glassbox.model.transformer import Transformer, mup_width
from glassbox.recipe.training import Optimizer


def build_adamw(model: Transformer, settings: Optimizer) -> torch.optim.AdamW:
    """Fused AdamW (arXiv:1711.05101) over groups of tensors that decay alike and learn alike.

    Matrices decay. Gains and biases do not, and the embedding and output head only with `decay_embeddings`. A group's
    `width` is what the learning rate is divided by: 1, or under muP how many times wider than the base its tensors'
    input is (arXiv:2203.03466, table 8). A tensor without a gradient is left as it is, decay included. Fused is not
    torch's default on CPU, where it takes a third of the loop's time.
    """
    embeddings = {id(model.embedding.weight), id(model.head.weight) if model.head is not None else None}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decays = parameter.ndim >= 2 and (settings.decay_embeddings or id(parameter) not in embeddings)
        key = (settings.weight_decay if decays else 0.0, mup_width(name, model.network))
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [{"params": found, "weight_decay": decay, "width": width} for (decay, width), found in groups.items()],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        fused=True,
    )
