"""How many latents fire, and which never do. Codes are dense or CSR.

`L0Histogram`, `UniformlyCertifiedRate`, `IsometryRates` and `Stability` keep one and the same state, the counts of
support sizes: named as a compute group of a MetricCollection they cost one update.
"""

from typing import final

import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import firing_counts, support_sizes


@final
class L0Histogram(Metric):
    """Number of samples of each support size 0, 1, ..., d_sae; exact. Cost: `support_sizes`. State: d_sae + 1 int64
    counts.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, d_sae: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(d_sae + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        self.counts += torch.bincount(support_sizes(codes), minlength=len(self.counts))

    def compute(self) -> Int[Tensor, " sizes"]:
        return self.counts

    def mean(self) -> float:
        """Mean support size; NaN before the first sample."""
        counts = self.compute()
        return float((counts * torch.arange(len(counts), device=counts.device)).sum().double() / counts.sum())

    def quantile(self, q: float) -> int:
        """The smallest support size that at least a share q of the samples do not exceed."""
        counts = self.compute()
        return int(torch.searchsorted(counts.cumsum(0), counts.sum() * q))


@final
class MeanL0(Metric):
    """Mean support size of the codes; exact. NaN before the first. Cost: `support_sizes`. State: two int64 counts."""

    full_state_update = False
    active: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("active", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        self.active += support_sizes(codes).sum()
        self.count += codes.shape[0]

    def compute(self) -> Tensor:
        return self.active.double() / self.count


@final
class DeadLatents(Metric):
    """Share of latents that fired on none of the samples seen; `firing` holds the counts. State: d_sae int64 counts.

    It falls with the number of samples, which has to stand beside it. Cost: `firing_counts`.
    """

    full_state_update = False
    higher_is_better = False
    firing: Tensor

    def __init__(self, d_sae: int) -> None:
        super().__init__()
        self.add_state("firing", torch.zeros(d_sae, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        self.firing += firing_counts(codes)

    def compute(self) -> Tensor:
        return (self.firing == 0).double().mean()
