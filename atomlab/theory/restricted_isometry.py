"""Restricted isometry (theory.md 4): an interval for δ_K with a witness, since the number itself is NP-hard to find."""

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
    """lower ≤ δ_K ≤ upper. `witness` is the support (K,) that attains `lower`; `exact` says that all supports were
    tried.
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
    """Bounds of the smallest δ with (1−δ)‖a‖² ≤ ‖Σ a_i d_i‖²_S ≤ (1+δ)‖a‖² on all supports of size K, atoms at unit
    S-norm.

    Lower bound: the worst of max(λ_max(G_Λ) − 1, 1 − λ_min(G_Λ)) over `supports`, random ones and ones grown greedily
    from the most coherent pairs, for either end. Upper bound: μ₁(K−1) (Gershgorin), rounded up. Exact where C(n, K) ≤
    enumeration_limit. Float64. For K > d_in, δ_K ≥ 1.

    Time: `coherence_statistics` in float64 if not given, O(tried·K²·(K + d_in)) for eigenvalues, O(starts·K·d_in·d_sae)
    for the greedy search; memory: a float64 copy of the dictionary and (starts, d_sae).

    Args:
        dictionary: atoms as rows, any norm.
        k: K.
        metric: Euclidean if None.
        supports: that should be tried too, such as the data's own (`first_supports`).
        statistics: of this dictionary and metric, if already computed.
        samples: random supports tried.
        starts: atoms from which supports grow, the most coherent ones.
        enumeration_limit: number of supports up to which all are tried.
        generator: of the random supports, on the CPU.

    Raises:
        ValueError: K below 1 or above d_sae.
    """
    n = len(dictionary)
    if not 1 <= k <= n:
        raise ValueError(f"A support of size K={k} is impossible in a dictionary of {n} atoms.")
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
    """δ(Λ) = max(λ_max(G_Λ) − 1, 1 − λ_min(G_Λ)) of each support, from unit atoms (`unit_rows`). Exact in their dtype,
    float32 at least.
    Time O(tried·K²·(K + d_in)); memory: at most 20 million numbers of gathered atoms.
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
    """Supports with one atom more: the one with the largest inner product with the combination of the atoms by the
    extreme eigenvector, which raises λ_max (or lowers λ_min) most to first order.
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
    """The supports of exactly K atoms among padded ones, at most `limit`: what the data itself offers as witnesses.
    Time O(samples), memory of the result.
    """
    rows = (sizes == k).nonzero().squeeze(1).tolist()
    found = [indices[row, :k] for row in islice(rows, limit)]
    return torch.stack(found) if found else indices.new_zeros((0, k))


@final
@dataclass(frozen=True)
class RestrictedIsometryCurve:
    """lower[K] ≤ δ_K ≤ upper[K] for K = 0, 1, ..., k; float64."""

    lower: Float[Tensor, " sizes"]
    upper: Float[Tensor, " sizes"]

    def verdicts(self, sizes: Int[Tensor, " samples"], threshold: float = STABLE_THRESHOLD) -> "IsometryVerdicts":
        """Whether δ_2K < threshold for each sample's K. Beyond the curve's end δ is between its last lower bound and
        infinity; K = 0 is in none of the three.

        At the threshold 1/√2 certified means that ℓ1 recovers every code of K atoms, exactly and stably; at 1 that it
        is the unique sparsest. Failed says that the condition fails, not that recovery does.
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
    """Of each sample (samples,), exactly one if K ≥ 1: the upper bound of δ_2K is below the threshold; a witness has
    δ_2K at or above it; the interval holds the threshold.
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
    """Bounds of δ_0, δ_1, ..., δ_k in one search: supports grow from the most coherent atoms, greedily for either end
    of the spectrum, and at random; every size on the way is a witness, and a lower bound holds for all larger sizes, as
    δ_K does not fall with K. Growth ends where a support has δ ≥ 1. Upper bounds: μ₁(K − 1). Float64.

    Sizes beyond d_sae, which no support has, count as d_sae. Time: 2·d_in·d_sae² and, a size, starts·(d_in·d_sae + K³);
    memory: that of `coherence_statistics` and (starts, d_sae).

    Raises:
        ValueError: k below 0.
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
