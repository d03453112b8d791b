"""All five levels of theory.md 5 for each code in one call, and rates over samples, in total and by support size."""

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

LARGEST_SUPPORT = 256  # with more atoms, the K x K systems of levels 3 and 4 take nearly all the time


@final
@dataclass(frozen=True)
class RecoveryLevels:
    """Which levels hold for each sample; all are False for K = 0.

    Levels 1 to 4 are sufficient conditions, so their rates are lower bounds; level 5 is solved. 1 ⇒ 2b ⇒ {2a, 3} and 3
    ⇒ 4 ⇒ 5.

    Attributes:
        sizes: K, shape `(samples,)`, int64.
        coherence: level 1, the code is the unique sparsest one, and ℓ1 minimisation and OMP find it, shape
            `(samples,)`.
        babel_unique: level 2a, the code is the unique sparsest one, shape `(samples,)`.
        babel_recovery: level 2b, the code is the unique sparsest one, and ℓ1 minimisation and OMP find it, shape
            `(samples,)`.
        exact_recovery: level 3, ℓ1 minimisation and OMP find every code on the support, which need not be sparsest,
            shape `(samples,)`.
        dual_certificate: level 4, the code is the unique (non-negative) ℓ1 minimiser, which need not be sparsest, shape
            `(samples,)`.
        solved: level 5, a solver returns the code, shape `(samples,)`; None if it was not asked for.
    """

    sizes: Int[Tensor, " samples"]
    coherence: Bool[Tensor, " samples"]
    babel_unique: Bool[Tensor, " samples"]
    babel_recovery: Bool[Tensor, " samples"]
    exact_recovery: Bool[Tensor, " samples"]
    dual_certificate: Bool[Tensor, " samples"]
    solved: Bool[Tensor, " samples"] | None

    def rates(self) -> dict[str, float]:
        """Computes the share of the samples with K ≥ 1 at each level.

        Returns:
            The share in [0, 1] by the name of the level's attribute; NaN if there are no such samples.
        """
        return {name: rate(holds, self.sizes) for name, holds in self._holds().items()}

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
    """Computes every level of theory.md 5 for every code; they are about the code of the reconstruction x̂, not of x.

    Time: `coherence_statistics`, `exact_recovery_coefficients`, `dual_certificates` and `solved_recovery`, by far the
    slowest for each sample. Memory: the largest of theirs.

    Args:
        codes: codes of shape `(samples, d_sae)`, dense or CSR.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        metric: inner product of cosines and norms; Euclidean if None.
        one_sided: whether levels 4 and 5 are about the non-negative problem, for codes that are non-negative by
            construction.
        solve: whether to compute level 5.
        largest: the largest support that levels 3 and 4 solve; larger ones count as not certified. All are solved if
            None.
        statistics: coherence statistics of this dictionary and metric, with a Babel function as long as the sizes worth
            certifying (2K − 1); computed if None.

    Returns:
        Verdicts of each sample. Levels 1 to 4 never hold by rounding alone.

    Raises:
        ValueError: the codes do not fit the dictionary, have NaN or infinite values, or negative ones if `one_sided`;
            or `coherence_statistics` refuses the dictionary.
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
    """Computes the share of the samples with K ≥ 1 for which a verdict holds.

    Time and memory: O(samples).

    Args:
        holds: verdict of each sample, shape `(samples,)`.
        sizes: K of each sample, shape `(samples,)`.

    Returns:
        The share in [0, 1]; NaN if no sample has K ≥ 1.

    >>> rate(torch.tensor([True, False, False]), torch.tensor([1, 2, 0]))
    0.5
    """
    return float(holds[sizes > 0].double().mean())
