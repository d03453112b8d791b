"""How many latents fire on a vector, and on how many vectors a latent fires. Codes are dense or CSR.

`SupportSizes`, `UniformlyCertifiedRate`, `IsometryRates` and `Stability` keep the same state, the number of vectors of
each support size. As one compute group of a MetricCollection they cost one update.
"""

from typing import ClassVar, Literal, final

import torch
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import firing_counts, support_sizes


@final
class SupportSizes(Metric):
    """The distribution of support sizes K, the number of latents that fire on a vector.

    `compute` returns one statistic of it as a scalar, NaN before the first vector. All are exact. The mean and the share
    of empty codes are float64; a quantile q is int64: the smallest size that at least a share q of the vectors do not
    exceed.

    Cost: `support_sizes`. State: d_sae + 1 int64 counts.

    Args:
        d_sae: Number of latents.
        statistic: `mean`; `median`, the 50% quantile; `q998`, the 99.8% quantile; or `empty`, the share of vectors on
            which no latent fires.

    Attributes:
        counts: Number of vectors of each size 0, 1, ..., d_sae (d_sae + 1,), int64, of this process.
    """

    full_state_update = False
    computes_many: ClassVar[bool] = True  # states with a leading dimension give one number each (`GroupBootstrap`)
    counts: Tensor

    def __init__(self, d_sae: int, statistic: Literal["mean", "median", "q998", "empty"]) -> None:
        super().__init__()
        self.statistic = statistic
        self.add_state("counts", torch.zeros(d_sae + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        """Adds codes (batch, d_sae), dense or CSR.

        Raises:
            ValueError: NaN or infinite codes.
        """
        self.counts += torch.bincount(support_sizes(codes), minlength=len(self.counts))

    def compute(self) -> Tensor:
        counts, total = self.counts, self.counts.sum(-1)
        if self.statistic == "mean":
            return (counts * torch.arange(counts.shape[-1], device=counts.device)).sum(-1).double() / total
        if self.statistic == "empty":
            return counts[..., 0].double() / total
        wanted = total.double() * {"median": 0.5, "q998": 0.998}[self.statistic]
        found = torch.searchsorted(counts.cumsum(-1).double(), wanted[..., None]).squeeze(-1)
        return found if bool((total > 0).all()) else found.double().where(total > 0, torch.nan)


@final
class FiringShare(Metric):
    """The share of latents that fire on exactly so many of the vectors seen: on none if they are dead.

    `compute` returns a float64 scalar in [0, 1]. It is exact for the vectors seen. The share of dead latents falls with
    their number, which has to stand beside it.

    Cost: `firing_counts`. State: d_sae int64 counts.

    Args:
        d_sae: Number of latents.
        times: Number of vectors that such a latent fires on.
    """

    full_state_update = False
    higher_is_better = False
    firing: Tensor

    def __init__(self, d_sae: int, times: int) -> None:
        super().__init__()
        self.times = times
        self.add_state("firing", torch.zeros(d_sae, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        """Adds codes (batch, d_sae), dense or CSR.

        Raises:
            ValueError: NaN or infinite codes.
        """
        self.firing += firing_counts(codes)

    def compute(self) -> Tensor:
        return (self.firing == self.times).double().mean()
