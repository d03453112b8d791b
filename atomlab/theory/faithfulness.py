"""How far reconstructions stand in for activations (theory.md 8): variance explained, and what a language model loses."""

import torch
from jaxtyping import Float
from torch import Tensor


def variance_sums(
    x: Float[Tensor, "batch d"], x_hat: Float[Tensor, "batch d"], whitening: Float[Tensor, "d d"] | None = None
) -> Float[Tensor, " d_and_2"]:
    """What R² needs of a stream, additive over any split of it: Σ x (d,), Σ ‖x‖² and Σ ‖x − x̂‖² in one vector (d +
    2,); float64. Time: three passes over the batch, and given W = S^½ (then all are in the S-norm) 4·d² float64 FLOPs a
    vector; memory: two float64 copies of the batch.

    Raises:
        ValueError: NaN or infinite values, or unlike shapes.
    """
    if x.shape != x_hat.shape:
        raise ValueError(
            f"Activations of shape {tuple(x.shape)} do not go with reconstructions of shape {tuple(x_hat.shape)}."
        )
    seen = x.double()
    error = seen - x_hat
    if whitening is not None:
        seen, error = seen @ whitening, error @ whitening
    squares = [torch.dot(part.flatten(), part.flatten()) for part in (seen, error)]
    sums = torch.cat([seen.sum(0), torch.stack(squares)])
    if not sums[-2:].isfinite().all():
        raise ValueError("The activations or their reconstructions have NaN or infinite values: check their source.")
    return sums


def explained_variance(
    sums: Float[Tensor, " d_and_2"], count: Tensor | int, *, centred: bool = True
) -> Float[Tensor, ""]:
    """R² = 1 − Σ‖x − x̂‖² / Σ‖x − x̄‖², pooled over samples and dimensions, x̄ the mean of the stream (0 if not
    centred); exact. NaN if there is no variance. Float64, so a mean 1000 times the deviation costs six of sixteen
    digits. Time and memory O(d).

    Args:
        sums: of `variance_sums`, added up.
        count: vectors in them.
        centred: x̄ as said.
    """
    total, squares, error = sums[:-2], sums[-2], sums[-1]
    variance = squares - (total.square().sum() / count if centred else 0)
    return torch.where(variance > 0, 1 - error / variance, torch.nan)


def loss_recovered(
    original: Float[Tensor, "*batch"], spliced: Float[Tensor, "*batch"], ablated: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """(L_ablated − L_spliced) / (L_ablated − L_original), of mean losses: 1 if reconstructions cost nothing, 0 if they
    are no better than the ablation, negative if worse. Exact, in float32 or better; NaN where the ablation costs
    nothing. Time and memory of one value.

    It depends on the ablation: zero is far from all activations, so it flatters; the mean is the sterner one.

    >>> float(loss_recovered(torch.tensor(2.0), torch.tensor(3.0), torch.tensor(6.0)))
    0.75
    """
    wide = torch.promote_types(original.dtype, torch.float32)
    original, spliced, ablated = (losses.to(wide) for losses in (original, spliced, ablated))
    scale = ablated - original
    return torch.where(scale == 0, torch.nan, (ablated - spliced) / scale)


def kl_divergence(
    logits: Float[Tensor, "*batch vocabulary"], other: Float[Tensor, "*batch vocabulary"]
) -> Float[Tensor, "*batch"]:
    """KL(p ‖ q) = Σ p (log p − log q) in nats of p = softmax(logits) to q = softmax(other). Exact, in float32 or
    better. Time: a few passes over the logits; memory: three copies of them.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    log_p, log_q = logits.to(wide).log_softmax(-1), other.to(wide).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)
