"""What the dictionary does to the codes that occur, not to all that are possible (theory.md 4)."""

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from atomlab.theory import LARGEST_SUPPORT, AtomicInnerProduct, empirical_isometry


@final
class CodeIsometry(Metric):
    """How far the dictionary is from an isometry on the codes seen, over those with K ≥ 1.

    With atoms d_j of unit norm, a code δ and its support Λ, the quantity is either

    - the ratio ‖Σ δ_j d_j‖² / Σ δ_j², which is 1 for orthogonal atoms, or
    - the constant δ(Λ) = max(λ_max(G_Λ) − 1, 1 − λ_min(G_Λ)) of the Gram matrix G_Λ of the support's atoms, a lower
      bound of the restricted isometry constant of that size.

    `compute` returns, of ratios, `low` and `high`: their 1% and 99% quantiles; of constants, their lower median. All
    are float64 scalars, exact for the codes seen, and NaN if none has an atom. Supports beyond 256 atoms are not
    solved, and their constant counts as infinite.

    Cost: an eigenvalue problem (K, K) a code, O(K²·(K + d_in)). State: one float64 a code. Feed it a sample of bounded
    size.

    Args:
        dictionary: (d_sae, d_in) atoms of any norm.
        quantity: `ratio` or `constant`.
        metric: Inner product of the norms; Euclidean if None.
    """

    full_state_update = False
    seen: list[Tensor]
    white: Tensor

    def __init__(
        self,
        dictionary: Float[Tensor, "d_sae d_in"],
        quantity: Literal["ratio", "constant"],
        metric: AtomicInnerProduct | None = None,
    ) -> None:
        super().__init__()
        self.quantity = quantity
        white = dictionary.double() if metric is None else metric.whiten(dictionary.double())
        self.register_buffer("white", white, persistent=False)  # once, not an update
        self.add_state("seen", [], dist_reduce_fx="cat")
        self.set_dtype(torch.float64)  # of what a process sends that has seen nothing

    def update(self, codes: Tensor) -> None:
        """Adds codes (batch, d_sae), dense or CSR, of any sign.

        Raises:
            ValueError: NaN or infinite codes, or codes of another width than the dictionary.
        """
        values = getattr(empirical_isometry(codes, self.white, largest=LARGEST_SUPPORT), self.quantity)
        self.seen.append(values[~values.isnan()])

    def compute(self) -> Tensor | dict[str, Tensor]:
        values = dim_zero_cat(self.seen) if len(self.seen) else self.white.new_zeros(0)
        if len(values) == 0:
            values = values.new_full((1,), torch.nan)
        if self.quantity == "constant":
            return values.median()
        low, high = values.quantile(values.new_tensor([0.01, 0.99]))
        return {"low": low, "high": high}
