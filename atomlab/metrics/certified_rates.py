"""Shares of codes that are certified: unique, sparsest, or found by ℓ1 minimisation (theory.md 4 and 5).

Codes with K = 0 count in no rate. The counts hold them apart, at size 0. `by_size` gives a rate at each K, over all
processes.
"""

from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.metrics.dictionary_geometry import deciding_coherence
from atomlab.theory import (
    LARGEST_SUPPORT,
    MARGIN,
    STABLE_THRESHOLD,
    AtomicInnerProduct,
    CoherenceStatistics,
    RestrictedIsometryCurve,
    babel_recovery_certified,
    babel_unique_certified,
    coherence_certified,
    dual_certificates,
    exact_recovery_coefficients,
    solved_recovery,
    support_sizes,
)


@final
class UniformlyCertifiedRate(Metric):
    """The share of codes with K ≥ 1 that the coherence of the whole dictionary certifies, at level 1, 2a or 2b.

    Level 1, μ(2K − 1) < 1, and level 2b, μ₁(K − 1) + μ₁(K) < 1, make the code the unique sparsest one, which ℓ1
    minimisation and OMP find. Level 2a, μ₁(2K − 1) < 1, makes it the unique sparsest one. Here μ is the mutual
    coherence and μ₁ the Babel function (Donoho & Elad 2003; Tropp 2004).

    `compute` returns a float64 scalar, NaN if no code has an atom. The conditions are sufficient, so it is a lower bound
    of the share of codes that are unique.

    Cost: one `deciding_coherence` at the start unless given, then support sizes. State: d_sae + 1 int64 counts.

    Args:
        dictionary: (d_sae, d_in) atoms of any norm.
        level: `coherence` (1), `babel_unique` (2a) or `babel_recovery` (2b).
        metric: Inner product of the cosines; Euclidean if None.
        statistics: Coherence of this dictionary in this metric, if it is known. Beyond the end of its Babel curve the
            curve is bounded from above.
    """

    full_state_update = False
    higher_is_better = True
    computes_many: ClassVar[bool] = True  # states with a leading dimension give one number each (`GroupBootstrap`)
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
        statistics = statistics or deciding_coherence(dictionary, metric)
        certified = {
            "coherence": coherence_certified(sizes, statistics.coherence_bound),
            "babel_unique": babel_unique_certified(sizes, statistics),
            "babel_recovery": babel_recovery_certified(sizes, statistics),
        }[level]
        self.register_buffer("certified_sizes", certified.to(dictionary.device), persistent=False)
        self.add_state("counts", torch.zeros(len(sizes), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        """Adds codes (batch, d_sae), dense or CSR.

        Raises:
            ValueError: NaN or infinite codes.
        """
        self.counts += torch.bincount(support_sizes(codes), minlength=len(self.counts))

    def compute(self) -> Tensor:
        return self.counts[..., self.certified_sizes].sum(-1).double() / self.counts[..., 1:].sum(-1)

    def by_size(self) -> Float[Tensor, " sizes"]:
        """Returns the rate at each size 0, 1, ..., d_sae, float64: 1 or 0, since K alone decides; NaN where no code has
        that K.
        """
        with self.sync_context():
            return self.certified_sizes.double().where(self.counts > 0, torch.nan)


@final
class CertifiedRate(Metric):
    """The share of codes with K ≥ 1 that are certified one by one, at level 3, 4 or 5.

    Level 3: ℓ1 minimisation and OMP recover every code on this support (exact recovery condition, Tropp 2004). Level 4:
    this code is the unique ℓ1 minimiser (dual certificate, Fuchs 2004). Level 5: a solver returns this code. It is
    solved only for codes that level 4, which implies it, does not certify.

    `compute` returns a float64 scalar, NaN if no code has an atom. Levels 3 and 4 are sufficient, so their shares are
    lower bounds. Supports beyond 256 atoms count as not certified at these two.

    Cost: `exact_recovery_coefficients` (3), `dual_certificates` (4), or `dual_certificates` and a linear programme for
    each code that level 4 does not certify (5). State: 2·(d_sae + 1) int64 counts, beside a float64 copy of the
    dictionary.

    Args:
        dictionary: (d_sae, d_in) atoms of any norm.
        level: `exact_recovery` (3), `dual_certificate` (4) or `solved` (5).
        metric: Inner product; Euclidean if None.
        one_sided: Whether codes are non-negative and compete with non-negative codes only (levels 4 and 5). If False
            they compete with codes of any sign, which is the harder test.
    """

    full_state_update = False
    higher_is_better = True
    computes_many: ClassVar[bool] = True  # states with a leading dimension give one number each (`GroupBootstrap`)
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
        """Adds codes (batch, d_sae), dense or CSR.

        Raises:
            ValueError: NaN or infinite codes, or negative ones with `one_sided`.
        """
        sizes = support_sizes(codes)
        self.certified += torch.bincount(sizes[self._holds(codes)], minlength=len(self.counts))
        self.counts += torch.bincount(sizes, minlength=len(self.counts))

    def _holds(self, codes: Tensor) -> Tensor:
        if self.level == "exact_recovery":
            return exact_recovery_coefficients(codes, self.white, largest=LARGEST_SUPPORT) < 1 - MARGIN
        holds = dual_certificates(codes, self.white, one_sided=self.one_sided, largest=LARGEST_SUPPORT) < 1 - MARGIN
        if self.level == "solved":
            unknown = (~holds).nonzero().squeeze(1)
            holds[unknown] = solved_recovery(_rows(codes, unknown), self.white, nonnegative=self.one_sided)
        return holds

    def compute(self) -> Tensor:
        return self.certified.sum(-1).double() / self.counts[..., 1:].sum(-1)

    def by_size(self) -> Float[Tensor, " sizes"]:
        """Returns the rate at each size 0, 1, ..., d_sae, float64; NaN where no code has that K."""
        with self.sync_context():
            return self.certified.double() / self.counts


def _rows(codes: Tensor, rows: Tensor) -> Tensor:
    return (codes.to_dense() if codes.layout == torch.sparse_csr else codes)[rows]


@final
class IsometryRates(Metric):
    """The shares of codes with K ≥ 1 for which δ_2K < threshold is certified, has failed, and is undecided.

    δ_2K is the restricted isometry constant at twice the size of the code. Certified: an upper bound of it lies below
    the threshold. Failed: some support has a constant at or above it, so the condition fails, though recovery may not.

    `compute` returns float64 scalars that add up to 1, NaN if no code has an atom: `certified` and `failed`, lower
    bounds of the shares for which the condition holds and does not, and `undecided`.

    Cost: support sizes. State: d_sae + 1 int64 counts.

    Args:
        curve: Bounds of the restricted isometry constants of the dictionary. Codes with 2K beyond its end are never
            certified.
        d_sae: Number of atoms.
        threshold: 1/√2 for exact and stable ℓ1 recovery, 1 for the unique sparsest code.
    """

    full_state_update = False
    counts: Tensor
    verdicts: Tensor

    def __init__(self, curve: RestrictedIsometryCurve, d_sae: int, threshold: float = STABLE_THRESHOLD) -> None:
        super().__init__()
        verdicts = curve.verdicts(torch.arange(d_sae + 1), threshold)
        stacked = torch.stack([verdicts.certified, verdicts.failed, verdicts.undecided])
        self.register_buffer("verdicts", stacked, persistent=False)
        self.add_state("counts", torch.zeros(d_sae + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        """Adds codes (batch, d_sae), dense or CSR.

        Raises:
            ValueError: NaN or infinite codes.
        """
        self.counts += torch.bincount(support_sizes(codes), minlength=len(self.counts))

    def compute(self) -> dict[str, Tensor]:
        shares = (self.verdicts * self.counts).sum(1).double() / self.counts[1:].sum()
        return dict(zip(("certified", "failed", "undecided"), shares, strict=True))
