"""Numbers of a dictionary, which need no stream of codes. Processes have the same dictionary, and agree on each number."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import (
    AtomicInnerProduct,
    CoherenceStatistics,
    coherence_statistics,
    mean_matched_cosine,
    restricted_isometry_bounds,
)


def deciding_coherence(
    dictionary: Float[Tensor, "d_sae d_in"], metric: AtomicInnerProduct | None = None
) -> CoherenceStatistics:
    """Computes coherence statistics whose Babel curve μ₁(1), μ₁(2), ... decides levels 2a and 2b of codes of every size.

    The curve never falls, and both levels fail where it has reached 1; so it may end there. It has 64 values, which
    nearly always suffice, and is doubled until it reaches 1 or covers all atoms.

    Args:
        dictionary: (d_sae, d_in) atoms of any norm.
        metric: Inner product of the cosines; Euclidean if None.

    Returns:
        What `coherence_statistics` gives, exact up to its `rounding`.

    Raises:
        ValueError: fewer than two atoms, a zero atom, or entries that are NaN or infinite.

    Cost: d_in·d_sae² FLOPs, once more for each doubling. Memory: d_sae times the length of the curve.
    """
    length = 64
    while True:
        found = coherence_statistics(dictionary, metric, k=length)
        if float(found.babel[-1]) >= 1 or length >= len(dictionary):
            return found
        length = min(2 * length, len(dictionary))


@final
class RestrictedIsometry(Metric):
    """The interval [lower, upper] that contains the restricted isometry constant δ_K of a dictionary.

    δ_K is the smallest δ with (1 − δ)‖a‖² ≤ ‖Σ a_i d_i‖² ≤ (1 + δ)‖a‖² on all supports of K atoms d_i of unit norm. The
    lower bound is that of the worst support tried: random ones, ones grown greedily, and those that `update` gets. The
    upper bound is μ₁(K − 1) (Gershgorin). The two meet where all supports could be tried.

    `compute` returns both as float64 (2,), NaN before an update. Every process tries the same random supports and
    those of its own codes, so the value does not depend on the number of processes.

    Cost: `restricted_isometry_bounds` an update. State: two float64. Takes one dictionary and one K between resets.

    Args:
        metric: Inner product of the norms; Euclidean if None.
        samples: Random supports tried.
        seed: Of the random supports.
    """

    full_state_update = False
    lower: Tensor
    upper: Tensor

    def __init__(self, metric: AtomicInnerProduct | None = None, *, samples: int = 256, seed: int = 0) -> None:
        super().__init__()
        self.metric, self.samples, self.seed = metric, samples, seed
        # ∓inf and not NaN: a process without an update, or `forward`, must not spoil the extremes.
        self.add_state("lower", torch.tensor(-torch.inf, dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("upper", torch.tensor(torch.inf, dtype=torch.float64), dist_reduce_fx="min")

    def update(
        self, dictionary: Float[Tensor, "d_sae d_in"], k: int, supports: Int[Tensor, "tried k"] | None = None
    ) -> None:
        """Bounds δ_K.

        Args:
            dictionary: (d_sae, d_in) atoms of any norm.
            k: K, from 1 to d_sae.
            supports: Further supports to try (tried, K), such as those of the data's own codes; none if None.

        Raises:
            ValueError: K below 1 or above d_sae.
        """
        generator = torch.Generator().manual_seed(self.seed)
        found = restricted_isometry_bounds(
            dictionary, k, self.metric, supports=supports, samples=self.samples, generator=generator
        )
        self.lower, self.upper = self.lower.clamp(min=found.lower), self.upper.clamp(max=found.upper)

    def compute(self) -> Tensor:
        return torch.stack([self.lower, self.upper]).where(self.lower.isfinite(), torch.nan)


@final
class MatchedCosine(Metric):
    """The mean cosine of the atoms of two dictionaries after the best one-to-one matching, averaged over the pairs of
    dictionaries seen.

    `compute` returns a float64 scalar, exact, NaN before the first pair.

    Cost: O(n³) a pair, n the larger number of atoms; memory n². State: one float64 and one int64.

    Args:
        metric: Inner product of the cosines; Euclidean if None.
    """

    full_state_update = False
    higher_is_better = True
    total: Tensor
    count: Tensor

    def __init__(self, metric: AtomicInnerProduct | None = None) -> None:
        super().__init__()
        self.metric = metric
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, dictionary: Float[Tensor, "n_a d_in"], other: Float[Tensor, "n_b d_in"]) -> None:
        """Adds a pair of dictionaries.

        Args:
            dictionary: (n_a, d_in) atoms of any norm.
            other: (n_b, d_in) atoms of any norm.

        Raises:
            ValueError: more than 20,000 atoms, which take hours to match.
        """
        self.total += mean_matched_cosine(dictionary, other, self.metric)
        self.count += 1

    def compute(self) -> Tensor:
        return self.total / self.count
