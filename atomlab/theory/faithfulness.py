"""How well reconstructions stand in for activations (theory.md 8): the variance explained, and the language model's
loss.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def variance_sums(
    x: Float[Tensor, "batch d"], x_hat: Float[Tensor, "batch d"], whitening: Float[Tensor, "d d"] | None = None
) -> Float[Tensor, " d_and_2"]:
    """Computes the sums from which R² of a stream follows; sums of separate batches may be added.

    Time: three passes over the batch, and 4·d² float64 FLOPs a vector with a whitening. Memory: two float64 copies of
    the batch, and as many again with a whitening.

    Args:
        x: activations, shape `(batch, d)`.
        x_hat: their reconstructions, shape `(batch, d)`.
        whitening: W = S^½, shape `(d, d)`, float64, if all norms are to be S-norms; Euclidean if None.

    Returns:
        Σ x, Σ ‖x‖² and Σ ‖x − x̂‖² in one vector of shape `(d + 2,)`, float64; with a whitening, of W x and W x̂.

    Raises:
        ValueError: the shapes differ, or values are NaN or infinite.
    """
    seen, error = _with_error(x, x_hat, whitening)
    squares = [torch.dot(part.flatten(), part.flatten()) for part in (seen, error)]
    return _finite(torch.cat([seen.sum(0), torch.stack(squares)]))


def explained_shares(
    x: Float[Tensor, "batch d"],
    x_hat: Float[Tensor, "batch d"],
    mean: Float[Tensor, " d"],
    whitening: Float[Tensor, "d d"] | None = None,
) -> Float[Tensor, " batch"]:
    """Computes the share of each vector that its reconstruction explains: 1 − ‖x − x̂‖² / ‖x − m‖².

    R² is the mean of these shares weighted by ‖x − m‖², if m is the mean of the stream. Time: three passes over the
    batch, and 4·d² float64 FLOPs a vector with a whitening. Memory: two float64 copies of the batch, and as many again
    with a whitening.

    Args:
        x: activations, shape `(batch, d)`.
        x_hat: their reconstructions, shape `(batch, d)`.
        mean: m, shape `(d,)`.
        whitening: W = S^½, shape `(d, d)`, float64, if the norms are to be S-norms; Euclidean if None.

    Returns:
        The shares, shape `(batch,)`, float64, at most 1; exact up to rounding, NaN for a vector that equals m.

    Raises:
        ValueError: the shapes differ, or values are NaN or infinite.
    """
    seen, error = _with_error(x, x_hat, whitening)
    centre = mean.double() if whitening is None else mean.double() @ whitening
    variance, lost = (_finite(part.square().sum(1)) for part in (seen - centre, error))
    return torch.where(variance > 0, 1 - lost / variance, torch.nan)


def _with_error(x: Tensor, x_hat: Tensor, whitening: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gives activations and the errors of their reconstructions in float64, whitened if there is a whitening."""
    if x.shape != x_hat.shape:
        raise ValueError(
            f"Activations have shape {tuple(x.shape)} and reconstructions {tuple(x_hat.shape)}: give each activation one."
        )
    seen = x.double()
    error = seen - x_hat
    return (seen, error) if whitening is None else (seen @ whitening, error @ whitening)


def _finite(numbers: Tensor) -> Tensor:
    """Returns sums of activations and of squares if they are finite, as they are of finite activations."""
    if not numbers.isfinite().all():
        raise ValueError("The activations or their reconstructions have NaN or infinite values: check their source.")
    return numbers


def explained_variance(
    sums: Float[Tensor, "*batch d_and_2"], count: Tensor | int, *, centred: bool = True
) -> Float[Tensor, "*batch"]:
    """Computes the share of variance that reconstructions explain: R² = 1 − Σ‖x − x̂‖² / Σ‖x − x̄‖².

    Variance is pooled over samples and dimensions. x̄ is the mean of the stream, or 0 if not `centred`. In float64 a
    mean that is 1000 times the standard deviation costs six of sixteen digits. Time and memory: O(d).

    Args:
        sums: result of `variance_sums`, added up over the stream, shape `(d + 2,)`, float64; or of several streams, with
            leading dimensions.
        count: number of vectors in the sums, of the shape of the leading dimensions or one for all.
        centred: whether variance is about the mean of the stream and not about 0.

    Returns:
        R² of each stream, float64; exact up to rounding, NaN where there is no variance.
    """
    total, squares, error = sums[..., :-2], sums[..., -2], sums[..., -1]
    variance = squares - (total.square().sum(-1) / count if centred else 0)
    return torch.where(variance > 0, 1 - error / variance, torch.nan)


def loss_recovered(
    original: Float[Tensor, "*batch"], spliced: Float[Tensor, "*batch"], ablated: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Computes the share of the ablation's loss that reconstructions win back: (L_ablated − L_spliced) / (L_ablated −
    L_original).

    It is 1 if reconstructions cost nothing, 0 if they are no better than the ablation and negative if they are worse.
    It depends on the ablation: a vector of zeros is far from all activations, so it flatters; the mean activation is
    the stricter choice. Time and memory: O(number of losses).

    Args:
        original: mean loss of the model as it is, in nats, any shape.
        spliced: mean loss with reconstructions in place of the activations, the same shape.
        ablated: mean loss with the ablation in place of the activations, the same shape.

    Returns:
        The share, the same shape, in the dtype of `original` or float32 if that is narrower; NaN where the ablation
        costs nothing.

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
    """Computes the Kullback–Leibler divergence KL(p ‖ q) = Σ p (log p − log q) of two predictions.

    Time: a few passes over the logits. Memory: three copies of them.

    Args:
        logits: logits of p, shape `(..., vocabulary)`.
        other: logits of q, the same shape.

    Returns:
        The divergence in nats, shape `(...)`, in the dtype of `logits` or float32 if that is narrower; exact up to
        rounding.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    log_p, log_q = logits.to(wide).log_softmax(-1), other.to(wide).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)
