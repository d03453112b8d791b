"""What a one-step threshold encoder identifies (theory.md 6). Samples with K = 0 count in no rate."""

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
    """Share of samples with K ≥ 1 that have a threshold which is guaranteed to recover their support (a priori; a
    sufficient condition, so a lower bound). Cost: coherence once, then the nonzeros. State: two int64 counts.

    Args:
        dictionary: (d_sae, d_in) atoms.
        metric: Euclidean if None.
        coherence: μ of this dictionary and metric, if known; rounded up.
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
        self.feasible += threshold_windows(codes, self.white, coherence=self.coherence).feasible.sum()
        self.count += (support_sizes(codes) > 0).sum()

    def compute(self) -> Tensor:
        return self.feasible.double() / self.count


@final
class SupportRecoveryRate(Metric):
    """Share of samples with K ≥ 1 whose support the one-step encoder recovers (a posteriori): with one threshold vector
    shared by all samples (`shared`), and with a threshold of the sample's own (`oracle`). Cost: 2·d_in·(d_in + d_sae)
    FLOPs a vector. State: three int64 counts.

    Args:
        dictionary: (d_sae, d_in) atoms.
        thresholds: (d_sae,) of `shared_thresholds`, from training data.
        metric: Euclidean if None.
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
        found = support_recovery(x, codes, self.dictionary, self.thresholds, self.metric)
        self.shared += found.shared.sum()
        self.oracle += found.oracle.sum()
        self.count += (support_sizes(codes) > 0).sum()

    def compute(self) -> dict[str, Tensor]:
        return {"shared": self.shared.double() / self.count, "oracle": self.oracle.double() / self.count}
