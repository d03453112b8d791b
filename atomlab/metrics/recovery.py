"""Rates of certified codes (theory.md 5) and the stability index."""

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import (
    MARGIN,
    AtomicInnerProduct,
    coherence_certified,
    dual_certificates,
    mutual_coherence,
    stability_pairwise,
    stability_per_atom,
)

_LARGEST_CERTIFIED_SUPPORT = 256  # beyond it the K x K systems of level 4 dominate everything


@final
class CertifiedRate(Metric):
    """Share of samples with K ≥ 1 whose code is certified at level 1 (coherence: unique sparsest and ℓ1-recovered) or 4 (dual certificate: the
    unique non-negative ℓ1 minimiser). Sufficient conditions: the rates are lower bounds. Samples with K = 0 are counted apart in `empty`.

    Args:
        dictionary: (d_sae, d_in) atoms.
        level: 1 or 4.
        metric: of the inner products; Euclidean if None.

    Level 4 does not solve supports beyond 256 atoms and counts them as not certified; its cost: see `dual_certificates`. State: three int64 counts.
    """

    full_state_update = False
    higher_is_better = True
    certified: Tensor
    count: Tensor
    empty: Tensor

    def __init__(
        self, dictionary: Float[Tensor, "d_sae d_in"], level: Literal[1, 4], metric: AtomicInnerProduct | None = None
    ) -> None:
        super().__init__()
        self.level, self.metric, self.dictionary = level, metric, dictionary
        self.coherence = mutual_coherence(dictionary, metric) if level == 1 else None
        for name in ("certified", "count", "empty"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Float[Tensor, "batch d_sae"]) -> None:
        sizes = (codes != 0).sum(1)
        if self.coherence is not None:
            self.certified += coherence_certified(sizes, self.coherence).sum()
        else:
            margins = dual_certificates(codes, self.dictionary, self.metric, largest=_LARGEST_CERTIFIED_SUPPORT)
            self.certified += (margins < 1 - MARGIN).sum()
        self.count += (sizes > 0).sum()
        self.empty += (sizes == 0).sum()

    def compute(self) -> Tensor:
        return self.certified.double() / self.count


@final
class Stability(Metric):
    """q* of the dictionary and the L0 of the codes seen (an index, not a certificate). State: d_sae + 1 int64 counts.

    Args:
        dictionary: (d_sae, d_in) atoms.
        reading: quantile of the coherence over pairs (`pairwise`) or over atoms (`per_atom`).
        metric: of the cosines.
    """

    full_state_update = False
    counts: Tensor

    def __init__(
        self,
        dictionary: Float[Tensor, "d_sae d_in"],
        reading: Literal["pairwise", "per_atom"],
        metric: AtomicInnerProduct | None = None,
    ) -> None:
        super().__init__()
        self.dictionary, self.reading, self.metric = dictionary, reading, metric
        self.add_state("counts", torch.zeros(len(dictionary) + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Float[Tensor, "batch d_sae"]) -> None:
        self.counts += torch.bincount((codes != 0).sum(1), minlength=len(self.counts))

    def compute(self) -> Tensor:
        stability = stability_pairwise if self.reading == "pairwise" else stability_per_atom
        return torch.tensor(stability(self.dictionary, self.counts, self.metric), dtype=torch.float64)
