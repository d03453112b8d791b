"""Faithfulness of reconstructions (theory.md 8)."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import AtomicInnerProduct


@final
class ExplainedVariance(Metric):
    """R² = 1 − Σ‖x − x̂‖² / Σ‖x − x̄‖², pooled over samples and dimensions, x̄ the mean of the stream; exact, sums in float64.

    State: d_in + 3 float64 numbers. NaN before two distinct vectors were seen.

    Args:
        d_in: width.
        metric: S-norms instead of Euclidean ones.
    """

    full_state_update = False
    higher_is_better = True
    total: Tensor
    squares: Tensor
    error: Tensor
    count: Tensor

    def __init__(self, d_in: int, metric: AtomicInnerProduct | None = None) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(d_in, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("squares", "error"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.register_buffer("whitening", None if metric is None else metric.whitening, persistent=False)

    def update(self, x: Float[Tensor, "batch d_in"], x_hat: Float[Tensor, "batch d_in"]) -> None:
        x, error = x.double(), x.double() - x_hat.double()
        if isinstance(self.whitening, Tensor):
            x, error = x @ self.whitening, error @ self.whitening
        self.total += x.sum(0)
        self.squares += x.square().sum()
        self.error += error.square().sum()
        self.count += len(x)

    def compute(self) -> Tensor:
        variance = self.squares - self.total.square().sum() / self.count
        return torch.where(variance > 0, 1 - self.error / variance, torch.nan)
