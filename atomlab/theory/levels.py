"""All five levels of theory.md 5 for each code, in one call, and rates over samples, whole and by support size."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atomlab.theory.basis_pursuit import solved_recovery
from atomlab.theory.certificates import (
    MARGIN,
    babel_recovery_certified,
    babel_unique_certified,
    coherence_certified,
    dual_certificates,
    exact_recovery_coefficients,
)
from atomlab.theory.coherence import CoherenceStatistics, coherence_statistics
from atomlab.theory.inner_product import AtomicInnerProduct
from atomlab.theory.supports import check_codes, supports

LARGEST_SUPPORT = 256  # beyond it the K x K systems of levels 3 and 4 dominate everything


@final
@dataclass(frozen=True)
class RecoveryLevels:
    """Which levels hold for each sample (samples,); all False for K = 0. Levels 1 to 4 are sufficient conditions, so
    their rates are lower bounds; level 5 is solved. 1 ⇒ 2b ⇒ {2a, 3} and 3 ⇒ 4 ⇒ 5.

    Attributes:
        sizes: K.
        coherence: level 1, unique sparsest and ℓ1/OMP exact.
        babel_unique: level 2a, unique sparsest.
        babel_recovery: level 2b, unique sparsest and ℓ1/OMP exact.
        exact_recovery: level 3, ℓ1/OMP exact for every code on the support; not sparsest.
        dual_certificate: level 4, this code is the unique (non-negative) ℓ1 minimiser; not sparsest.
        solved: level 5, a solver returns this code; None if not asked for.
    """

    sizes: Int[Tensor, " samples"]
    coherence: Bool[Tensor, " samples"]
    babel_unique: Bool[Tensor, " samples"]
    babel_recovery: Bool[Tensor, " samples"]
    exact_recovery: Bool[Tensor, " samples"]
    dual_certificate: Bool[Tensor, " samples"]
    solved: Bool[Tensor, " samples"] | None

    def rates(self) -> dict[str, float]:
        """Share of the samples with K ≥ 1 at each level, by the attribute's name; NaN if there are none."""
        return {name: rate(holds, self.sizes) for name, holds in self._holds().items()}

    def rates_by_size(self) -> dict[str, Float[Tensor, " sizes"]]:
        """Share at each level of the samples of each K = 0, 1, ...; NaN where none has that K."""
        return {name: rate_by_size(holds, self.sizes) for name, holds in self._holds().items()}

    def _holds(self) -> dict[str, Tensor]:
        return {name: holds for name, holds in vars(self).items() if name != "sizes" and holds is not None}


@torch.no_grad()
def recovery_levels(
    codes: Tensor,
    dictionary: Float[Tensor, "d_sae d_in"],
    metric: AtomicInnerProduct | None = None,
    *,
    one_sided: bool = True,
    solve: bool = True,
    largest: int | None = LARGEST_SUPPORT,
    statistics: CoherenceStatistics | None = None,
) -> RecoveryLevels:
    """Every level for every code. What is certified is the code of the reconstruction x̂, not of x.

    Time: `coherence_statistics`, `exact_recovery_coefficients`, `dual_certificates` and, by far the dearest a sample,
    `solved_recovery`. Memory: the largest of theirs.

    Args:
        codes: (samples, d_sae), dense or CSR.
        dictionary: atoms as rows, any norm.
        metric: Euclidean if None.
        one_sided: codes are non-negative by construction, and levels 4 and 5 are about the non-negative problem.
        solve: level 5 too.
        largest: supports beyond this size count as not certified at levels 3 and 4; None solves all.
        statistics: of this dictionary and metric, with a Babel curve as long as is worth certifying (2K − 1).

    Raises:
        ValueError: negative codes with one_sided, or what `coherence_statistics` and `supports` refuse.
    """
    check_codes(codes, dictionary)
    sizes = supports(codes).sizes
    longest = max(1, 2 * int(sizes.max()) - 1) if len(sizes) else 1
    statistics = statistics or coherence_statistics(dictionary, metric, k=min(longest, len(dictionary)))
    return RecoveryLevels(
        sizes,
        coherence_certified(sizes, statistics.coherence_bound),
        babel_unique_certified(sizes, statistics),
        babel_recovery_certified(sizes, statistics),
        exact_recovery_coefficients(codes, dictionary, metric, largest=largest) < 1 - MARGIN,
        dual_certificates(codes, dictionary, metric, one_sided=one_sided, largest=largest) < 1 - MARGIN,
        solved_recovery(codes, dictionary, metric, nonnegative=one_sided) if solve else None,
    )


def rate(holds: Bool[Tensor, " samples"], sizes: Int[Tensor, " samples"]) -> float:
    """Share of the samples with K ≥ 1 for which it holds; NaN if there are none. Time and memory O(samples).

    >>> rate(torch.tensor([True, False, False]), torch.tensor([1, 2, 0]))
    0.5
    """
    return float(holds[sizes > 0].double().mean())


def rate_by_size(holds: Bool[Tensor, " samples"], sizes: Int[Tensor, " samples"]) -> Float[Tensor, " sizes"]:
    """The same for each K = 0, 1, ..., largest; float64, NaN where no sample has that K. Time and memory O(samples)."""
    count = torch.bincount(sizes)
    return torch.bincount(sizes, weights=holds.double(), minlength=len(count)) / count
