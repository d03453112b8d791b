"""Restricted isometry for every size at once, and what it decides for codes of each size (theory.md 4)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.theory.coherence import coherence_statistics, unit_rows
from atomlab.theory.inner_product import AtomicInnerProduct
from atomlab.theory.isometry import isometry_constants, with_next_atom
from atomlab.theory.recovery import MARGIN

UNIQUE_THRESHOLD = 1.0  # δ_2K below it: the K-sparse code is the unique sparsest one
STABLE_THRESHOLD = 0.5**0.5  # δ_2K below it: ℓ1 recovery is exact and stable (Cai & Zhang 2014)


@final
@dataclass(frozen=True)
class RestrictedIsometryCurve:
    """lower[K] ≤ δ_K ≤ upper[K] for K = 0, 1, ..., k; float64."""

    lower: Float[Tensor, " sizes"]
    upper: Float[Tensor, " sizes"]

    def verdicts(self, sizes: Int[Tensor, " samples"], threshold: float = STABLE_THRESHOLD) -> "IsometryVerdicts":
        """Whether δ_2K < threshold for each sample's K. Beyond the curve's end δ is between its last lower bound and
        infinity; K = 0 is in none of the three.

        At the threshold 1/√2 certified means that ℓ1 recovers every code of K atoms, exactly and stably; at 1 that it
        is the unique sparsest. Failed says that the condition fails, not that recovery does.
        """
        end = len(self.lower) - 1
        doubled, beyond = (2 * sizes).clamp(max=end).to(self.lower.device), 2 * sizes > end
        lower = self.lower[doubled].to(sizes.device)
        upper = self.upper[doubled].to(sizes.device).masked_fill(beyond, torch.inf)
        alive = sizes > 0
        certified, failed = alive & (upper < threshold - MARGIN), alive & (lower >= threshold)
        return IsometryVerdicts(certified, failed, alive & ~certified & ~failed)


@final
@dataclass(frozen=True)
class IsometryVerdicts:
    """Of each sample (samples,), exactly one if K ≥ 1: the upper bound of δ_2K is below the threshold; a witness has
    δ_2K at or above it; the interval holds the threshold.
    """

    certified: Bool[Tensor, " samples"]
    failed: Bool[Tensor, " samples"]
    undecided: Bool[Tensor, " samples"]


@torch.no_grad()
@no_autocast()
def restricted_isometry_curve(
    dictionary: Float[Tensor, "d_sae d_in"],
    k: int,
    metric: AtomicInnerProduct | None = None,
    *,
    samples: int = 64,
    starts: int = 32,
    generator: torch.Generator | None = None,
) -> RestrictedIsometryCurve:
    """Bounds of δ_0, δ_1, ..., δ_k in one search: supports grow from the most coherent atoms, greedily for either end
    of the spectrum, and at random; every size on the way is a witness, and a lower bound holds for all larger sizes, as
    δ_K does not fall with K. Growth ends where a support has δ ≥ 1. Upper bounds: μ₁(K − 1). Float64.

    Sizes beyond d_sae, which no support has, count as d_sae. Time: 2·d_in·d_sae² and, a size, starts·(d_in·d_sae + K³);
    memory: that of `coherence_statistics` and (starts, d_sae).

    Raises:
        ValueError: k below 0.
    """
    if k < 0:
        raise ValueError(f"A support of size K={k} is impossible: use 0 or more.")
    unit = unit_rows(dictionary.double(), metric)
    n, d = unit.shape
    statistics = coherence_statistics(unit, k=max(1, k - 1))
    lower = torch.zeros(k + 1, dtype=torch.float64)
    lower[min(n, d) + 1 :] = float(n > d)  # more atoms than dimensions are dependent
    seeds = statistics.per_atom.topk(min(starts, n)).indices[:, None]
    drawn = torch.stack([torch.randperm(n, generator=generator)[:k] for _ in range(samples)]).to(seeds)
    for grow in (partial(with_next_atom, unit=unit, top=True), partial(with_next_atom, unit=unit, top=False)):
        _raise_bounds(lower, unit, seeds, grow)
    _raise_bounds(lower, unit, drawn[:, :1], lambda chosen: drawn[:, : chosen.shape[1] + 1])
    lower = lower.cummax(0).values
    upper = statistics.babel_bound(torch.arange(-1, k))
    return RestrictedIsometryCurve(lower, torch.maximum(upper, lower))


def _raise_bounds(lower: Tensor, unit: Tensor, chosen: Tensor, grow: Callable[[Tensor], Tensor]) -> None:
    end = min(len(lower) - 1, len(unit))
    while chosen.shape[1] < end and lower[chosen.shape[1]] < 1:
        chosen = grow(chosen)
        size = chosen.shape[1]
        lower[size] = max(float(lower[size]), float(isometry_constants(unit, chosen).max()))
