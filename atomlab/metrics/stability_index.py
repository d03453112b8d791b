"""The stability index q* of a dictionary and a stream of codes (theory.md 5)."""

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import (
    AtomicInnerProduct,
    CoherenceStatistics,
    coherence_statistics,
    stability_pairwise,
    stability_per_atom,
    support_sizes,
)


@final
class Stability(Metric):
    """The stability q* of a dictionary at the support sizes of the codes seen: an index, not a certificate.

    q* = sup {q : μ_q < 1 / (2K_q − 1)}, with μ_q the q-quantile of the coherence and K_q that of the support size.

    `compute` returns a float64 scalar in [0, 1], NaN before the first code. It is exact over atoms; over pairs the
    quantiles of the coherence are rounded up by at most 1e-5.

    Cost: one `coherence_statistics` at the start unless given, then `support_sizes`. State: d_sae + 1 int64 counts.

    Args:
        dictionary: (d_sae, d_in) atoms of any norm.
        reading: Coherence over pairs of atoms (`pairwise`), or the largest one of each atom (`per_atom`).
        metric: Inner product of the cosines; Euclidean if None.
        statistics: Coherence of this dictionary in this metric, if it is known.
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
        """Adds codes (batch, d_sae), dense or CSR.

        Raises:
            ValueError: NaN or infinite codes.
        """
        self.counts += torch.bincount(support_sizes(codes), minlength=len(self.counts))

    def compute(self) -> Tensor:
        stability = stability_pairwise if self.reading == "pairwise" else stability_per_atom
        value = stability(self.dictionary, self.counts, statistics=self.statistics)
        return torch.tensor(value, dtype=torch.float64, device=self.counts.device)
