"""Isometry on the data's own codes (theory.md 4): what the dictionary does to the codes that occur, not to all."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.theory.coherence import unit_rows
from atomlab.theory.inner_product import AtomicInnerProduct
from atomlab.theory.supports import check_codes, csr_parts, support_grams, supports


@final
@dataclass(frozen=True)
class EmpiricalIsometry:
    """Of each sample; NaN for K = 0.

    Attributes:
        ratio: ‖Σ δ_j d_j‖²_S / Σ δ_j² with unit-S-norm atoms (samples,), float64; 1 for orthogonal atoms.
        constant: δ(Λ) = max(λ_max(G_Λ) − 1, 1 − λ_min(G_Λ)) of the code's own support (samples,), float64; infinite
            where the support is too large to be solved. |ratio − 1| ≤ constant, and constant ≤ δ_K.
    """

    ratio: Float[Tensor, " samples"]
    constant: Float[Tensor, " samples"]


@torch.no_grad()
@no_autocast()
def isometry_ratios(
    codes: Tensor,
    dictionary: Float[Tensor, "d_sae d_in"],
    metric: AtomicInnerProduct | None = None,
    *,
    norms: Float[Tensor, " d_sae"] | None = None,
) -> Float[Tensor, " samples"]:
    """‖Σ δ_j d_j‖²_S / Σ δ_j² of each code, δ scaled to unit-S-norm atoms; NaN for K = 0; float64. Exact up to rounding
    of the dictionary's dtype, in which atoms are summed, float32 at least.

    Time 2·d_in FLOPs a nonzero, beside whitening the dictionary and its norms; memory (samples, d_in).

    Args:
        codes: (samples, d_sae), dense or CSR, any sign.
        dictionary: atoms as rows, any norm.
        metric: Euclidean if None.
        norms: ‖d_j‖_S, if known.
    """
    check_codes(codes, dictionary)
    wide = dictionary.to(torch.promote_types(dictionary.dtype, torch.float32))
    white = wide if metric is None else metric.whiten(wide)
    squares = (white.norm(dim=1) if norms is None else norms.to(white)).square()
    pointers, latents, values = csr_parts(codes)
    values = values.to(white)  # before they are squared: float16 ends at 65,504
    combined = _bags(latents, white, pointers, values)
    scale = _bags(latents, squares[:, None], pointers, values.square()).squeeze(1)
    return torch.linalg.vecdot(combined, combined).double() / scale.double()


def _bags(latents: Tensor, table: Tensor, pointers: Tensor, weights: Tensor) -> Tensor:
    return torch.nn.functional.embedding_bag(
        latents, table, pointers, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


@torch.no_grad()
@no_autocast()
def empirical_isometry(
    codes: Tensor,
    dictionary: Float[Tensor, "d_sae d_in"],
    metric: AtomicInnerProduct | None = None,
    *,
    largest: int | None = None,
) -> EmpiricalIsometry:
    """The isometry ratio of every code and δ(Λ) of every support. Exact up to float64 rounding.

    Time O(samples·K²·(K + d_in)); memory (samples, K, K), bounded.

    Args:
        codes: (samples, d_sae), dense or CSR, any sign.
        dictionary: atoms as rows, any norm.
        metric: Euclidean if None.
        largest: supports beyond this size get no δ(Λ).
    """
    check_codes(codes, dictionary)
    chosen, unit = supports(codes), unit_rows(dictionary.double(), metric)
    constant = torch.full((len(chosen.indices),), torch.inf, dtype=torch.float64, device=unit.device)
    sizes = chosen.sizes
    solved = torch.arange(len(sizes), device=sizes.device) if largest is None else (sizes <= largest).nonzero()[:, 0]
    for part in chosen.take(solved).by_size(lambda k: k * (k + 64), 2**25):
        rows = solved[part]
        values = torch.linalg.eigvalsh(
            support_grams(unit, chosen.take(rows))
        )  # 1 in the padding, which decides nothing
        constant[rows] = torch.maximum(values[:, -1] - 1, 1 - values[:, 0]).clamp(min=0)
    return EmpiricalIsometry(isometry_ratios(codes, dictionary.double(), metric), constant.where(sizes > 0, torch.nan))
