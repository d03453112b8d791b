"""How much of the variance of the activations their reconstructions explain (theory.md 8)."""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from atomlab.theory import (
    AtomicInnerProduct,
    explained_shares,
    explained_variance,
    reconstruct,
    refit_codes,
    variance_sums,
)


@final
class ExplainedVariance(Metric):
    """The share of the variance of a stream of vectors that their reconstructions explain.

    R² = 1 − Σ‖x − x̂‖² / Σ‖x − x̄‖², pooled over vectors and dimensions, with x the vectors, x̂ their reconstructions and x̄
    the mean of the stream. The fraction of variance unexplained (FVU) is 1 − R².

    `compute` returns R² as a float64 scalar. It is exact, with sums in float64. It is NaN before two distinct vectors
    were seen.

    Cost: a pass over x and x̂, and in a metric 4·d_in² float64 FLOPs a vector. State: d_in + 2 float64 and one int64.

    Args:
        d_in: Width of the vectors.
        metric: Inner product of the norms; Euclidean if None.
        centred: Whether x̄ is the mean. If False it is 0, which gives the uncentred R².
    """

    full_state_update = False
    higher_is_better = True
    computes_many: ClassVar[bool] = True  # states with a leading dimension give one number each (`GroupBootstrap`)
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
        """Adds a batch.

        Args:
            x: Activations (batch, d_in).
            x_hat: Their reconstructions (batch, d_in).

        Raises:
            ValueError: NaN or infinite values, or shapes that differ.
        """
        self.sums += variance_sums(x, x_hat, self.whitening)
        self.count += len(x)

    def compute(self) -> Tensor:
        return explained_variance(self.sums, self.count, centred=self.centred)


@final
class RefittedExplainedVariance(Metric):
    """The R² of the best values on the supports that the codes chose (theory.md 6).

    Least squares refits the values of each code on its support, x is reconstructed from these values, and R² is that of
    `ExplainedVariance` in the same metric. It says what the supports are worth, whatever values the encoder gave, and
    is at least the R² of the codes themselves.

    `compute` returns a float64 scalar. It is exact: refit, reconstruction and sums are in float64.

    Cost: one linear system (K, K) a vector, O(K²·(K + d_in)), and a pass over x. State: d_in + 2 float64 and one int64,
    beside a float64 copy of the dictionary.

    Args:
        dictionary: (d_sae, d_in) atoms of any norm.
        bias: (d_in,) subtracted from the activations before the refit.
        metric: Inner product of the refit and of the R²; Euclidean if None.
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
        """Adds a batch.

        Args:
            x: Activations (batch, d_in).
            codes: Their codes (batch, d_sae), dense or CSR. Only the supports matter.

        Raises:
            ValueError: NaN or infinite values, or shapes that do not fit the dictionary.
        """
        seen = x.double() - self.bias
        white = seen if self.metric is None else self.metric.whiten(seen)
        x_hat = reconstruct(refit_codes(white, codes, self.dictionary), self.dictionary)
        self.sums += variance_sums(white, x_hat)
        self.count += len(x)

    def compute(self) -> Tensor:
        return explained_variance(self.sums, self.count)


@final
class ExplainedQuantile(Metric):
    """A quantile over vectors of the share of each vector that its reconstruction explains.

    The share of one vector is 1 − ‖x − x̂‖² / ‖x − m‖², with m a mean that is given. R² is the mean of these shares
    weighted by ‖x − m‖², so a few large vectors may carry it; in a quantile every vector counts alike.

    `compute` returns a float64 scalar, linearly interpolated between the two nearest vectors. It is exact, NaN before
    the first vector. Vectors that equal m have no share and are left out.

    Cost: a pass over x and x̂, and in a metric 4·d_in² float64 FLOPs a vector. State: one float64 a vector.

    Args:
        mean: m, shape `(d_in,)`.
        quantile: which one, between 0 and 1.
        metric: Inner product of the norms; Euclidean if None.
    """

    full_state_update = False
    higher_is_better = True
    shares: list[Tensor]
    mean: Tensor
    whitening: Tensor | None

    def __init__(self, mean: Float[Tensor, " d_in"], quantile: float, metric: AtomicInnerProduct | None = None) -> None:
        super().__init__()
        self.quantile = quantile
        self.add_state("shares", [], dist_reduce_fx="cat")
        self.register_buffer("mean", mean.double(), persistent=False)
        self.register_buffer("whitening", None if metric is None else metric.whitening, persistent=False)

    def update(self, x: Float[Tensor, "batch d_in"], x_hat: Float[Tensor, "batch d_in"]) -> None:
        """Adds a batch.

        Args:
            x: Activations (batch, d_in).
            x_hat: Their reconstructions (batch, d_in).

        Raises:
            ValueError: NaN or infinite values, or shapes that differ.
        """
        shares = explained_shares(x, x_hat, self.mean, self.whitening)
        self.shares.append(shares[~shares.isnan()])

    def compute(self) -> Tensor:
        shares = dim_zero_cat(self.shares) if len(self.shares) else self.mean[:0]
        return torch.quantile(shares, self.quantile) if len(shares) else self.mean.new_full((), torch.nan)
