"""The optimizers and their groups."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from glassbox.model.transformer import mup_width
from glassbox.recipe.optimizer import Optimizer
from glassbox.train.parallel.place import Placed


def build_optimizer(placed: Placed, settings: Optimizer) -> torch.optim.Optimizer:
    """Fused AdamW (arXiv:1711.05101) or RMSProp over groups of tensors that decay alike, learn alike and lie alike: one
    kernel takes a whole group, and cannot mix tensors of two meshes, or shared-out ones with whole ones.

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
    of = [{"params": parameters, "sort": sort, "width": width} for (sort, width, _), parameters in groups.items()]
    found = torch.optim.AdamW(of, lr=settings.lr, fused=True) if settings.name == "adamw" else RMSProp(of, settings.lr)
    set_rates(found, settings.lr, settings)
    return found


def set_rates(optimizer: torch.optim.Optimizer, lr: float, settings: Optimizer) -> None:
    """Set what the next update is made with: the learning rate, and all else that the settings say."""
    decays = {"matrices": True, "embeddings": settings.decay_embeddings, "vectors": settings.decay_vectors}
    for group in optimizer.param_groups:
        group["lr"] = lr / group["width"]
        group["eps"] = settings.eps
        decay = settings.weight_decay if decays[group["sort"]] else 0.0
        if isinstance(optimizer, RMSProp):
            group["alpha"], group["decay"] = settings.betas[1], decay
        else:
            group["betas"], group["weight_decay"] = settings.betas, decay


class RMSProp(torch.optim.RMSprop):
    """RMSProp with AdamW's decoupled weight decay, a group's `decay`; PyTorch's `weight_decay` adds to the gradient.

        square <- alpha * square + (1 - alpha) * gradient^2
        weight <- weight * (1 - lr * decay) - lr * gradient / (sqrt(square) + eps)

    (Tieleman and Hinton, 2012; the form of torch.optim.RMSprop, which OLMoE's KTO uses: arXiv:2409.02060, section 4.3.)
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float):
        super().__init__(groups, lr=lr, foreach=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Decay, then the update; a tensor without a gradient is left as it is."""
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if moved and group["decay"]:
                torch._foreach_mul_(moved, 1 - group["lr"] * group["decay"])
        return super().step(closure)
