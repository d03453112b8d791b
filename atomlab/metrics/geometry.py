"""Geometry of the dictionary: the same on every process, so processes agree by maximum."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import AtomicInnerProduct, mutual_coherence, restricted_isometry_bounds


@final
class MutualCoherence(Metric):
    """μ of the dictionary last given; exact. Cost: 2·d_in·d_sae² FLOPs an update."""

    full_state_update = False
    higher_is_better = False
    value: Tensor

    def __init__(self, metric: AtomicInnerProduct | None = None) -> None:
        super().__init__()
        self.metric = metric
        self.add_state("value", torch.tensor(torch.nan, dtype=torch.float64), dist_reduce_fx="max")

    def update(self, dictionary: Float[Tensor, "d_sae d_in"]) -> None:
        self.value = torch.tensor(
            mutual_coherence(dictionary, self.metric), dtype=torch.float64, device=self.value.device
        )

    def compute(self) -> Tensor:
        return self.value


@final
class RestrictedIsometry(Metric):
    """Interval [lower, upper] of δ_K of the dictionary last given. Processes try different random supports: the lower bound is the largest of theirs."""

    full_state_update = False
    lower: Tensor
    upper: Tensor

    def __init__(self, metric: AtomicInnerProduct | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.metric, self.seed = metric, seed
        for name, reduce in (("lower", "max"), ("upper", "min")):
            self.add_state(name, torch.tensor(torch.nan, dtype=torch.float64), dist_reduce_fx=reduce)

    def update(self, dictionary: Float[Tensor, "d_sae d_in"], k: int) -> None:
        rank = (
            torch.distributed.get_rank()
            if torch.distributed.is_available() and torch.distributed.is_initialized()
            else 0
        )
        bounds = restricted_isometry_bounds(
            dictionary, k, self.metric, generator=torch.Generator().manual_seed(self.seed + rank)
        )
        self.lower = torch.tensor(bounds.lower, dtype=torch.float64, device=self.lower.device)
        self.upper = torch.tensor(bounds.upper, dtype=torch.float64, device=self.upper.device)

    def compute(self) -> Tensor:
        return torch.stack([self.lower, self.upper])
