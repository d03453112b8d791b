"""How many latents fire, and which never do."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric


@final
class L0Histogram(Metric):
    """Number of samples of each support size 0, 1, ..., d_sae; exact. `compute` gives the histogram, `mean` its mean.

    State: d_sae + 1 int64 counts.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, d_sae: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(d_sae + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Float[Tensor, "batch d_sae"]) -> None:
        self.counts += torch.bincount((codes != 0).sum(1), minlength=len(self.counts))

    def compute(self) -> Int[Tensor, " sizes"]:
        return self.counts

    def quantile(self, q: float) -> int:
        """The smallest support size that at least a share q of the samples do not exceed."""
        shares = self.compute().cumsum(0).double() / self.compute().sum()
        return int(torch.searchsorted(shares, torch.tensor(q, dtype=torch.float64).to(shares)))


@final
class MeanL0(Metric):
    """Mean support size of the codes; exact. State: two int64 counts."""

    full_state_update = False
    active: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("active", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Float[Tensor, "batch d_sae"]) -> None:
        self.active += (codes != 0).sum()
        self.count += len(codes)

    def compute(self) -> Tensor:
        return self.active.double() / self.count


@final
class DeadLatents(Metric):
    """Share of latents that fired on none of the samples seen; `firing` holds the counts. State: d_sae + 1 int64 counts.

    It depends on the number of samples, which has to stand beside it.
    """

    full_state_update = False
    higher_is_better = False
    firing: Tensor

    def __init__(self, d_sae: int) -> None:
        super().__init__()
        self.add_state("firing", torch.zeros(d_sae, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Float[Tensor, "batch d_sae"]) -> None:
        self.firing += (codes != 0).sum(0)

    def compute(self) -> Tensor:
        return (self.firing == 0).double().mean()
