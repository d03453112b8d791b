"""Angles between activations, and how far their mean is from 90°: the representation shift (theory.md 2)."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import AngleDistribution, Geometry, angle_distribution


@final
class RepresentationShift(Metric):
    """The distribution of angles between vectors, in degrees, and |mean − 90°|, the representation shift.

    `compute` returns float64 scalars in degrees, exact, NaN before the first pair: `mean` and `sd` of the angles, and
    `shift`. The standard deviation is that of these pairs.

    Cost: 2·d FLOPs a pair, float64. State: two float64 and 180 int64.

    Args:
        geometry: Origin and inner product of the angles; zero and Euclidean if None.

    Attributes:
        histogram: Number of pairs in each degree of [0°, 180°] (180,), int64, of this process.
    """

    full_state_update = False
    total: Tensor
    squares: Tensor
    histogram: Tensor

    def __init__(self, geometry: Geometry | None = None) -> None:
        super().__init__()
        self.geometry = geometry
        for name in ("total", "squares"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("histogram", torch.zeros(180, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, x: Float[Tensor, "batch d"], partners: Float[Tensor, "partners d"] | None = None) -> None:
        """Adds the pairs of a batch.

        Args:
            x: Vectors (batch, d).
            partners: Vectors (partners, d) that are each paired with every row of x. If None, the pairs are those of
                distinct rows of x; pairs across batches are not seen.

        Raises:
            ValueError: no pair, NaN or infinite entries, or a vector at the origin, which has no direction.
        """
        found = angle_distribution(x, self.geometry, partners)
        self.total += found.total
        self.squares += found.squares
        self.histogram += found.histogram.to(self.histogram.device)

    def compute(self) -> dict[str, Tensor]:
        count = int(self.histogram.sum())
        if count == 0:
            return dict.fromkeys(("mean", "sd", "shift"), self.total.new_tensor(torch.nan))
        found = AngleDistribution(count, float(self.total), float(self.squares), self.histogram)
        return {name: self.total.new_tensor(getattr(found, name)) for name in ("mean", "sd", "shift")}
