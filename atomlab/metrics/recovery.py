"""Rates of certified codes (theory.md 4 and 5) and the stability index. Samples with K = 0 count in no rate; `counts`
holds them apart, at size 0. `by_size` gives the rate at each K, over all processes.
"""

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import (
    LARGEST_SUPPORT,
    MARGIN,
    STABLE_THRESHOLD,
    AtomicInnerProduct,
    CoherenceStatistics,
    babel_recovery_certified,
    babel_unique_certified,
    coherence_certified,
    coherence_statistics,
    dual_certificates,
    exact_recovery_coefficients,
    restricted_isometry_curve,
    solved_recovery,
    stability_pairwise,
    stability_per_atom,
    support_sizes,
)


@final
class UniformlyCertifiedRate(Metric):
    """Share of samples with K ≥ 1 certified by the coherence of the whole dictionary: level 1 or 2b (unique sparsest,
    ℓ1- and OMP-recovered) or 2a (unique sparsest). Exact; sufficient conditions, so a lower bound of what is unique.

    Cost: one `coherence_statistics` at the start, then support sizes only. State: d_sae + 1 int64 counts.

    Args:
        dictionary: (d_sae, d_in) atoms.
        level: `coherence` (1), `babel_unique` (2a) or `babel_recovery` (2b).
        metric: of the inner products; Euclidean if None.
        statistics: of this dictionary and metric, if already computed.
    """

    full_state_update = False
    higher_is_better = True
    counts: Tensor
    certified_sizes: Tensor

    def __init__(
        self,
        dictionary: Float[Tensor, "d_sae d_in"],
        level: Literal["coherence", "babel_unique", "babel_recovery"],
        metric: AtomicInnerProduct | None = None,
        *,
        statistics: CoherenceStatistics | None = None,
    ) -> None:
        super().__init__()
        sizes = torch.arange(len(dictionary) + 1)
        statistics = statistics or coherence_statistics(dictionary, metric)
        certified = {
            "coherence": coherence_certified(sizes, statistics.coherence_bound),
            "babel_unique": babel_unique_certified(sizes, statistics),
            "babel_recovery": babel_recovery_certified(sizes, statistics),
        }[level]
        self.register_buffer("certified_sizes", certified.to(dictionary.device), persistent=False)
        self.add_state("counts", torch.zeros(len(sizes), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        self.counts += torch.bincount(support_sizes(codes), minlength=len(self.counts))

    def compute(self) -> Tensor:
        return self.counts[self.certified_sizes].sum().double() / self.counts[1:].sum()

    def by_size(self) -> Float[Tensor, " sizes"]:
        """1 or 0 at each size: what is certified depends on K alone. NaN where no sample has that K."""
        with self.sync_context():
            return self.certified_sizes.double().where(self.counts > 0, torch.nan)


@final
class CertifiedRate(Metric):
    """Share of samples with K ≥ 1 whose own code is certified or solved: level 3 (every code on its support is
    ℓ1/OMP-recovered), 4 (this code is the unique non-negative ℓ1 minimiser) or 5 (a solver returns it). Levels 3 and 4
    are sufficient conditions, so lower bounds; supports beyond 256 atoms are not solved there and count as not
    certified.

    Cost: `exact_recovery_coefficients`, `dual_certificates`, `solved_recovery`. State: 2·(d_sae + 1) int64 counts.

    Args:
        dictionary: (d_sae, d_in) atoms.
        level: `exact_recovery` (3), `dual_certificate` (4) or `solved` (5).
        metric: of the inner products; Euclidean if None.
        one_sided: codes are non-negative and compete with non-negative codes only (levels 4 and 5).
    """

    full_state_update = False
    higher_is_better = True
    certified: Tensor
    counts: Tensor
    white: Tensor

    def __init__(
        self,
        dictionary: Float[Tensor, "d_sae d_in"],
        level: Literal["exact_recovery", "dual_certificate", "solved"],
        metric: AtomicInnerProduct | None = None,
        *,
        one_sided: bool = True,
    ) -> None:
        super().__init__()
        self.level, self.one_sided = level, one_sided
        white = dictionary.double() if metric is None else metric.whiten(dictionary.double())
        self.register_buffer("white", white, persistent=False)  # once, not an update
        for name in ("certified", "counts"):
            self.add_state(name, torch.zeros(len(dictionary) + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        sizes = support_sizes(codes)
        self.certified += torch.bincount(sizes[self._holds(codes)], minlength=len(self.counts))
        self.counts += torch.bincount(sizes, minlength=len(self.counts))

    def _holds(self, codes: Tensor) -> Tensor:
        if self.level == "solved":
            return solved_recovery(codes, self.white, nonnegative=self.one_sided)
        if self.level == "exact_recovery":
            return exact_recovery_coefficients(codes, self.white, largest=LARGEST_SUPPORT) < 1 - MARGIN
        return dual_certificates(codes, self.white, one_sided=self.one_sided, largest=LARGEST_SUPPORT) < 1 - MARGIN

    def compute(self) -> Tensor:
        return self.certified.sum().double() / self.counts[1:].sum()

    def by_size(self) -> Float[Tensor, " sizes"]:
        """The rate at each size; NaN where no sample has that K."""
        with self.sync_context():
            return self.certified.double() / self.counts


@final
class IsometryRates(Metric):
    """Shares of samples with K ≥ 1 for which δ_2K < threshold is certified (an upper bound of δ_2K lies below), failed
    (a witness lies at or above) and undecided. Failed says that the condition fails, not that recovery does.

    Cost: one `restricted_isometry_curve` at the start, then support sizes only. State: d_sae + 1 int64 counts.

    Args:
        dictionary: (d_sae, d_in) atoms.
        metric: of the inner products; Euclidean if None.
        threshold: 1/√2 for exact and stable ℓ1 recovery, 1 for the unique sparsest code.
        largest: the curve ends at 2·largest; samples beyond count as failed if its last lower bound fails them.
        seed: of the random supports tried. All processes must use the same.
    """

    full_state_update = False
    counts: Tensor
    verdicts: Tensor

    def __init__(
        self,
        dictionary: Float[Tensor, "d_sae d_in"],
        metric: AtomicInnerProduct | None = None,
        *,
        threshold: float = STABLE_THRESHOLD,
        largest: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        curve = restricted_isometry_curve(dictionary, 2 * largest, metric, generator=generator)
        verdicts = curve.verdicts(torch.arange(len(dictionary) + 1, device=dictionary.device), threshold)
        stacked = torch.stack([verdicts.certified, verdicts.failed, verdicts.undecided])
        self.register_buffer("verdicts", stacked, persistent=False)
        self.add_state("counts", torch.zeros(len(dictionary) + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        self.counts += torch.bincount(support_sizes(codes), minlength=len(self.counts))

    def compute(self) -> dict[str, Tensor]:
        shares = (self.verdicts * self.counts).sum(1).double() / self.counts[1:].sum()
        return dict(zip(("certified", "failed", "undecided"), shares, strict=True))


@final
class Stability(Metric):
    """q* of the dictionary and the L0 of the codes seen (an index, not a certificate). State: d_sae + 1 int64 counts.

    Args:
        dictionary: (d_sae, d_in) atoms.
        reading: quantile of the coherence over pairs (`pairwise`) or over atoms (`per_atom`).
        metric: of the cosines; Euclidean if None.
        statistics: of this dictionary and metric, if already computed.
    """

    full_state_update = False
    counts: Tensor

    def __init__(
        self,
        dictionary: Float[Tensor, "d_sae d_in"],
        reading: Literal["pairwise", "per_atom"],
        metric: AtomicInnerProduct | None = None,
        *,
        statistics: CoherenceStatistics | None = None,
    ) -> None:
        super().__init__()
        self.dictionary, self.reading = dictionary, reading
        self.statistics = statistics or coherence_statistics(dictionary, metric, k=1)
        self.add_state("counts", torch.zeros(len(dictionary) + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        self.counts += torch.bincount(support_sizes(codes), minlength=len(self.counts))

    def compute(self) -> Tensor:
        stability = stability_pairwise if self.reading == "pairwise" else stability_per_atom
        value = stability(self.dictionary, self.counts, statistics=self.statistics)
        return torch.tensor(value, dtype=torch.float64, device=self.counts.device)
