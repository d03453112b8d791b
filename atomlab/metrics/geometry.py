"""Geometry of the dictionary: the same on every process, so processes agree by maximum. Each takes one dictionary
between resets, and is NaN before it.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import (
    AtomicInnerProduct,
    CoherenceStatistics,
    coherence_statistics,
    mean_matched_cosine,
    mutual_coherence,
    restricted_isometry_bounds,
)


@final
class MutualCoherence(Metric):
    """μ; exact. Cost: 2·d_in·d_sae² FLOPs an update. State: one float64."""

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
        return self.value.where(self.value.isfinite(), torch.nan)


@final
class CoherenceProfile(Metric):
    """Quantiles of |cos(d_i, d_j)| over pairs (rounded up by at most 1e-5), quantiles of the per-atom coherence
    μ_i (exact) and the Babel function μ₁(1), ..., μ₁(k) (exact). Cost: one `coherence_statistics` an update. State:
    k + 2·(number of quantiles) float64.

    Args:
        quantiles: shares of pairs, and of atoms.
        k: length of the Babel curve.
        metric: of the cosines; Euclidean if None.
    """

    full_state_update = False
    babel: Tensor
    pairs: Tensor
    atoms: Tensor

    def __init__(
        self,
        quantiles: tuple[float, ...] = (0.5, 0.9, 0.99, 0.999, 1.0),
        k: int = 64,
        metric: AtomicInnerProduct | None = None,
    ) -> None:
        super().__init__()
        self.quantiles, self.k, self.metric = quantiles, k, metric
        for name, length in (("babel", k), ("pairs", len(quantiles)), ("atoms", len(quantiles))):
            self.add_state(name, torch.full((length,), -torch.inf, dtype=torch.float64), dist_reduce_fx="max")

    def update(self, dictionary: Float[Tensor, "d_sae d_in"]) -> None:
        found = coherence_statistics(dictionary, self.metric, k=self.k)
        shares = torch.tensor(self.quantiles, dtype=torch.float64)
        pairs = found.pair_quantiles(shares).clamp(max=found.coherence)
        atoms = found.per_atom.double().cpu().quantile(shares, interpolation="higher")
        for name, value in (("babel", found.babel), ("pairs", pairs), ("atoms", atoms)):
            state = getattr(self, name)
            setattr(self, name, torch.maximum(state, value.to(state)))

    def compute(self) -> dict[str, Tensor]:
        states = {"babel": self.babel, "pairs": self.pairs, "atoms": self.atoms}
        return {name: state.where(state.isfinite(), torch.nan) for name, state in states.items()}


@final
class RestrictedIsometry(Metric):
    """Interval [lower, upper] of δ_K. Processes try different random supports: the lower bound is the largest of
    theirs. Cost: `restricted_isometry_bounds` an update. State: two float64.

    Args:
        metric: Euclidean if None.
        samples: random supports tried by each process.
        seed: of the first process; the others add their rank.
        statistics: of the dictionary and metric, if already computed.
    """

    full_state_update = False
    lower: Tensor
    upper: Tensor

    def __init__(
        self,
        metric: AtomicInnerProduct | None = None,
        *,
        samples: int = 512,
        seed: int = 0,
        statistics: CoherenceStatistics | None = None,
    ) -> None:
        super().__init__()
        self.metric, self.samples, self.seed, self.statistics = metric, samples, seed, statistics
        self.add_state("lower", torch.tensor(-torch.inf, dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("upper", torch.tensor(torch.inf, dtype=torch.float64), dist_reduce_fx="min")

    def update(self, dictionary: Float[Tensor, "d_sae d_in"], k: int) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() if distributed else 0
        generator = torch.Generator().manual_seed(self.seed + rank)
        found = restricted_isometry_bounds(
            dictionary, k, self.metric, statistics=self.statistics, samples=self.samples, generator=generator
        )
        self.lower, self.upper = self.lower.clamp(min=found.lower), self.upper.clamp(max=found.upper)

    def compute(self) -> Tensor:
        return torch.stack([self.lower, self.upper]).where(self.lower.isfinite(), torch.nan)


@final
class MatchedCosine(Metric):
    """Mean cosine of the atoms of two dictionaries after the best one-to-one matching; exact. Cost: O(n³) an update.
    State: one float64.
    """

    full_state_update = False
    higher_is_better = True
    value: Tensor

    def __init__(self, metric: AtomicInnerProduct | None = None) -> None:
        super().__init__()
        self.metric = metric
        self.add_state("value", torch.tensor(-torch.inf, dtype=torch.float64), dist_reduce_fx="max")

    def update(self, dictionary: Float[Tensor, "n_a d_in"], other: Float[Tensor, "n_b d_in"]) -> None:
        self.value = self.value.clamp(min=mean_matched_cosine(dictionary, other, self.metric))

    def compute(self) -> Tensor:
        return self.value.where(self.value.isfinite(), torch.nan)
