"""Certificates that a code is unique or is recovered by ℓ1 minimisation (theory.md 5, levels 1 to 4).

Every level is a sufficient condition, none is necessary. What is certified is the code of the reconstruction x̂, not of
the activation x. Margins are computed in float64 and must exceed `MARGIN`, since with a bare `< 1` rounding certifies
codes that are not recovered. The coefficients that decide are rounded up by a bound of their own rounding error.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.theory.coherence import CoherenceStatistics, unit_rows
from atomlab.theory.inner_product import AtomicInnerProduct
from atomlab.theory.mixed_precision_maximum import FLOAT32_ROUNDOFF, FLOAT64_ROUNDOFF, mixed_precision_maximum
from atomlab.theory.supports import Supports, check_codes, combine, support_grams, supports

MARGIN = 1e-9
_LARGEST_CONDITION = 1e10  # of a support's Gram matrix, beyond which it counts as singular
_NUMBERS = 2**25  # that a batch of supports may take: 256 MB in float64
_TILE = 1024  # atoms scored at a time
_CACHED = 2**20  # numbers in a tile of products, few enough to be read again from cache


def coherence_certified(sizes: Int[Tensor, " samples"], coherence: float) -> Bool[Tensor, " samples"]:
    """Certifies level 1: if μ(2K − 1) < 1, the code is the unique sparsest one, and ℓ1 minimisation and OMP find it.

    Time and memory: O(samples). Source: Donoho and Elad 2003; Gribonval and Nielsen 2003.

    Args:
        sizes: K of each sample, shape `(samples,)`.
        coherence: μ; give `CoherenceStatistics.coherence_bound`, so that rounding certifies nothing.

    Returns:
        Whether each sample is certified, shape `(samples,)`; False for K = 0.

    >>> coherence_certified(torch.tensor([0, 1, 2, 3]), 0.25).tolist()
    [False, True, True, False]
    """
    return (sizes > 0) & (coherence * (2 * sizes - 1).double() < 1 - MARGIN)


def babel_unique_certified(sizes: Int[Tensor, " samples"], statistics: CoherenceStatistics) -> Bool[Tensor, " samples"]:
    """Certifies level 2a: if μ₁(2K − 1) < 1, the code is the unique sparsest one.

    Upper bounds of μ₁ decide, so rounding certifies nothing. Time and memory: O(samples). Source: Tropp 2004.

    Args:
        sizes: K of each sample, shape `(samples,)`.
        statistics: coherence statistics of the dictionary.

    Returns:
        Whether each sample is certified, shape `(samples,)`; False for K = 0.
    """
    return (sizes > 0) & (statistics.babel_bound(2 * sizes - 1) < 1 - MARGIN)


def babel_recovery_certified(
    sizes: Int[Tensor, " samples"], statistics: CoherenceStatistics
) -> Bool[Tensor, " samples"]:
    """Certifies level 2b: if μ₁(K − 1) + μ₁(K) < 1, the code is the unique sparsest one, and ℓ1 minimisation and OMP
    find it.

    Upper bounds of μ₁ decide, so rounding certifies nothing. Time and memory: O(samples). Source: Tropp 2004.

    Args:
        sizes: K of each sample, shape `(samples,)`.
        statistics: coherence statistics of the dictionary.

    Returns:
        Whether each sample is certified, shape `(samples,)`; False for K = 0.
    """
    return (sizes > 0) & (statistics.babel_bound(sizes - 1) + statistics.babel_bound(sizes) < 1 - MARGIN)


@torch.no_grad()
@no_autocast()
def exact_recovery_coefficient(
    dictionary: Float[Tensor, "d_sae d_in"],
    support: Int[Tensor, " k"],
    metric: AtomicInnerProduct | None = None,
) -> float:
    """Computes the exact recovery coefficient of one support (level 3): max_{j∉Λ} ‖G_Λ⁻¹ G_Λj‖₁.

    Below 1, ℓ1 minimisation and OMP recover every code on Λ (ERC, Tropp 2004); it does not say that the code is the
    sparsest. Time: 2·K·(K + d_in)·d_sae FLOPs. Memory: the dictionary in float32 and float64 and an array of shape `(K,
    1024)`.

    Args:
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        support: latents Λ, shape `(K,)`, each named once.
        metric: inner product of the cosines; Euclidean if None.

    Returns:
        The coefficient in float64, rounded up (an upper bound); infinite if the atoms of the support are linearly
        dependent, 0 if no other atom competes.

    Raises:
        ValueError: the support is empty, or names an atom twice or one that the dictionary does not have.
    """
    if len(support) == 0 or len(support.unique()) != len(support):
        raise ValueError(
            f"A support should name at least one atom and none twice, got {support.tolist()}: name each atom once."
        )
    if int(support.min()) < 0 or int(support.max()) >= len(dictionary):
        raise ValueError(f"A support should name atoms 0 to {len(dictionary) - 1}, got {support.tolist()}.")
    row = support[None].long()
    chosen = Supports(row, torch.ones_like(row, dtype=torch.bool), torch.ones_like(row, dtype=torch.float64))
    return float(_exact_recovery(_units(dictionary, metric), chosen))


@torch.no_grad()
@no_autocast()
def exact_recovery_coefficients(
    codes: Tensor,
    dictionary: Float[Tensor, "d_sae d_in"],
    metric: AtomicInnerProduct | None = None,
    *,
    largest: int | None = None,
) -> Float[Tensor, " samples"]:
    """Computes the exact recovery coefficient of every sample's support (level 3), in batches.

    G_ΛJ is taken from tiles of the Gram matrix of the atoms in use. Time: 2·d_in·(atoms in use)·d_sae +
    2·samples·K²·d_sae FLOPs, not 2·samples·K·d_in·d_sae. Memory: the dictionary in float32 and float64, arrays of shape
    (atoms in use, 1024) and `(samples, 1024)`, and `(samples, K, K)` up to 256 MB at a time; never `(samples, K,
    d_sae)`.

    Args:
        codes: codes of shape `(samples, d_sae)`, dense or CSR, of any sign; only their supports matter.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        metric: inner product of the cosines; Euclidean if None.
        largest: the largest support that is solved; a larger one counts as infinite. All are solved if None.

    Returns:
        The `exact_recovery_coefficient` of each sample, shape `(samples,)`, float64, rounded up; NaN for K = 0.

    Raises:
        ValueError: the codes do not fit the dictionary or have NaN or infinite values, or `unit_rows` refuses the
            dictionary.
    """
    check_codes(codes, dictionary)
    units = _units(dictionary, metric)
    return _by_size(supports(codes), largest, units[1], lambda part: _exact_recovery(units, part))


@torch.no_grad()
@no_autocast()
def dual_certificates(
    codes: Tensor,
    dictionary: Float[Tensor, "d_sae d_in"],
    metric: AtomicInnerProduct | None = None,
    *,
    one_sided: bool = True,
    largest: int | None = None,
) -> Float[Tensor, " samples"]:
    """Computes the dual certificate of every code (level 4): max_{j∉Λ} G_jΛ G_Λ⁻¹ 1, or max_{j∉Λ} |G_jΛ G_Λ⁻¹ sign
    δ_Λ|.

    The first form is one-sided. Below 1 − `MARGIN` the code is the unique non-negative (in the second form, the unique)
    ℓ1 minimiser (Fuchs 2004); it does not say that the code is the sparsest. Time: one vector v = U_Λᵀ G_Λ⁻¹ s for each
    sample, 2·K·(K + 2)·d_in FLOPs, and one product of `(samples, d_in)` with `(d_in, d_sae)`. Memory: the dictionary in
    float32 and float64, arrays of shape `(samples, d_in)` and `(samples, 1024)`, and `(samples, K, K)` up to 256 MB at
    a time.

    Args:
        codes: codes of shape `(samples, d_sae)`, dense or CSR.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        metric: inner product of the cosines and of the norms in the ℓ1 sum; Euclidean if None.
        one_sided: whether the problem is the non-negative one; if False, codes and competitors may have any sign.
        largest: the largest support that is solved; a larger one counts as infinite. All are solved if None.

    Returns:
        The certificate of each sample, shape `(samples,)`, float64, rounded up (an upper bound); 0 where no other atom
        competes, infinite where G_Λ is singular, NaN for K = 0.

    Raises:
        ValueError: the codes do not fit the dictionary, have NaN or infinite values, or negative ones if `one_sided`;
            or `unit_rows` refuses the dictionary.
    """
    check_codes(codes, dictionary)
    chosen = supports(codes)
    if one_sided and (chosen.values < 0).any():
        raise ValueError(
            f"The one-sided certificate needs non-negative codes, but the smallest value is {chosen.values.min():.3g}, "
            "which is negative: use one_sided=False."
        )
    units = _units(dictionary, metric)
    return _by_size(chosen, largest, units[1], lambda part: _dual(units, part, one_sided))


def _units(dictionary: Tensor, metric: AtomicInnerProduct | None) -> tuple[Tensor, Tensor]:
    """Gives unit atoms twice: in float32, which screen, and in float64, which decide."""
    unit = unit_rows(dictionary.double(), metric)
    return unit.float(), unit


def _by_size(chosen: Supports, largest: int | None, unit: Tensor, solve: Callable[[Supports], Tensor]) -> Tensor:
    """Solves the samples in parts of similar support size, so that a batch of shape (samples, K, K) fits in memory."""
    result = unit.new_full((len(chosen.indices),), torch.inf)
    rows = (
        torch.arange(len(result), device=unit.device)
        if largest is None
        else (chosen.sizes <= largest).nonzero().squeeze(1)
    )
    for part in chosen.take(rows).by_size(lambda k: k * (k + 64), _NUMBERS):
        result[rows[part]] = solve(chosen.take(rows[part]))
    return result


def _inverse_grams(unit: Tensor, chosen: Supports) -> tuple[Tensor, Tensor]:
    """Computes G_Λ⁻¹, zero in the padding, and a bound of its relative rounding error, infinite where G_Λ is
    numerically singular.
    """
    gram = support_grams(unit, chosen)
    factor, failed = torch.linalg.cholesky_ex(gram)
    factor[failed > 0] = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    inverse = torch.cholesky_inverse(factor)
    condition = torch.linalg.matrix_norm(gram, 1) * torch.linalg.matrix_norm(inverse, 1)
    singular = (failed > 0) | (condition > _LARGEST_CONDITION)
    # To first order, from rounding of the Gram matrix and of the inverse (Higham 2002, sections 3.5 and 14.1).
    relative = 2 * chosen.sizes * (chosen.sizes + unit.shape[1]) * FLOAT64_ROUNDOFF * condition
    pairs = chosen.mask[:, :, None] & chosen.mask[:, None, :]
    return inverse * pairs, torch.where(singular, torch.inf, relative)


def _dual(units: tuple[Tensor, Tensor], chosen: Supports, one_sided: bool) -> Tensor:
    unit32, unit = units
    inverse, relative = _inverse_grams(unit, chosen)
    weights = (inverse @ chosen.values.double().sign()[:, :, None]).squeeze(2)
    vectors = combine(unit, chosen, weights)
    by_dtype = {torch.float32: (vectors.float(), unit32), torch.float64: (vectors, unit)}

    def estimate(columns: slice, dtype: torch.dtype) -> Tensor:
        v, u = by_dtype[dtype]
        scores = v @ u[columns].T
        return scores if one_sided else scores.abs_()

    def exact(rows: Tensor, atoms: Tensor) -> Tensor:
        scores = (vectors[rows] * unit[atoms]).sum(1)
        return scores if one_sided else scores.abs()

    error = 1.01 * (unit.shape[1] + 4) * FLOAT32_ROUNDOFF * vectors.norm(dim=1)
    worst = mixed_precision_maximum(len(unit), chosen, error, estimate, exact, tile=_TILE)
    return _finish(worst, relative * weights.norm(dim=1), chosen)


def _exact_recovery(units: tuple[Tensor, Tensor], chosen: Supports) -> Tensor:
    inverse, relative = _inverse_grams(units[1], chosen)
    used, slots = chosen.indices.unique(return_inverse=True)
    k, d = inverse.shape[1], units[1].shape[1]
    by_dtype = {u.dtype: (inverse.to(u.dtype), u) for u in units}

    def estimate(columns: slice, dtype: torch.dtype) -> Tensor:
        weights, unit = by_dtype[dtype]
        return _solved_norms(weights, slots, unit[used] @ unit[columns].T)

    def exact(rows: Tensor, atoms: Tensor) -> Tensor:
        parts = zip(rows.split(step), atoms.split(step), strict=True)
        return torch.cat([_coefficients(units[1], inverse[r], chosen.indices[r], a) for r, a in parts])

    step = max(1, _CACHED // (k * d))
    error = 1.01 * (d + 2 * k + 8) * FLOAT32_ROUNDOFF * inverse.abs().sum((1, 2))
    worst = mixed_precision_maximum(len(units[1]), chosen, error, estimate, exact, tile=_TILE)
    return _finish(worst, relative * (1 + worst), chosen)


def _solved_norms(inverse: Tensor, slots: Tensor, gram: Tensor) -> Tensor:
    """Computes ‖G_Λ⁻¹ G_Λj‖₁ of each support and each atom j of a tile, shape (supports, tile).

    G_Λj are the rows `slots` of `gram` (atoms in use, tile). They are gathered a few supports at a time into one buffer
    that stays in cache.
    """
    k, width = slots.shape[1], gram.shape[1]
    step = max(1, _CACHED // (k * width))
    inner, solved = gram.new_empty(step * k, width), gram.new_empty(step, k, width)
    norms = gram.new_empty(len(slots), width)
    for first in range(0, len(slots), step):
        some = slots[first : first + step]
        torch.index_select(gram, 0, some.flatten(), out=inner[: some.numel()])
        products = solved[: len(some)]
        torch.bmm(inverse[first : first + step], inner[: some.numel()].view(*some.shape, width), out=products)
        torch.sum(products.abs_(), 1, out=norms[first : first + step])
    return norms


def _coefficients(unit: Tensor, inverse: Tensor, indices: Tensor, atoms: Tensor) -> Tensor:
    """Computes ‖G_Λ⁻¹ G_Λj‖₁ of each pair of a support and an atom j."""
    inner = torch.bmm(unit[indices], unit[atoms][:, :, None])
    return torch.bmm(inverse, inner).squeeze(2).abs().sum(1)


def _finish(worst: Tensor, error: Tensor, chosen: Supports) -> Tensor:
    worst = torch.where(torch.isinf(error), torch.inf, worst + torch.where(worst > 0, error, 0))
    return torch.where(chosen.sizes > 0, worst, torch.nan)
