"""What a one-step threshold encoder can identify (theory.md 6): W_enc = S W_decᵀ and unit-S-norm atoms, so that the
pre-activations of x = Σ δ_j d_j are δ_j + Σ_{i≠j} G_ij δ_i.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.theory.coherence import coherence_statistics, unit_rows
from atomlab.theory.inner_product import AtomicInnerProduct
from atomlab.theory.supports import Supports, check_codes, check_vectors, combine, gathered, support_grams, supports

_TILE = 256  # latents at a time
_SORTED = 2**18  # numbers sorted at a time: they and their running counts stay in cache
_LARGEST_CONDITION = 1e12  # of a support's Gram matrix, beyond which values are refitted by a pseudo-inverse


@final
@dataclass(frozen=True)
class ThresholdWindows:
    """The open interval of thresholds that are guaranteed to recover each sample's support; NaN for K = 0.

    Attributes:
        lower: ε K δ_max (samples,), float64.
        upper: δ_min − ε (K − 1) δ_max (samples,), float64.
    """

    lower: Float[Tensor, " samples"]
    upper: Float[Tensor, " samples"]

    @property
    def feasible(self) -> Bool[Tensor, " samples"]:
        """δ_min > ε (2K − 1) δ_max; never for K = 0."""
        return self.lower < self.upper


@final
@dataclass(frozen=True)
class SupportRecovery:
    """Whether the one-step encoder's support is the code's; False for K = 0.

    Attributes:
        shared: with the one threshold vector that all samples share (samples,).
        oracle: with some threshold ≥ 0 of the sample's own (samples,): an upper bound of what one number can do.
    """

    shared: Bool[Tensor, " samples"]
    oracle: Bool[Tensor, " samples"]


@torch.no_grad()
def threshold_windows(
    codes: Tensor,
    dictionary: Float[Tensor, "d_sae d_in"],
    metric: AtomicInnerProduct | None = None,
    *,
    coherence: float | None = None,
) -> ThresholdWindows:
    """A priori: thresholds ε K δ_max < τ < δ_min − ε (K − 1) δ_max recover the support exactly, ε = μ, values δ of
    unit-S-norm atoms. Sufficient, not necessary. Time and memory O(nonzeros), beside the norms and μ.

    Args:
        codes: (samples, d_sae), dense or CSR, non-negative.
        dictionary: atoms as rows, any norm.
        metric: Euclidean if None.
        coherence: μ of this dictionary and metric, if known; rounded up.

    Raises:
        ValueError: negative codes.
    """
    check_codes(codes, dictionary)
    chosen = _nonnegative(codes)
    if coherence is None:
        coherence = coherence_statistics(dictionary, metric, k=1).coherence_bound
    values = _unit_values(chosen, dictionary, metric)
    alive, k = chosen.sizes > 0, chosen.sizes.double()
    smallest = values.masked_fill(~chosen.mask, torch.inf).amin(1).where(alive, torch.nan)
    largest = values.amax(1).where(alive, torch.nan)
    return ThresholdWindows(coherence * k * largest, smallest - coherence * (k - 1) * largest)


@torch.no_grad()
@no_autocast()
def shared_thresholds(
    x: Float[Tensor, "samples d_in"],
    codes: Tensor,
    dictionary: Float[Tensor, "d_sae d_in"],
    metric: AtomicInnerProduct | None = None,
) -> Float[Tensor, " d_sae"]:
    """One threshold τ_j ≥ 0 a latent, the one with the fewest samples on which [z_j > τ_j] ≠ [j ∈ Λ], midway in its
    interval; infinite for a latent that should never fire. To be chosen on training data.

    It minimises the sum of errors over latents, which bounds the number of samples with a wrong support from above.
    Exact, in the dtype of x, float32 at least. Time: 2·samples·d_in·d_sae FLOPs and a sort of samples·d_sae numbers;
    memory: a dozen arrays of 2¹⁸ (at least 16·samples) numbers beside copies of x and of the dictionary in float64.

    Args:
        x: activations less b_dec, or reconstructions less b_dec.
        codes: (samples, d_sae), dense or CSR, whose supports are to be recovered.
        dictionary: atoms as rows, any norm.
        metric: Euclidean if None.
    """
    check_codes(codes, dictionary)
    check_vectors(x, dictionary, codes)
    chosen = supports(codes)
    encode = _encoder(x, dictionary, metric)
    return torch.cat(
        [
            _fewest_errors(encode(latents), _members(chosen, latents))
            for latents in torch.arange(len(dictionary), device=x.device).split(max(16, _SORTED // max(1, len(x))))
        ]
    )


def _fewest_errors(z: Float[Tensor, "samples latents"], inside: Bool[Tensor, "samples latents"]) -> Tensor:
    z, order = z.T.contiguous().clamp(min=0).sort(dim=1, stable=True)  # rows of memory sort faster than columns
    inside = inside.T.gather(1, order)
    zero = inside.new_zeros((len(inside), 1), dtype=torch.int64)
    missed = torch.cat([zero, inside.cumsum(1)], 1)  # members at or below the threshold after the i smallest
    below = torch.cat([zero, (~inside).cumsum(1)], 1)
    errors = missed + below[:, -1:] - below
    # A threshold lies at or above 0 and cannot part equal values.
    edges = torch.cat([z.new_zeros(len(z), 1), z, z.new_full((len(z), 1), torch.inf)], 1)
    possible = edges[:, 1:] > edges[:, :-1]
    best = errors.masked_fill(~possible, torch.iinfo(torch.int64).max).flip(1).argmin(1)  # the highest of the best
    best = errors.shape[1] - 1 - best
    low, high = (edges.gather(1, (best + i)[:, None])[:, 0] for i in (0, 1))
    middle = (low + high) / 2
    never = missed[:, -1] == 0
    return torch.where(never, torch.inf, torch.where(middle < high, middle, low).where(~high.isinf(), low))


@torch.no_grad()
@no_autocast()
def support_recovery(
    x: Float[Tensor, "samples d_in"],
    codes: Tensor,
    dictionary: Float[Tensor, "d_sae d_in"],
    thresholds: Float[Tensor, " d_sae"],
    metric: AtomicInnerProduct | None = None,
) -> SupportRecovery:
    """A posteriori: is {j : ⟨x, d_j⟩_S / ‖d_j‖_S > τ_j} the code's support, with the shared thresholds; and is there
    one number τ ≥ 0 for which {j : ⟨x, d_j⟩_S / ‖d_j‖_S > τ} is. In the dtype of x, float32 at least. Time:
    2·samples·d_in·d_sae FLOPs; memory: a few (samples, 256) beside copies of x and of the dictionary in float64.

    Args:
        x: activations less b_dec, or reconstructions less b_dec.
        codes: (samples, d_sae), dense or CSR.
        dictionary: atoms as rows, any norm.
        thresholds: of `shared_thresholds`, from other data.
        metric: Euclidean if None.
    """
    check_codes(codes, dictionary)
    check_vectors(x, dictionary, codes)
    chosen = supports(codes)
    encode, wide = _encoder(x, dictionary, metric), torch.promote_types(x.dtype, torch.float32)
    shared = chosen.sizes > 0
    lowest, highest = torch.full_like(x[:, 0], torch.inf, dtype=wide), torch.zeros_like(x[:, 0], dtype=wide)
    for latents in torch.arange(len(dictionary), device=x.device).split(_TILE):
        z, inside = encode(latents), _members(chosen, latents)
        shared &= ((z > thresholds[latents]) == inside).all(1)
        lowest = torch.minimum(lowest, z.masked_fill(~inside, torch.inf).amin(1))
        highest = torch.maximum(highest, z.masked_fill(inside, 0).amax(1))
    return SupportRecovery(shared, (lowest > highest) & (chosen.sizes > 0))


@torch.no_grad()
@no_autocast()
def refit_codes(
    x: Float[Tensor, "samples d_in"],
    codes: Tensor,
    dictionary: Float[Tensor, "d_sae d_in"],
    metric: AtomicInnerProduct | None = None,
) -> Supports:
    """Codes on the same supports with the values that minimise ‖x − Σ_{j∈Λ} δ_j d_j‖_S: δ_Λ = (D_Λ S D_Λᵀ)⁻¹ D_Λ S x.
    Values may be negative. Batched normal equations in float64; a pseudo-inverse where G_Λ is numerically singular.
    Time O(samples·K²·(K + d_in)); memory (samples, K, K), bounded.

    Args:
        x: activations less b_dec.
        codes: (samples, d_sae), dense or CSR; only the supports matter.
        dictionary: atoms as rows, any norm.
        metric: Euclidean if None.
    """
    check_codes(codes, dictionary)
    check_vectors(x, dictionary, codes)
    chosen = supports(codes)
    unit = unit_rows(dictionary.double(), metric)
    target = _whitened(x.double(), metric)
    values = torch.zeros_like(chosen.values, dtype=torch.float64)
    norms = _norms(dictionary, metric)
    for rows in chosen.by_size(lambda k: k * (k + 64), 2**25):
        part = chosen.take(rows)
        gram, inner = support_grams(unit, part), _inner(unit, part, target[rows])
        values[rows, : inner.shape[1]] = _solve(gram, inner) / norms[part.indices] * part.mask
    return Supports(chosen.indices, chosen.mask, values)


@no_autocast()
def reconstruct(chosen: Supports, dictionary: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "samples d_in"]:
    """Σ_{j∈Λ} δ_j d_j of each sample, in the dictionary's dtype. Time 2·samples·K·d_in; memory of the result."""
    return combine(dictionary, chosen, chosen.values)


def _solve(gram: Tensor, inner: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(gram)
    diagonal = factor.diagonal(dim1=1, dim2=2)
    doubtful = (failed > 0) | (diagonal.amax(1) > diagonal.amin(1) * _LARGEST_CONDITION**0.5)
    factor[doubtful] = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    values = torch.cholesky_solve(inner[:, :, None], factor).squeeze(2)
    if doubtful.any():
        inverse = torch.linalg.pinv(gram[doubtful], hermitian=True, rtol=1 / _LARGEST_CONDITION)
        values[doubtful] = (inverse @ inner[doubtful][:, :, None]).squeeze(2)
    return values


def _inner(unit: Tensor, chosen: Supports, target: Tensor) -> Tensor:
    """⟨u_j, x⟩ of each sample's own atoms, 0 in the padding."""
    inner = target.new_empty(chosen.indices.shape)
    for part, atoms in gathered(unit, chosen.indices):
        torch.matmul(atoms, target[part, :, None], out=inner[part, :, None])
    return inner * chosen.mask


def _encoder(x: Tensor, dictionary: Tensor, metric: AtomicInnerProduct | None) -> Callable[[Tensor], Tensor]:
    """Latents to pre-activations ⟨x, d_j⟩_S / ‖d_j‖_S (samples, latents), in x's dtype, float32 at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    unit, target = unit_rows(dictionary.double(), metric).to(wide), _whitened(x.double(), metric).to(wide)
    return lambda latents: target @ unit[latents].T


def _members(chosen: Supports, latents: Tensor) -> Tensor:
    """Which of a run of latents are in each sample's support (samples, latents)."""
    first, size = int(latents[0]), len(latents)
    rows, slots = (chosen.mask & (chosen.indices >= first) & (chosen.indices < first + size)).nonzero(as_tuple=True)
    inside = torch.zeros(len(chosen.indices), size, dtype=torch.bool, device=latents.device)
    inside[rows, chosen.indices[rows, slots] - first] = True
    return inside


def _whitened(x: Tensor, metric: AtomicInnerProduct | None) -> Tensor:
    return x if metric is None else metric.whiten(x)


def _norms(dictionary: Tensor, metric: AtomicInnerProduct | None) -> Tensor:
    return _whitened(dictionary.double(), metric).norm(dim=1)


def _unit_values(chosen: Supports, dictionary: Tensor, metric: AtomicInnerProduct | None) -> Tensor:
    """The code's values on atoms of unit S-norm, float64."""
    return chosen.values.double() * _norms(dictionary, metric)[chosen.indices]


def _nonnegative(codes: Tensor) -> Supports:
    chosen = supports(codes)
    if (chosen.values < 0).any():
        raise ValueError("Threshold windows are about non-negative codes; these have negative values.")
    return chosen
