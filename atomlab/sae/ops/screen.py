"""Float32 exactness at the cost of a bfloat16 product: a bound from above on x·w decides which entries are worth a
float32 dot product.

With x̂, ŵ rounded to bfloat16, x·w = x̂·ŵ + (x − x̂)·ŵ + x·(w − ŵ) ≤ x̂·ŵ + ‖x − x̂‖‖ŵ‖ + ‖x‖‖w − ŵ‖
(Cauchy–Schwarz). The bound is computed as one product of vectors with two more coordinates, (x̂, ‖x − x̂‖, ‖x‖)·(ŵ,
‖ŵ‖, ‖w − ŵ‖), these four rounded upwards. Any order of summation of n products in float32 errs by at most γ_n Σ|x_i
w_i|, γ_n = n u/(1 − n u), u = 2⁻²⁴ (Higham, Accuracy and Stability, 3.1): both the bound's and the float32 dot
product's error go into the margin. Holds barring overflow and underflow, for products summed in float32.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import autocast_dtype
from atomlab.sae.ops.select import below, select
from atomlab.sae.sparse_code import Entries

WIDEST = 1 << 14  # coordinates up to which the rounding upwards also covers the rounding of the norms: 3γ < 2⁻⁸
_SMALLEST_PRODUCT = 1 << 27  # FLOPs/2 of a batch from which on the product outweighs the conversions


def pays(x: Float[Tensor, "batch d_in"], W_enc: Float[Tensor, "d_in d_sae"]) -> bool:
    """Float32 operands of some size on a CPU with bfloat16 dot products, and no autocast. A property of shapes and
    machine, not of timings."""
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
    """All entries whose float32 dot product x·w_j, summed in any order, is at least `least_j`; and some more, just
    below it.

    2·batch·(d_in + 2)·d_sae FLOPs in bfloat16; memory of the operands in bfloat16, a tile and the entries.

    Raises:
        ValueError: more coordinates than the margin is proven for.
    """
    if x.shape[1] > WIDEST:
        raise ValueError(f"The screened encoder is proven for d_in up to {WIDEST}, got {x.shape[1]}.")
    n = x.shape[1] + 2
    gamma = n * 2.0**-24 / (1 - n * 2.0**-24)
    x_low, x_norm, x_low_norm, x_error = _rounded(x)
    w_low, _, w_low_norm, w_error = _rounded(atoms)
    # γ‖x̂‖‖ŵ‖ for the bound, γ‖x‖‖w‖ ≤ γ‖x‖(‖ŵ‖ + ‖w − ŵ‖) for the dot product; `_up` is more than 1/(1 − γ)²: norms
    x_low[:, -2], x_low[:, -1] = _up(x_error + gamma * (x_low_norm + x_norm)), _up(x_norm)
    w_low[:, -2], w_low[:, -1] = _up(w_low_norm), _up((1 + gamma) * w_error)
    return select(x_low, w_low, below(least, torch.bfloat16))[1]


def _rounded(v: Float[Tensor, "n d_in"], block: int = 512) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """v̂ in bfloat16 with room for two more columns, and ‖v‖, ‖v̂‖, ‖v − v̂‖ of each row; the difference is exact in
    float32."""
    low = v.new_empty(v.shape[0], v.shape[1] + 2, dtype=torch.bfloat16)
    norms = v.new_empty(3, len(v))
    for first in range(0, len(v), block):  # blocks that stay in the cache
        rows = slice(first, first + block)
        part, rounded = v[rows], low[rows, :-2]
        widened = rounded.copy_(part).float()
        for norm, vectors in zip(norms, (part, widened, part - widened), strict=True):
            norm[rows] = torch.linalg.vector_norm(vectors, dim=1)
    return low, norms[0], norms[1], norms[2]


def _up(norms: Float[Tensor, " n"]) -> Tensor:
    """To bfloat16, at least (1 + 2⁻⁸)-fold up to second order."""
    return (norms * (1 + 2.0**-7)).bfloat16()
