"""What a one-step threshold encoder can identify (theory.md 6).

The encoder has W_enc = S W_decᵀ and atoms of unit S-norm, so the pre-activations of x = Σ δ_j d_j are δ_j + Σ_{i≠j}
G_ij δ_i. Here x stands for an activation, or its reconstruction, less the bias b_dec.
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
_SORTED = 2**18  # numbers sorted at a time, few enough to stay in cache with their running counts
_LARGEST_CONDITION = 1e12  # of a support's Gram matrix, beyond which values are refitted by a pseudo-inverse


@final
@dataclass(frozen=True)
class ThresholdWindows:
    """The open interval of thresholds that are guaranteed to recover each sample's support; NaN for K = 0.

    Attributes:
        lower: ε K δ_max, shape `(samples,)`, float64.
        upper: δ_min − ε (K − 1) δ_max, shape `(samples,)`, float64.
    """

    lower: Float[Tensor, " samples"]
    upper: Float[Tensor, " samples"]

    @property
    def feasible(self) -> Bool[Tensor, " samples"]:
        """Whether a window holds a threshold, δ_min > ε (2K − 1) δ_max, shape `(samples,)`; False for K = 0."""
        return self.lower < self.upper


@final
@dataclass(frozen=True)
class SupportRecovery:
    """Whether the support that the one-step encoder finds is that of the code; False for K = 0.

    Attributes:
        shared: with the one threshold vector that all samples share, shape `(samples,)`.
        oracle: with the best single threshold ≥ 0 for this sample and all latents, shape `(samples,)`; an upper bound
            of what one threshold for all latents can do.
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
    """Computes, before any encoding, the thresholds ε K δ_max < τ < δ_min − ε (K − 1) δ_max that recover each support.

    δ are the values on atoms of unit S-norm and ε = μ is the coherence. The condition is sufficient, not necessary.
    Time and memory: O(nonzeros), beside the norms of the atoms and, if it is not given, the coherence.

    Args:
        codes: non-negative codes of shape `(samples, d_sae)`, dense or CSR.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        metric: inner product of the encoder; Euclidean if None.
        coherence: upper bound of μ of this dictionary and metric; computed if None.

    Returns:
        The windows; a threshold within one certainly recovers the support, one outside it may.

    Raises:
        ValueError: the codes do not fit the dictionary or have negative, NaN or infinite values, or
            `coherence_statistics` refuses the dictionary.
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
    """Chooses for each latent the threshold τ_j ≥ 0 with the fewest samples on which [z_j > τ_j] ≠ [j ∈ Λ].

    It lies midway between the neighbouring pre-activations; of equally good intervals the highest is taken. This
    minimises the sum of errors over latents, which bounds the number of samples with a wrong support from above. Choose
    thresholds on training data. Time: 2·samples·d_in·d_sae FLOPs and a sort of samples·d_sae numbers. Memory: a dozen
    arrays of 2¹⁸ numbers (or of 16·samples, if that is more) beside float64 copies of x and of the dictionary.

    Args:
        x: activations or reconstructions, less b_dec, shape `(samples, d_in)`.
        codes: codes with the supports to recover, shape `(samples, d_sae)`, dense or CSR.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        metric: inner product of the encoder; Euclidean if None.

    Returns:
        τ, shape `(d_sae,)`, in the dtype of x (float32 at least), infinite for a latent in no support; an exact
        optimum.

    Raises:
        ValueError: vectors, codes and dictionary do not fit together, or one of them is not finite.
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
    # Sorting contiguous rows is faster than sorting columns.
    z, order = z.T.contiguous().clamp(min=0).sort(dim=1, stable=True)
    inside = inside.T.gather(1, order)
    zero = inside.new_zeros((len(inside), 1), dtype=torch.int64)
    missed = torch.cat([zero, inside.cumsum(1)], 1)  # members of the support among the i smallest pre-activations
    below = torch.cat([zero, (~inside).cumsum(1)], 1)
    errors = missed + below[:, -1:] - below
    # A threshold is at least 0 and cannot separate equal values.
    edges = torch.cat([z.new_zeros(len(z), 1), z, z.new_full((len(z), 1), torch.inf)], 1)
    possible = edges[:, 1:] > edges[:, :-1]
    # The highest interval with the fewest errors.
    best = errors.masked_fill(~possible, torch.iinfo(torch.int64).max).flip(1).argmin(1)
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
    """Finds out on which samples the one-step encoder recovers the support of the code.

    With z_j = ⟨x, d_j⟩_S / ‖d_j‖_S: `shared` says whether {j : z_j > τ_j} is the support, and `oracle` whether {j : z_j
    > τ} is for some single number τ ≥ 0. Time: 2·samples·d_in·d_sae FLOPs. Memory: a few arrays of shape `(samples,
    256)` beside float64 copies of x and of the dictionary.

    Args:
        x: activations or reconstructions, less b_dec, shape `(samples, d_in)`.
        codes: codes of shape `(samples, d_sae)`, dense or CSR.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        thresholds: τ from `shared_thresholds` on other data, shape `(d_sae,)`.
        metric: inner product of the encoder; Euclidean if None.

    Returns:
        Both verdicts for each sample; exact up to rounding of the dtype of x (float32 at least).

    Raises:
        ValueError: vectors, codes and dictionary do not fit together, or one of them is not finite.
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
    """Refits the values of each code on its own support by least squares: δ_Λ = (D_Λ S D_Λᵀ)⁻¹ D_Λ S x.

    They minimise ‖x − Σ_{j∈Λ} δ_j d_j‖_S and may be negative. The normal equations are solved in float64 in batches, by
    a pseudo-inverse where G_Λ is numerically singular. Time: O(samples·K²·(K + d_in)). Memory: O(samples·K²), up to 256
    MB at a time.

    Args:
        x: activations less b_dec, shape `(samples, d_in)`.
        codes: codes of shape `(samples, d_sae)`, dense or CSR; only their supports matter.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        metric: inner product of the error; Euclidean if None.

    Returns:
        The same supports with float64 values, for the dictionary as given; exact up to rounding.

    Raises:
        ValueError: vectors, codes and dictionary do not fit together, or one of them is not finite.
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
    """Computes the reconstruction Σ_{j∈Λ} δ_j d_j of each code.

    Time: 2·samples·K·d_in FLOPs. Memory: the result and a few megabytes of gathered atoms.

    Args:
        chosen: codes as padded supports.
        dictionary: atoms as rows, shape `(d_sae, d_in)`.

    Returns:
        Reconstructions without b_dec, shape `(samples, d_in)`, in the dtype of the dictionary.
    """
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
    """Computes ⟨u_j, x⟩ for the atoms of each sample's support, 0 in the padding."""
    inner = target.new_empty(chosen.indices.shape)
    for part, atoms in gathered(unit, chosen.indices):
        torch.matmul(atoms, target[part, :, None], out=inner[part, :, None])
    return inner * chosen.mask


def _encoder(x: Tensor, dictionary: Tensor, metric: AtomicInnerProduct | None) -> Callable[[Tensor], Tensor]:
    """Returns the function from latents to pre-activations ⟨x, d_j⟩_S / ‖d_j‖_S, shape (samples, latents), in x's dtype
    (float32 at least).
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    unit, target = unit_rows(dictionary.double(), metric).to(wide), _whitened(x.double(), metric).to(wide)
    return lambda latents: target @ unit[latents].T


def _members(chosen: Supports, latents: Tensor) -> Tensor:
    """Finds out which of a run of consecutive latents are in each sample's support, shape (samples, latents)."""
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
    """Computes the values of the code on atoms of unit S-norm, float64."""
    return chosen.values.double() * _norms(dictionary, metric)[chosen.indices]


def _nonnegative(codes: Tensor) -> Supports:
    chosen = supports(codes)
    if (chosen.values < 0).any():
        raise ValueError(
            f"Threshold windows need non-negative codes, but the smallest value is {chosen.values.min():.3g}, which is "
            "negative: use codes of a threshold encoder."
        )
    return chosen
