"""Faithfulness of reconstructions (theory.md 8)."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from atomlab.theory import AtomicInnerProduct, explained_variance, reconstruct, refit_codes, variance_sums


@final
class ExplainedVariance(Metric):
    """R² = 1 − Σ‖x − x̂‖² / Σ‖x − x̄‖², pooled over samples and dimensions, x̄ the mean of the stream; exact, sums in
    float64. NaN before two distinct vectors were seen. FVU is 1 − R².

    Cost: `variance_sums`: passes over x and x̂, and in a metric 4·d_in² float64 FLOPs a vector. State: d_in + 2
    float64, one int64.

    Args:
        d_in: width.
        metric: S-norms instead of Euclidean ones.
        centred: x̄ as said; otherwise 0, the uncentred R².
    """

    full_state_update = False
    higher_is_better = True
    sums: Tensor
    count: Tensor
    whitening: Tensor | None

    def __init__(self, d_in: int, metric: AtomicInnerProduct | None = None, *, centred: bool = True) -> None:
        super().__init__()
        self.centred = centred
        self.add_state("sums", torch.zeros(d_in + 2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.register_buffer("whitening", None if metric is None else metric.whitening, persistent=False)

    def update(self, x: Float[Tensor, "batch d_in"], x_hat: Float[Tensor, "batch d_in"]) -> None:
        self.sums += variance_sums(x, x_hat, self.whitening)
        self.count += len(x)

    def compute(self) -> Tensor:
        return explained_variance(self.sums, self.count, centred=self.centred)


@final
class RefittedExplainedVariance(Metric):
    """R² after the values of each code are refitted on its support by least squares (theory.md 6): what the supports
    are worth, whatever values the encoder gave. Exact; at least the R² of the codes themselves, in the refit's metric.

    Cost: `refit_codes` and `variance_sums`. State: d_in + 2 float64, one int64.

    Args:
        dictionary: (d_sae, d_in) atoms.
        bias: (d_in,) taken off the activations before the refit.
        metric: of the refit and of the R²; Euclidean if None.
    """

    full_state_update = False
    higher_is_better = True
    sums: Tensor
    count: Tensor
    dictionary: Tensor
    bias: Tensor

    def __init__(
        self,
        dictionary: Float[Tensor, "d_sae d_in"],
        bias: Float[Tensor, " d_in"],
        metric: AtomicInnerProduct | None = None,
    ) -> None:
        super().__init__()
        white = dictionary.double() if metric is None else metric.whiten(dictionary.double())
        self.add_state("sums", torch.zeros(white.shape[1] + 2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.metric = metric
        self.register_buffer("dictionary", white, persistent=False)  # whitened, as the activations will be
        self.register_buffer("bias", bias.double(), persistent=False)

    def update(self, x: Float[Tensor, "batch d_in"], codes: Tensor) -> None:
        seen = x.double() - self.bias
        white = seen if self.metric is None else self.metric.whiten(seen)
        x_hat = reconstruct(refit_codes(white, codes, self.dictionary), self.dictionary)
        self.sums += variance_sums(white, x_hat)
        self.count += len(x)

    def compute(self) -> Tensor:
        return explained_variance(self.sums, self.count)
