"""Isometry on the data's own codes (theory.md 4)."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import LARGEST_SUPPORT, AtomicInnerProduct, empirical_isometry, isometry_ratios

_BINS, _TOP = 400, 4.0  # of the ratio: 0.01 wide


@final
class IsometryRatio(Metric):
    """Distribution of ‖Σ δ_j d_j‖²_S / Σ δ_j² over samples with K ≥ 1, unit-S-norm atoms; 1 for orthogonal
    atoms. Mean, sd, least and largest, exact up to the dictionary's dtype; `histogram` has bins of 0.01 up to 4,
    the last one open.

    Cost: 2·K·d_in FLOPs a sample. State: four float64 and 401 int64.

    Args:
        dictionary: (d_sae, d_in) atoms.
        metric: Euclidean if None.
    """

    full_state_update = False
    total: Tensor
    squares: Tensor
    least: Tensor
    largest: Tensor
    histogram: Tensor
    white: Tensor

    def __init__(self, dictionary: Float[Tensor, "d_sae d_in"], metric: AtomicInnerProduct | None = None) -> None:
        super().__init__()
        white = dictionary if metric is None else metric.whiten(dictionary)
        self.register_buffer("white", white, persistent=False)  # once, not an update
        for name in ("total", "squares"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("least", torch.tensor(torch.inf, dtype=torch.float64), dist_reduce_fx="min")
        self.add_state("largest", torch.tensor(-torch.inf, dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("histogram", torch.zeros(_BINS + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        ratios = isometry_ratios(codes, self.white)
        ratios = ratios[~ratios.isnan()]
        if len(ratios) == 0:
            return
        # About 1, where orthogonal atoms are, so that the variance does not cancel.
        self.total += (ratios - 1).sum()
        self.squares += (ratios - 1).square().sum()
        self.least, self.largest = torch.minimum(self.least, ratios.min()), torch.maximum(self.largest, ratios.max())
        bins = (ratios * (_BINS / _TOP)).long().clamp(max=_BINS)
        self.histogram += torch.bincount(bins, minlength=len(self.histogram))

    def compute(self) -> dict[str, Tensor]:
        count = self.histogram.sum()
        mean = self.total / count
        sd = (self.squares / count - mean.square()).clamp(min=0).sqrt()
        extremes = (x.where(count > 0, torch.nan) for x in (self.least, self.largest))
        return dict(zip(("mean", "sd", "least", "largest"), (mean + 1, sd, *extremes), strict=True))


@final
class SupportIsometry(Metric):
    """δ(Λ) over the data's own supports: mean and largest; the largest is a lower bound of δ_K at the largest K.
    Samples with K = 0, and supports beyond 256 atoms, are left out and counted in neither.

    Cost: an eigenvalue problem (K, K) a sample. State: two float64 and an int64.

    Args:
        dictionary: (d_sae, d_in) atoms.
        metric: Euclidean if None.
    """

    full_state_update = False
    total: Tensor
    largest: Tensor
    count: Tensor
    white: Tensor

    def __init__(self, dictionary: Float[Tensor, "d_sae d_in"], metric: AtomicInnerProduct | None = None) -> None:
        super().__init__()
        white = dictionary.double() if metric is None else metric.whiten(dictionary.double())
        self.register_buffer("white", white, persistent=False)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("largest", torch.tensor(-torch.inf, dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        constants = empirical_isometry(codes, self.white, largest=LARGEST_SUPPORT).constant
        constants = constants[constants.isfinite()]
        if len(constants):
            self.total += constants.sum()
            self.largest = torch.maximum(self.largest, constants.max())
            self.count += len(constants)

    def compute(self) -> dict[str, Tensor]:
        return {"mean": self.total / self.count, "largest": self.largest.where(self.count > 0, torch.nan)}
