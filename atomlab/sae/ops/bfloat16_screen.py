"""Finds the active entries of a float32 encoder with a bfloat16 product, without losing any of them.

An upper bound on x·w, computed in bfloat16, rules most entries out; only the rest need a float32 dot product.

With x̂ and ŵ, which are x and w rounded to bfloat16, the Cauchy–Schwarz inequality gives

    x·w = x̂·ŵ + (x − x̂)·ŵ + x·(w − ŵ) ≤ x̂·ŵ + ‖x − x̂‖‖ŵ‖ + ‖x‖‖w − ŵ‖.

The bound is one product of vectors with two more coordinates, (x̂, ‖x − x̂‖, ‖x‖)·(ŵ, ‖ŵ‖, ‖w − ŵ‖), where the four
norms are rounded upwards. A sum of n products in float32, in any order, is off by at most γ_n Σ|x_i w_i|,
γ_n = n u/(1 − n u), u = 2⁻²⁴ (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). The error of the
bound and the error of the float32 dot product are both added to the norms. The bound holds for products that are summed
in float32, where nothing overflows or underflows.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import autocast_dtype
from atomlab.sae.ops.tiled_select import below, select
from atomlab.sae.sparse_code import Entries

WIDEST = 1 << 14  # up to this d_in the upward rounding also covers the rounding of the norms: 3γ < 2⁻⁸
_SMALLEST_PRODUCT = 1 << 27  # batch·d_in·d_sae from which the product outweighs the conversion of its operands


def pays(x: Float[Tensor, "batch d_in"], W_enc: Float[Tensor, "d_in d_sae"]) -> bool:
    """Decides whether screening saves time.

    The answer depends on shapes, dtype, autocast and the processor, never on a measured time, so that it is the same
    in every run on one machine.

    Args:
        x: inputs of the encoder, shape `(batch, d_in)`.
        W_enc: shape `(d_in, d_sae)`.

    Returns:
        True for large float32 operands, without autocast and with d_in up to `WIDEST`, on a CPU with bfloat16
        instructions.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or autocast_dtype(x.device) is not None:
        return False
    has = torch.cpu.get_capabilities()
    return (
        bool(has.get("avx512_bf16") or has.get("amx_bf16"))
        and x.shape[1] <= WIDEST
        and len(x) * W_enc.numel() >= _SMALLEST_PRODUCT
    )


@torch.no_grad()
def candidates(
    x: Float[Tensor, "batch d_in"], atoms: Float[Tensor, "d_sae d_in"], least: Float[Tensor, " d_sae"]
) -> Entries:
    """Finds all entries whose float32 dot product x·w_j, summed in any order, is at least least_j.

    Args:
        x: shape `(batch, d_in)`, float32.
        atoms: rows w_j, shape `(d_sae, d_in)`, float32.
        least: shape `(d_sae,)`, float32.

    Returns:
        A superset of these entries: it also has some whose dot product is below least_j by less than the margin.

    Raises:
        ValueError: d_in is larger than `WIDEST`, up to which the margin is proven.

    Cost: 2·batch·(d_in + 2)·d_sae FLOPs in bfloat16; memory of the operands in bfloat16, a tile and the entries.
    """
    if x.shape[1] > WIDEST:
        raise ValueError(
            f"The screened encoder is proven for d_in up to {WIDEST}, got {x.shape[1]}: choose "
            "training.implementation=sparse."
        )
    n = x.shape[1] + 2
    gamma = n * 2.0**-24 / (1 - n * 2.0**-24)
    inputs, latents = _round(x), _round(atoms)
    # The bound errs by γ‖x̂‖‖ŵ‖, the dot product by γ‖x‖‖w‖ ≤ γ‖x‖(‖ŵ‖ + ‖w − ŵ‖). The computed norms err too, by factors
    # that `_up` covers, since it multiplies by more than 1/(1 − γ)².
    inputs.low[:, -2], inputs.low[:, -1] = _up(inputs.error + gamma * (inputs.low_norm + inputs.norm)), _up(inputs.norm)
    latents.low[:, -2], latents.low[:, -1] = _up(latents.low_norm), _up((1 + gamma) * latents.error)
    return select(inputs.low, latents.low, below(least, torch.bfloat16))[1]


class _Rounded(NamedTuple):
    """The rows v of a matrix, rounded to bfloat16.

    Attributes:
        low: v̂ in bfloat16, shape `(n, d_in + 2)`; the last two columns are not set.
        norm: ‖v‖, shape `(n,)`, float32.
        low_norm: ‖v̂‖, likewise.
        error: ‖v − v̂‖, likewise; the difference itself is exact in float32.
    """

    low: Tensor
    norm: Tensor
    low_norm: Tensor
    error: Tensor


def _round(v: Float[Tensor, "n d_in"], block: int = 512) -> _Rounded:
    """Rounds the rows of a matrix, in blocks of rows that stay in the cache."""
    low = v.new_empty(v.shape[0], v.shape[1] + 2, dtype=torch.bfloat16)
    norms = v.new_empty(3, len(v))
    for first in range(0, len(v), block):
        rows = slice(first, first + block)
        part, rounded = v[rows], low[rows, :-2]
        widened = rounded.copy_(part).float()
        for norm, vectors in zip(norms, (part, widened, part - widened), strict=True):
            norm[rows] = torch.linalg.vector_norm(vectors, dim=1)
    return _Rounded(low, *norms)


def _up(norms: Float[Tensor, " n"]) -> Tensor:
    """Rounds norms upwards to bfloat16: the result is at least (1 + 2⁻⁸) times the norm, to first order."""
    return (norms * (1 + 2.0**-7)).bfloat16()
