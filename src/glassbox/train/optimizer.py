"""The optimizer and its decay groups."""

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from glassbox.model.transformer import mup_width
from glassbox.recipe.optimizer import Optimizer
from glassbox.train.parallel.place import Placed


def build_optimizer(placed: Placed, settings: Optimizer) -> torch.optim.Optimizer:
    """Fused AdamW (arXiv:1711.05101) over groups of tensors that decay alike and learn alike.

    Matrices decay. Gains and biases do only with `decay_vectors`, the embedding and output head with
    `decay_embeddings`. A group's `width` is what the learning rate is divided by: 1, or under muP how many times wider
    than the base its tensors' input is (arXiv:2203.03466, table 8). A tensor without a gradient is left as it is, decay
    included. Fused is not torch's default on CPU, where it takes a third of the loop's time.
    """
    groups: dict[tuple[str, float, DeviceMesh | None], list[nn.Parameter]] = {}
    for name, parameter in placed.parameters():
        embedding = name in ("embedding.weight", "head.weight")
        sort = "vectors" if parameter.ndim < 2 else "embeddings" if embedding else "matrices"
        mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
        groups.setdefault((sort, mup_width(name, placed.model.network), mesh), []).append(parameter)
    found = torch.optim.AdamW(
        [{"params": parameters, "sort": sort, "width": width} for (sort, width, _), parameters in groups.items()],
        lr=settings.lr,
        fused=True,
    )
    set_rates(found, settings.lr, settings)
    return found


def set_rates(optimizer: torch.optim.Optimizer, lr: float, settings: Optimizer) -> None:
    """Set what the next update is made with: the learning rate, and all else that the settings say."""
    decays = {"matrices": True, "embeddings": settings.decay_embeddings, "vectors": settings.decay_vectors}
    for group in optimizer.param_groups:
        group["lr"] = lr / group["width"]
        group["weight_decay"] = settings.weight_decay if decays[group["sort"]] else 0.0
        group["eps"] = settings.eps
        group["betas"] = settings.betas
