"""What is done to the rows of a decoder, whatever the encoder: their norms, unit norm, and gradients that keep it."""

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast


@no_autocast()
def decoder_norms(
    W_dec: Float[Tensor, "d_sae d_in"], gram: Float[Tensor, "d_in d_in"] | None = None
) -> Float[Tensor, " d_sae"]:
    """Computes the norm √(d G dᵀ) of each atom d.

    Args:
        W_dec: atoms as rows, shape `(d_sae, d_in)`.
        gram: G, shape `(d_in, d_in)`, symmetric and positive semidefinite; None means the Euclidean norm.

    Returns:
        Norms, shape `(d_sae,)`, in the dtype of `W_dec`.

    Cost: 2·d_sae·d_in² FLOPs with `gram`, 2·d_sae·d_in without.
    """
    return W_dec.norm(dim=1) if gram is None else ((W_dec @ gram) * W_dec).sum(1).clamp(min=0).sqrt()


def norms_without_zero(
    W_dec: Float[Tensor, "d_sae d_in"], gram: Float[Tensor, "d_in d_in"] | None = None
) -> Float[Tensor, " d_sae"]:
    """Computes `decoder_norms` of atoms that are to be scaled to unit norm.

    Raises:
        ValueError: an atom is zero.
    """
    norms = decoder_norms(W_dec, gram)
    if (norms == 0).any():
        raise ValueError(
            f"Atom {int((norms == 0).nonzero()[0])} is zero and cannot be scaled to unit norm: leave its latent out."
        )
    return norms


@torch.no_grad()
def remove_parallel_gradient_(
    W_dec: Float[Tensor, "d_sae d_in"], gram: Float[Tensor, "d_in d_in"] | None = None, block: int = 1024
) -> None:
    """Removes from the gradient of W_dec, in place, the component that would only change the norms of the atoms.

    To first order a step along −g changes the norm √(d G dᵀ) of an atom d by −g·n up to a factor, n = G d. The gradient
    g becomes g − (g·n / n·n) n. Where there is no gradient nothing happens.

    Args:
        W_dec: atoms as rows, shape `(d_sae, d_in)`.
        gram: G, shape `(d_in, d_in)`, symmetric; None means the Euclidean norm.
        block: number of atoms that are handled at a time, small enough for the cache. It does not change the result.
    """
    if W_dec.grad is None:
        return
    for atoms, gradient in zip(W_dec.split(block), W_dec.grad.split(block), strict=True):
        normal = atoms if gram is None else atoms @ gram
        share = (gradient * normal).sum(1) / normal.square().sum(1).clamp(min=torch.finfo(normal.dtype).tiny)
        gradient.addcmul_(normal, share[:, None], value=-1)
