"""How far reconstructions stand in for activations (theory.md 8): variance explained, and what a language model
loses.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class VarianceSums(NamedTuple):
    """What R² needs of a stream; additive over any split of it. Float64.

    Attributes:
        total: Σ x (d,).
        squares: Σ ‖x‖².
        error: Σ ‖x − x̂‖².
    """

    total: Float[Tensor, " d"]
    squares: Float[Tensor, ""]
    error: Float[Tensor, ""]


def variance_sums(
    x: Float[Tensor, "batch d"], x_hat: Float[Tensor, "batch d"], whitening: Float[Tensor, "d d"] | None = None
) -> VarianceSums:
    """Sums over a batch, in float64 (and in the S-norm, given W = S^½: 4·d² FLOPs a vector).

    Raises:
        ValueError: NaN or infinite values.
    """
    seen = x.double()
    error = seen - x_hat
    if whitening is not None:
        seen, error = seen @ whitening, error @ whitening
    sums = VarianceSums(seen.sum(0), torch.linalg.vector_norm(seen).square(), torch.linalg.vector_norm(error).square())
    if not (sums.squares + sums.error).isfinite():
        raise ValueError("The activations or their reconstructions have NaN or infinite values: check their source.")
    return sums


def explained_variance(sums: VarianceSums, count: Tensor | int, *, centred: bool = True) -> Float[Tensor, ""]:
    """R² = 1 − Σ‖x − x̂‖² / Σ‖x − x̄‖², pooled over samples and dimensions, x̄ the mean of the stream (0 if not centred);
    exact. NaN if there is no variance. Float64, so a mean 1000 times the deviation costs six of sixteen digits.
    """
    variance = sums.squares - (sums.total.square().sum() / count if centred else 0)
    return torch.where(variance > 0, 1 - sums.error / variance, torch.nan)


def loss_recovered(
    original: Float[Tensor, "*batch"], spliced: Float[Tensor, "*batch"], ablated: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """(L_ablated − L_spliced) / (L_ablated − L_original), of mean losses: 1 if reconstructions cost nothing, 0
    if they are no better than the ablation, negative if worse. Exact; NaN where the ablation costs nothing.

    It depends on the ablation: zero is far from all activations, so it flatters; the mean is the sterner one.

    >>> float(loss_recovered(torch.tensor(2.0), torch.tensor(3.0), torch.tensor(6.0)))
    0.75
    """
    scale = ablated - original
    return torch.where(scale == 0, torch.nan, (ablated - spliced) / scale)


def kl_divergence(
    logits: Float[Tensor, "*batch vocabulary"], other: Float[Tensor, "*batch vocabulary"]
) -> Float[Tensor, "*batch"]:
    """KL(p ‖ q) = Σ p (log p − log q) in nats of p = softmax(logits) to q = softmax(other). Exact, in float32 or
    better. Memory: three copies of the logits.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    log_p, log_q = logits.to(wide).log_softmax(-1), other.to(wide).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)
