"""Geometry of the dictionary: the same on every process, so processes agree by maximum."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import AtomicInnerProduct, mutual_coherence, restricted_isometry_bounds


@final
class MutualCoherence(Metric):
    """μ, the largest of the dictionaries given since the last reset (one, as a rule); exact. NaN before the first.
    Cost: 2·d_in·d_sae² FLOPs an update. State: one float64.
    """

    full_state_update = False
    higher_is_better = False
    value: Tensor

    def __init__(self, metric: AtomicInnerProduct | None = None) -> None:
        super().__init__()
        self.metric = metric
        # −inf and not NaN: a process without an update, or `forward`, must not spoil the maximum.
        self.add_state("value", torch.tensor(-torch.inf, dtype=torch.float64), dist_reduce_fx="max")

    def update(self, dictionary: Float[Tensor, "d_sae d_in"]) -> None:
        self.value = self.value.clamp(min=mutual_coherence(dictionary, self.metric))

    def compute(self) -> Tensor:
        return self.value.where(self.value >= 0, torch.nan)


@final
class RestrictedIsometry(Metric):
    """Interval [lower, upper] of δ_K of the one dictionary given since the last reset; NaN before. Processes try
    different random supports: the lower bound is the largest of theirs. State: two float64.
    """

    full_state_update = False
    lower: Tensor
    upper: Tensor

    def __init__(self, metric: AtomicInnerProduct | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.metric, self.seed = metric, seed
        self.add_state("lower", torch.tensor(-torch.inf, dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("upper", torch.tensor(torch.inf, dtype=torch.float64), dist_reduce_fx="min")

    def update(self, dictionary: Float[Tensor, "d_sae d_in"], k: int) -> None:
        rank = (
            torch.distributed.get_rank()
            if torch.distributed.is_available() and torch.distributed.is_initialized()
            else 0
        )
        bounds = restricted_isometry_bounds(
            dictionary, k, self.metric, generator=torch.Generator().manual_seed(self.seed + rank)
        )
        self.lower, self.upper = self.lower.clamp(min=bounds.lower), self.upper.clamp(max=bounds.upper)

    def compute(self) -> Tensor:
        return torch.stack([self.lower, self.upper]).where(self.lower.isfinite(), torch.nan)
