"""How much a run has done, and how fast."""

import torch

from glassbox.recipe.size import train_flops
from glassbox.train.checkpoint import Progress
from glassbox.train.parallel.place import Placed
from glassbox.train.rows import Rows
from glassbox.train.step import StepResult
from glassbox.train.throughput import peak_flops


class Meter:
    """Counts a run's work into its `Progress` and reads rates since the last reading."""

    def __init__(self, placed: Placed, progress: Progress):
        self.progress, self.model = progress, placed.model
        self.peak = peak_flops(torch.device(placed.ranks.device), self.model.compute_dtype) * placed.ranks.world
        self._mark = (progress.tokens, progress.seconds, progress.flops)

    def count(self, rows: Rows, result: StepResult, seconds: float, ahead: bool) -> None:
        self.progress.tokens += result.tokens
        self.progress.labels += result.labels
        self.progress.seconds += seconds
        context = rows["ids"].shape[-1]
        flops = train_flops(self.model.network, self.model.vocab_size, context, ahead=ahead)
        self.progress.flops += flops * result.positions

    def rate(self) -> float:
        """Tokens per second since the last reading."""
        tokens, seconds, _ = self._mark
        return (self.progress.tokens - tokens) / max(self.progress.seconds - seconds, 1e-9)

    def read(self, result: StepResult) -> dict[str, float]:
        """The metrics of speed and balance, and a new start for the rates."""
        _, seconds, flops = self._mark
        flops_per_second = (self.progress.flops - flops) / max(self.progress.seconds - seconds, 1e-9)
        values = {
            "tokens": self.progress.tokens,
            "tokens_per_second": round(self.rate(), 1),
            "flops_per_second": flops_per_second,
            "mfu": round(flops_per_second / self.peak, 4),
        }
        if result.load_LE is not None:
            share_LE = result.load_LE / result.load_LE.sum(-1, keepdim=True)
            self.progress.expert_load = share_LE.tolist()
            values["expert_load_max_over_mean"] = float(share_LE.max(-1).values.mean() * share_LE.shape[-1])
        self._mark = (self.progress.tokens, self.progress.seconds, self.progress.flops)
        return values
