"""What a one-step threshold encoder can identify (theory.md 6). Vectors with K = 0 count in no rate."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import (
    AtomicInnerProduct,
    coherence_statistics,
    support_recovery,
    support_sizes,
    threshold_windows,
)


@final
class WindowRate(Metric):
    """The share of codes with K ≥ 1 whose support some threshold is guaranteed to recover, before any encoder is tried.

    Such a threshold exists if δ_min > μ (2K − 1) δ_max, with μ the mutual coherence and δ_min and δ_max the smallest
    and largest value of the code on atoms of unit norm. This is sufficient, so the share is a lower bound.

    `compute` returns a float64 scalar, NaN if no code has an atom.

    Cost: the coherence at the start unless given, then a pass over the nonzeros. State: two int64 counts, beside a
    float64 copy of the dictionary.

    Args:
        dictionary: (d_sae, d_in) atoms of any norm.
        metric: Inner product; Euclidean if None.
        coherence: μ of this dictionary in this metric, rounded up, if it is known.
    """

    full_state_update = False
    higher_is_better = True
    feasible: Tensor
    count: Tensor
    white: Tensor

    def __init__(
        self,
        dictionary: Float[Tensor, "d_sae d_in"],
        metric: AtomicInnerProduct | None = None,
        *,
        coherence: float | None = None,
    ) -> None:
        super().__init__()
        white = dictionary.double() if metric is None else metric.whiten(dictionary.double())
        self.register_buffer("white", white, persistent=False)
        if coherence is None:
            coherence = coherence_statistics(dictionary, metric, k=1).coherence_bound
        self.coherence = coherence
        for name in ("feasible", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        """Adds codes (batch, d_sae), dense or CSR.

        Raises:
            ValueError: negative, NaN or infinite codes.
        """
        self.feasible += threshold_windows(codes, self.white, coherence=self.coherence).feasible.sum()
        self.count += (support_sizes(codes) > 0).sum()

    def compute(self) -> Tensor:
        return self.feasible.double() / self.count


@final
class SupportRecoveryRate(Metric):
    """The shares of codes with K ≥ 1 whose support the one-step encoder {j : ⟨x, d_j⟩ / ‖d_j‖ > τ_j} recovers.

    `compute` returns float64 scalars, NaN if no code has an atom: `shared`, with one threshold vector τ for all
    vectors; and `oracle`, with the best single threshold for each vector separately, which no one threshold of all atoms
    and vectors exceeds. Both are exact for the vectors seen.

    Cost: 2·d_in·(d_in + d_sae) FLOPs a vector. State: three int64 counts, beside the dictionary.

    Args:
        dictionary: (d_sae, d_in) atoms of any norm.
        thresholds: (d_sae,) τ, of `shared_thresholds` on training vectors.
        metric: Inner product; Euclidean if None.
    """

    full_state_update = False
    higher_is_better = True
    shared: Tensor
    oracle: Tensor
    count: Tensor
    dictionary: Tensor
    thresholds: Tensor

    def __init__(
        self,
        dictionary: Float[Tensor, "d_sae d_in"],
        thresholds: Float[Tensor, " d_sae"],
        metric: AtomicInnerProduct | None = None,
    ) -> None:
        super().__init__()
        self.metric = metric
        self.register_buffer("dictionary", dictionary, persistent=False)
        self.register_buffer("thresholds", thresholds, persistent=False)
        for name in ("shared", "oracle", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, x: Float[Tensor, "batch d_in"], codes: Tensor) -> None:
        """Adds a batch.

        Args:
            x: Activations less b_dec (batch, d_in).
            codes: Their codes (batch, d_sae), dense or CSR.

        Raises:
            ValueError: NaN or infinite values, or shapes that do not fit the dictionary.
        """
        found = support_recovery(x, codes, self.dictionary, self.thresholds, self.metric)
        self.shared += found.shared.sum()
        self.oracle += found.oracle.sum()
        self.count += (support_sizes(codes) > 0).sum()

    def compute(self) -> dict[str, Tensor]:
        return {"shared": self.shared.double() / self.count, "oracle": self.oracle.double() / self.count}
