"""Isometry of the codes that occur in the data (theory.md 4): what the dictionary does to these, and not to all codes."""

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
    """The isometry ratio and the isometry constant of each sample's code; NaN for K = 0.

    |ratio − 1| ≤ constant ≤ δ_K.

    Attributes:
        ratio: ‖Σ δ_j d_j‖²_S / Σ δ_j² with atoms of unit S-norm, shape `(samples,)`, float64; 1 for orthogonal atoms.
        constant: δ(Λ) = max(λ_max(G_Λ) − 1, 1 − λ_min(G_Λ)) of the code's own support, shape `(samples,)`, float64;
            infinite where the support is larger than the limit.
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
    """Computes the isometry ratio ‖Σ δ_j d_j‖²_S / Σ δ_j² of each code, with δ scaled to atoms of unit S-norm.

    Time: 2·d_in FLOPs a nonzero, and whitening the dictionary (2·d_sae·d_in² FLOPs). Memory: arrays of shape `(samples,
    d_in)` and `(d_sae, d_in)`.

    Args:
        codes: codes of shape `(samples, d_sae)`, dense or CSR, of any sign.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        metric: inner product of the norms; Euclidean if None.
        norms: norms ‖d_j‖_S of the atoms, shape `(d_sae,)`; computed if None.

    Returns:
        The ratios, shape `(samples,)`, float64, NaN for K = 0; exact up to rounding of the dictionary's dtype (float32
        at least), in which atoms are summed.

    Raises:
        ValueError: the codes do not fit the dictionary, or have NaN or infinite values.
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
    """Computes the isometry ratio of every code and the isometry constant δ(Λ) of every support.

    Time: O(samples·K²·(K + d_in)), in float64. Memory: O(samples·K²), up to 256 MB at a time, and a float64 copy of the
    dictionary.

    Args:
        codes: codes of shape `(samples, d_sae)`, dense or CSR, of any sign.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        metric: inner product of the norms; Euclidean if None.
        largest: the largest support whose δ(Λ) is computed; all are if None.

    Returns:
        Ratio and constant of each sample; exact up to float64 rounding.

    Raises:
        ValueError: the codes do not fit the dictionary or have NaN or infinite values, or `unit_rows` refuses the
            dictionary.
    """
    check_codes(codes, dictionary)
    chosen, unit = supports(codes), unit_rows(dictionary.double(), metric)
    constant = torch.full((len(chosen.indices),), torch.inf, dtype=torch.float64, device=unit.device)
    sizes = chosen.sizes
    solved = torch.arange(len(sizes), device=sizes.device) if largest is None else (sizes <= largest).nonzero()[:, 0]
    for part in chosen.take(solved).by_size(lambda k: k * (k + 64), 2**25):
        rows = solved[part]
        # The padding adds eigenvalues of 1, which never decide.
        values = torch.linalg.eigvalsh(support_grams(unit, chosen.take(rows)))
        constant[rows] = torch.maximum(values[:, -1] - 1, 1 - values[:, 0]).clamp(min=0)
    return EmpiricalIsometry(isometry_ratios(codes, dictionary.double(), metric), constant.where(sizes > 0, torch.nan))
