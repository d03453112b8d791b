"""The affine map that every encoder begins with."""

from jaxtyping import Float, Int64
from torch import Tensor


def affine(
    x: Float[Tensor, "*batch d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    centre: Float[Tensor, " d_in"] | None = None,
    latents: Int64[Tensor, " chosen"] | None = None,
) -> Float[Tensor, "*batch chosen"]:
    """Computes the pre-activations z = (x − c) W_enc + b_enc.

    Args:
        x: activations, shape `(..., d_in)`.
        W_enc: encoder, shape `(d_in, d_sae)`.
        b_enc: its bias, shape `(d_sae,)`.
        centre: c, shape `(d_in,)`; None means 0.
        latents: numbers of the latents that are wanted, shape `(chosen,)`; None means all.

    Returns:
        z, shape `(..., chosen)`, or `(..., d_sae)` for all latents.

    Cost: 2·batch·d_in·chosen FLOPs.
    """
    centred = x if centre is None else x - centre
    if latents is None:
        return centred @ W_enc + b_enc
    return centred @ W_enc.index_select(1, latents) + b_enc.index_select(0, latents)
