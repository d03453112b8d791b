"""Isometry on the data's own codes (theory.md 4)."""

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import LARGEST_SUPPORT, AtomicInnerProduct, empirical_isometry, isometry_ratios

_BINS, _TOP = 400, 4.0  # 0.01 wide


@final
class IsometryDistribution(Metric):
    """Distribution over the samples with K ≥ 1, unit-S-norm atoms, of `ratio`: ‖Σ δ_j d_j‖²_S / Σ δ_j², 1 for
    orthogonal atoms; or of `constant`: δ(Λ) = max(λ_max(G_Λ) − 1, 1 − λ_min(G_Λ)) of the code's own support, whose
    largest is a lower bound of δ_K at the largest K. Supports beyond 256 atoms have no `constant`.

    Mean, sd, least and largest, exact (up to the dictionary's dtype for `ratio`, to float64 for `constant`);
    `histogram` has bins of 0.01 up to 4, the last one open.

    Cost: `isometry_ratios`, 2·d_in FLOPs a nonzero; or `empirical_isometry`, an eigenvalue problem (K, K) a sample.
    State: four float64 and 401 int64.

    Args:
        dictionary: (d_sae, d_in) atoms.
        quantity: what of each code.
        metric: Euclidean if None.
    """

    full_state_update = False
    moments: Tensor
    extremes: Tensor
    histogram: Tensor
    white: Tensor
    norms: Tensor

    def __init__(
        self,
        dictionary: Float[Tensor, "d_sae d_in"],
        quantity: Literal["ratio", "constant"],
        metric: AtomicInnerProduct | None = None,
    ) -> None:
        super().__init__()
        self.quantity = quantity
        white = dictionary.double() if metric is None else metric.whiten(dictionary.double())
        dtype = torch.promote_types(dictionary.dtype, torch.float32) if quantity == "ratio" else white.dtype
        self.register_buffer("white", white.to(dtype), persistent=False)  # once, not an update
        self.register_buffer("norms", white.norm(dim=1), persistent=False)
        self.add_state("moments", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("extremes", torch.full((2,), -torch.inf, dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("histogram", torch.zeros(_BINS + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        values = self._values(codes)
        values = values[values.isfinite()]
        if len(values) == 0:
            return
        shifted = values - 1  # about 1, where the ratio of orthogonal atoms is, so that the variance does not cancel
        self.moments += torch.stack([shifted.sum(), shifted.square().sum()])
        self.extremes = torch.maximum(self.extremes, torch.stack([-values.min(), values.max()]))
        bins = (values * (_BINS / _TOP)).long().clamp(max=_BINS)
        self.histogram += torch.bincount(bins, minlength=len(self.histogram))

    def _values(self, codes: Tensor) -> Tensor:
        if self.quantity == "ratio":
            return isometry_ratios(codes, self.white, norms=self.norms)
        return empirical_isometry(codes, self.white, largest=LARGEST_SUPPORT).constant

    def compute(self) -> dict[str, Tensor]:
        count = self.histogram.sum()
        mean, square = self.moments / count
        least, largest = (self.extremes * self.extremes.new_tensor([-1, 1])).where(count > 0, torch.nan)
        return {
            "mean": mean + 1,
            "sd": (square - mean.square()).clamp(min=0).sqrt(),
            "least": least,
            "largest": largest,
        }
