"""Restricted isometry constants δ_K of a dictionary (theory.md 4), as intervals with a witness: to find δ_K is NP-hard.

`restricted_isometry_bounds` is about one size K; `restricted_isometry_curve` is about every size at once, and says what
δ_2K decides for codes of each size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations, islice
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.theory.certificates import MARGIN
from atomlab.theory.coherence import CoherenceStatistics, coherence_statistics, unit_rows
from atomlab.theory.inner_product import AtomicInnerProduct

UNIQUE_THRESHOLD = 1.0  # δ_2K below it: the K-sparse code is the unique sparsest one
STABLE_THRESHOLD = 0.5**0.5  # δ_2K below it: ℓ1 recovery is exact and stable (Cai & Zhang 2014)


@final
@dataclass(frozen=True)
class RestrictedIsometryBounds:
    """An interval that holds the restricted isometry constant: lower ≤ δ_K ≤ upper.

    Attributes:
        lower: δ(Λ) of the witness, float64.
        upper: upper bound of δ_K, float64.
        witness: the support of K latents that attains `lower`, shape `(K,)`, int64.
        exact: whether all supports were tried, so that both bounds are δ_K.
    """

    lower: float
    upper: float
    witness: Int[Tensor, " k"]
    exact: bool


@torch.no_grad()
@no_autocast()
def restricted_isometry_bounds(
    dictionary: Float[Tensor, "d_sae d_in"],
    k: int,
    metric: AtomicInnerProduct | None = None,
    *,
    supports: Int[Tensor, "tried k"] | None = None,
    statistics: CoherenceStatistics | None = None,
    samples: int = 512,
    starts: int = 32,
    enumeration_limit: int = 20_000,
    generator: torch.Generator | None = None,
) -> RestrictedIsometryBounds:
    """Bounds δ_K, the smallest δ with (1−δ)‖a‖² ≤ ‖Σ a_i d_i‖²_S ≤ (1+δ)‖a‖² on all supports of size K.

    Atoms have unit S-norm. The lower bound is the largest δ(Λ) = max(λ_max(G_Λ) − 1, 1 − λ_min(G_Λ)) over given
    supports, random ones, and ones grown greedily from the most coherent atoms for either end of the spectrum. The
    upper bound is the Babel function μ₁(K−1) (Gershgorin), rounded up. All supports are tried where C(n, K) ≤
    `enumeration_limit`. For K > d_in, δ_K ≥ 1.

    Time: float64 `coherence_statistics` if not given, O(tried·K²·(K + d_in)) for eigenvalues, O(starts·K·d_in·d_sae)
    for the greedy search. Memory: a float64 copy of the dictionary and an array of shape `(starts, d_sae)`.

    Args:
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        k: K, the size of the supports.
        metric: inner product of the norms; Euclidean if None.
        supports: further supports to try, shape `(tried, K)`, such as those of the data (`first_supports`); none if
            None.
        statistics: coherence statistics of this dictionary and metric; computed if None.
        samples: number of random supports to try.
        starts: number of atoms, the most coherent ones, from which supports grow.
        enumeration_limit: number of supports up to which all are tried.
        generator: source of the random supports, on the CPU; the global one if None.

    Returns:
        Lower and upper bound in float64, with a witness of the lower one.

    Raises:
        ValueError: K is below 1 or above d_sae, or `unit_rows` refuses the dictionary.
    """
    n = len(dictionary)
    if not 1 <= k <= n:
        raise ValueError(f"A support of size K={k} is impossible in a dictionary of {n} atoms: use 1 to {n}.")
    unit = unit_rows(dictionary.double(), metric)
    if k == 1:
        return RestrictedIsometryBounds(0.0, 0.0, torch.zeros(1, dtype=torch.int64, device=unit.device), exact=True)
    if math.comb(n, k) <= enumeration_limit:
        lower, witness = _worst(unit, torch.tensor(list(combinations(range(n), k)), device=unit.device))
        return RestrictedIsometryBounds(lower, lower, witness, exact=True)
    statistics = statistics or coherence_statistics(unit, k=k - 1)
    tried = [torch.stack([torch.randperm(n, generator=generator)[:k] for _ in range(samples)]).to(unit.device)]
    tried += [_grow(unit, statistics.per_atom.topk(min(starts, n)).indices, k, top) for top in (True, False)]
    if supports is not None:
        tried.append(supports.to(unit.device))
    lower, witness = _worst(unit, torch.cat(tried))
    upper = float(statistics.babel_bound(torch.tensor([k - 1])))
    return RestrictedIsometryBounds(lower, max(lower, upper), witness, exact=False)


@no_autocast()
def isometry_constants(unit: Float[Tensor, "d_sae d_in"], supports: Int[Tensor, "tried k"]) -> Float[Tensor, " tried"]:
    """Computes δ(Λ) = max(λ_max(G_Λ) − 1, 1 − λ_min(G_Λ)) of each support.

    Time: O(tried·K²·(K + d_in)). Memory: at most 20 million numbers of gathered atoms.

    Args:
        unit: atoms of unit length as rows, shape `(d_sae, d_in)`, as `unit_rows` gives them.
        supports: latents of each support, shape `(tried, K)`.

    Returns:
        δ(Λ), shape `(tried,)`, exact up to rounding of the dtype of `unit` (float32 at least), in which it is computed.
    """
    unit, parts = unit.to(torch.promote_types(unit.dtype, torch.float32)), []
    for part in supports.split(max(1, 20_000_000 // (supports.shape[1] * unit.shape[1]))):
        atoms = unit[part]
        values = torch.linalg.eigvalsh(atoms @ atoms.mT)
        parts.append(torch.maximum(values[:, -1] - 1, 1 - values[:, 0]))
    return torch.cat(parts)


def _worst(unit: Tensor, supports: Tensor) -> tuple[float, Tensor]:
    constants = isometry_constants(unit, supports)
    worst = int(constants.argmax())
    return max(0.0, float(constants[worst])), supports[worst]


def _grow(unit: Tensor, starts: Tensor, k: int, top: bool) -> Tensor:
    chosen = starts[:, None]
    while chosen.shape[1] < k:
        chosen = _with_next_atom(chosen, unit, top)
    return chosen


def _with_next_atom(chosen: Tensor, unit: Tensor, top: bool) -> Tensor:
    """Adds one atom to each support: the one that, to first order, raises λ_max (or lowers λ_min) most.

    It has the largest inner product with the combination of the atoms by the extreme eigenvector.
    """
    atoms = unit[chosen]
    _, vectors = torch.linalg.eigh(atoms @ atoms.mT)
    direction = (vectors[:, :, -1 if top else 0, None] * atoms).sum(1)
    scores = (direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-12) @ unit.T).abs()
    scores.scatter_(1, chosen, -1)
    return torch.cat([chosen, scores.argmax(1, keepdim=True)], dim=1)


def first_supports(
    indices: Int[Tensor, "samples k_max"], sizes: Int[Tensor, " samples"], k: int, limit: int = 512
) -> Int[Tensor, "tried k"]:
    """Selects the supports of exactly K atoms among padded ones: the witnesses that the data itself offers.

    Time: O(samples). Memory: the result.

    Args:
        indices: padded latents, shape `(samples, k_max)`, as in `Supports`.
        sizes: size of each support, shape `(samples,)`.
        k: K.
        limit: the most supports to return; the first ones are taken.

    Returns:
        Supports, shape `(found, K)`; `(0, K)` if there is none.
    """
    rows = (sizes == k).nonzero().squeeze(1).tolist()
    found = [indices[row, :k] for row in islice(rows, limit)]
    return torch.stack(found) if found else indices.new_zeros((0, k))


@final
@dataclass(frozen=True)
class RestrictedIsometryCurve:
    """Bounds of the restricted isometry constants of all sizes: lower[K] ≤ δ_K ≤ upper[K] for K = 0, 1, ..., k.

    Attributes:
        lower: lower bounds, shape `(k + 1,)`, float64; they do not fall with K.
        upper: upper bounds, shape `(k + 1,)`, float64.
    """

    lower: Float[Tensor, " sizes"]
    upper: Float[Tensor, " sizes"]

    def verdicts(self, sizes: Int[Tensor, " samples"], threshold: float = STABLE_THRESHOLD) -> "IsometryVerdicts":
        """Decides for each sample's K whether δ_2K < threshold.

        Below 1/√2, ℓ1 minimisation recovers every code of K atoms, exactly and stably (Cai and Zhang 2014); below 1,
        such a code is the unique sparsest one. Beyond the end of the curve, δ lies between the last lower bound and
        infinity.

        Args:
            sizes: K of each sample, shape `(samples,)`.
            threshold: the number that δ_2K should be below.

        Returns:
            Three verdicts, of which exactly one holds if K ≥ 1 and none if K = 0. A failed sample fails the condition,
            which does not mean that its recovery fails.
        """
        end = len(self.lower) - 1
        doubled, beyond = (2 * sizes).clamp(max=end).to(self.lower.device), 2 * sizes > end
        lower = self.lower[doubled].to(sizes.device)
        upper = self.upper[doubled].to(sizes.device).masked_fill(beyond, torch.inf)
        alive = sizes > 0
        certified, failed = alive & (upper < threshold - MARGIN), alive & (lower >= threshold)
        return IsometryVerdicts(certified, failed, alive & ~certified & ~failed)


@final
@dataclass(frozen=True)
class IsometryVerdicts:
    """Verdicts on δ_2K < threshold for each sample, of which exactly one holds if K ≥ 1 and none if K = 0.

    Attributes:
        certified: the upper bound of δ_2K is below the threshold by more than `MARGIN`, shape `(samples,)`.
        failed: a witness has δ_2K at or above the threshold, shape `(samples,)`.
        undecided: the interval holds the threshold, shape `(samples,)`.
    """

    certified: Bool[Tensor, " samples"]
    failed: Bool[Tensor, " samples"]
    undecided: Bool[Tensor, " samples"]


@torch.no_grad()
@no_autocast()
def restricted_isometry_curve(
    dictionary: Float[Tensor, "d_sae d_in"],
    k: int,
    metric: AtomicInnerProduct | None = None,
    *,
    samples: int = 64,
    starts: int = 32,
    generator: torch.Generator | None = None,
) -> RestrictedIsometryCurve:
    """Bounds δ_0, δ_1, ..., δ_k in one search over supports that grow.

    Supports grow from the most coherent atoms, greedily for either end of the spectrum, and at random. Every size on
    the way is a witness, and a lower bound holds for all larger sizes, since δ_K does not fall with K. Growth ends
    where a support has δ ≥ 1. Upper bounds are the Babel function μ₁(K − 1), rounded up. Sizes beyond d_sae, which no
    support has, count as d_sae.

    Time: 2·d_in·d_sae² float64 FLOPs and, for each size, starts·(d_in·d_sae + K³). Memory: that of
    `coherence_statistics` and an array of shape `(starts, d_sae)`.

    Args:
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        k: the largest size.
        metric: inner product of the norms; Euclidean if None.
        samples: number of random supports that grow.
        starts: number of atoms, the most coherent ones, from which supports grow greedily.
        generator: source of the random supports, on the CPU; the global one if None.

    Returns:
        Lower and upper bounds of every size, float64.

    Raises:
        ValueError: k is below 0, there are fewer than two atoms, or `unit_rows` refuses the dictionary.
    """
    if k < 0:
        raise ValueError(f"A support of size K={k} is impossible: use 0 or more.")
    unit = unit_rows(dictionary.double(), metric)
    n, d = unit.shape
    statistics = coherence_statistics(unit, k=max(1, k - 1))
    lower = torch.zeros(k + 1, dtype=torch.float64)
    lower[min(n, d) + 1 :] = float(n > d)  # more atoms than dimensions are dependent
    seeds = statistics.per_atom.topk(min(starts, n)).indices[:, None]
    drawn = torch.stack([torch.randperm(n, generator=generator)[:k] for _ in range(samples)]).to(seeds)
    for grow in (partial(_with_next_atom, unit=unit, top=True), partial(_with_next_atom, unit=unit, top=False)):
        _raise_bounds(lower, unit, seeds, grow)
    _raise_bounds(lower, unit, drawn[:, :1], lambda chosen: drawn[:, : chosen.shape[1] + 1])
    lower = lower.cummax(0).values
    upper = statistics.babel_bound(torch.arange(-1, k))
    return RestrictedIsometryCurve(lower, torch.maximum(upper, lower))


def _raise_bounds(lower: Tensor, unit: Tensor, chosen: Tensor, grow: Callable[[Tensor], Tensor]) -> None:
    end = min(len(lower) - 1, len(unit))
    while chosen.shape[1] < end and lower[chosen.shape[1]] < 1:
        chosen = grow(chosen)
        size = chosen.shape[1]
        lower[size] = max(float(lower[size]), float(isometry_constants(unit, chosen).max()))
