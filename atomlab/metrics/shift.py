"""Representation shift (theory.md 2) of a stream."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import AngleDistribution, Geometry, angle_distribution


@final
class RepresentationShift(Metric):
    """Angles in degrees of every vector of the stream with every one of a fixed set of partners, which are not in the
    stream: mean, sd, and shift = |mean − 90°|; exact. `histogram` has bins of one degree.

    Cost: 2·d·partners FLOPs a vector, float64. State: two float64 and 180 int64.

    Args:
        partners: (partners, d) vectors of the same distribution, the same on all processes.
        geometry: where angles are measured; Euclidean from zero if None.
    """

    full_state_update = False
    total: Tensor
    squares: Tensor
    histogram: Tensor
    partners: Tensor

    def __init__(self, partners: Float[Tensor, "partners d"], geometry: Geometry | None = None) -> None:
        super().__init__()
        self.geometry = geometry
        self.register_buffer("partners", partners, persistent=False)
        for name in ("total", "squares"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("histogram", torch.zeros(180, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, x: Float[Tensor, "batch d"]) -> None:
        found = angle_distribution(x, self.geometry, self.partners)
        self.total += found.total
        self.squares += found.squares
        self.histogram += found.histogram.to(self.histogram.device)

    def compute(self) -> dict[str, Tensor]:
        count = int(self.histogram.sum())
        if count == 0:
            return dict.fromkeys(("mean", "sd", "shift"), torch.tensor(torch.nan, dtype=torch.float64))
        found = AngleDistribution(count, float(self.total), float(self.squares), self.histogram)
        return {name: self.total.new_tensor(getattr(found, name)) for name in ("mean", "sd", "shift")}
