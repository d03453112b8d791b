"""R² within bands of the norm, so that a few large vectors cannot carry a verdict."""

from typing import final

import torch
from torch import Tensor

from atomlab.metrics import ExplainedVariance
from atomlab.report import Row
from atomlab.theory import AtomicInnerProduct

_QUANTILES = (0.5, 0.9, 0.98)  # where one band ends and the next begins


@final
class NormBands:
    """R² in both norms among held-out vectors of like Euclidean norm: the smaller half, up to 90%, up to 98%, and the rest.

    Within a band R² is that of `ExplainedVariance`, about the mean of the band.

    Args:
        vectors: all vectors that will be measured, (samples, d_in).
        metric: S.
    """

    def __init__(self, vectors: Tensor, metric: AtomicInnerProduct) -> None:
        norms = vectors.double().norm(dim=1)
        self._edges = torch.quantile(norms, norms.new_tensor(_QUANTILES))
        self._ends = [float(norms.min()), *self._edges.tolist(), float(norms.max())]
        self._mean = vectors.double().mean(0)
        squares = (vectors.double() - self._mean).square().sum(1)
        bands = torch.bucketize(norms, self._edges)
        self._samples = torch.bincount(bands, minlength=len(_QUANTILES) + 1).tolist()
        shares = torch.zeros(len(_QUANTILES) + 1, dtype=torch.float64).index_add_(0, bands, squares) / squares.sum()
        self._shares = shares.tolist()
        width = vectors.shape[1]
        self._metrics = [(ExplainedVariance(width), ExplainedVariance(width, metric)) for _ in self._samples]

    def update(self, x: Tensor, x_hat: Tensor) -> None:
        """Adds vectors and their reconstructions, both (batch, d_in)."""
        bands = torch.bucketize(x.double().norm(dim=1), self._edges)
        for number, metrics in enumerate(self._metrics):
            chosen = bands == number
            for each in metrics if chosen.any() else ():
                each.update(x[chosen], x_hat[chosen])

    def rows(self) -> list[Row]:
        """Returns a row for each band that has two vectors, from small norms to large ones.

        Each has the norms that it reaches `from` and `to`, its number of vectors (`samples`), its `share` of Σ‖x − x̄‖²,
        `r2` and `r2_s`.
        """
        return [
            {
                "from": self._ends[number],
                "to": self._ends[number + 1],
                "samples": self._samples[number],
                "share": self._shares[number],
                "r2": euclidean.compute().item(),
                "r2_s": in_s.compute().item(),
            }
            for number, (euclidean, in_s) in enumerate(self._metrics)
            if self._samples[number] > 1
        ]
