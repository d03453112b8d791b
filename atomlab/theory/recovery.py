"""Uniqueness and ℓ1 recoverability of a code (theory.md 5). Every level here is sufficient, none is necessary.

What is certified is the code of the reconstruction x̂, not of x. All margins are in float64 and must exceed `MARGIN`: with a bare `< 1`
rounding certifies codes that are not recovered.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atomlab.theory.codes import Supports, support_grams, supports
from atomlab.theory.coherence import unit_rows
from atomlab.theory.inner_product import AtomicInnerProduct

MARGIN = 1e-9
_LARGEST_CONDITION = 1e10  # of a support's Gram matrix that counts as nonsingular


def coherence_certified(sizes: Int[Tensor, " samples"], coherence: float) -> Bool[Tensor, " samples"]:
    """Level 1: μ(2K − 1) < 1 ⇒ the code is the unique sparsest one and ℓ1 and OMP find it (Donoho–Elad 2003; Gribonval–Nielsen 2003).

    K = 0 is never certified.
    """
    return (sizes > 0) & (coherence * (2 * sizes - 1).double() < 1 - MARGIN)


def babel_unique_certified(sizes: Int[Tensor, " samples"], babel: Float[Tensor, " k"]) -> Bool[Tensor, " samples"]:
    """Level 2a: μ₁(2K − 1) < 1 ⇒ unique sparsest (Tropp 2004). `babel` holds μ₁(1), μ₁(2), ...; beyond its end nothing is certified."""
    return (sizes > 0) & (_babel(babel, 2 * sizes - 1) < 1 - MARGIN)


def babel_recovery_certified(sizes: Int[Tensor, " samples"], babel: Float[Tensor, " k"]) -> Bool[Tensor, " samples"]:
    """Level 2b: μ₁(K − 1) + μ₁(K) < 1 ⇒ unique sparsest, and ℓ1 and OMP find it (Tropp 2004)."""
    return (sizes > 0) & (_babel(babel, sizes - 1) + _babel(babel, sizes) < 1 - MARGIN)


def _babel(babel: Tensor, k: Tensor) -> Tensor:
    curve = torch.cat([babel.new_zeros(1), babel, babel.new_full((1,), torch.inf)])
    return curve[k.clamp(min=0, max=len(babel) + 1)]


@torch.no_grad()
def exact_recovery_coefficient(
    dictionary: Float[Tensor, "d_sae d_in"], support: Int[Tensor, " k"], metric: AtomicInnerProduct | None = None
) -> float:
    """Level 3, max_{j∉Λ} ‖G_Λ⁻¹ G_Λj‖₁: below 1, ℓ1 and OMP recover every code on Λ (ERC, Tropp 2004); says nothing of sparsest.

    Exact in float64; infinite if the support's atoms are linearly dependent. Time O(K²·d_sae + K·d_in·d_sae).

    Raises:
        ValueError: an empty support, or one that names an atom twice.
    """
    if len(support) == 0 or len(support.unique()) != len(support):
        raise ValueError(f"A support should name at least one atom and none twice, got {support.tolist()}.")
    unit = unit_rows(dictionary.double(), metric)
    inside = unit[support]
    gram = inside @ inside.T
    if torch.linalg.cond(gram) > _LARGEST_CONDITION:
        return float("inf")
    outside = torch.ones(len(unit), dtype=torch.bool)
    outside[support] = False
    if not outside.any():
        return 0.0
    return float(torch.linalg.solve(gram, inside @ unit[outside].T).abs().sum(0).max())


@torch.no_grad()
def dual_certificates(
    codes: Tensor,
    dictionary: Float[Tensor, "d_sae d_in"],
    metric: AtomicInnerProduct | None = None,
    *,
    one_sided: bool = True,
    block: int = 1024,
) -> Float[Tensor, " samples"]:
    """Level 4: max_{j∉Λ} of G_jΛ G_Λ⁻¹ 1 (one-sided), or of |G_jΛ G_Λ⁻¹ sign δ_Λ|; below 1 − MARGIN the code is the unique non-negative
    (or unique) ℓ1 minimiser (Fuchs 2004). Says nothing of sparsest.

    0 where no other atom competes, infinite where G_Λ is singular, NaN for K = 0. One vector v = U_Λᵀ G_Λ⁻¹ s a sample, then one product of
    (samples, d_in) with (d_in, d_sae). Float64; memory (block, d_sae) and (block, K, d_in).

    Args:
        codes: (samples, d_sae), dense or CSR.
        dictionary: atoms as rows, any norm.
        metric: Euclidean if None.
        one_sided: for non-negative codes; otherwise any sign.
        block: samples at a time.

    Raises:
        ValueError: negative codes with one_sided.
    """
    chosen = supports(codes)
    if one_sided and (chosen.values < 0).any():
        raise ValueError("The one-sided dual certificate is for non-negative codes, and these have negative values: use one_sided=False.")
    unit = unit_rows(dictionary.double(), metric)
    order = chosen.sizes.argsort()  # equal sizes together, so that little is padding
    result = torch.empty(len(order), dtype=torch.float64)
    for part in order.split(block):
        width = max(1, int(chosen.sizes[part].max()))
        mine = Supports(chosen.indices[part, :width], chosen.mask[part, :width], chosen.values[part, :width])
        result[part] = _dual(unit, mine, one_sided)
    return result


def _dual(unit: Tensor, chosen: Supports, one_sided: bool) -> Tensor:
    gram = support_grams(unit, chosen)
    values = torch.linalg.eigvalsh(gram)
    singular = values[:, 0] * _LARGEST_CONDITION < values[:, -1]
    safe = torch.where(singular[:, None, None], torch.eye(gram.shape[1], dtype=gram.dtype), gram)
    weights = torch.cholesky_solve(chosen.values.double().sign()[:, :, None], torch.linalg.cholesky(safe))
    vectors = (unit[chosen.indices] * (weights * chosen.mask[:, :, None])).sum(1)
    scores = vectors @ unit.T if one_sided else (vectors @ unit.T).abs()
    rows = torch.arange(len(scores))[:, None].expand_as(chosen.indices)[chosen.mask]
    scores[rows, chosen.indices[chosen.mask]] = -torch.inf
    worst = scores.amax(1).clamp(min=0)
    worst[singular] = torch.inf
    worst[chosen.sizes == 0] = torch.nan
    return worst
