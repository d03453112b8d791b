"""Restricted isometry (theory.md 4): an interval for δ_K with a witness, since the number itself is NP-hard to find."""

import math
from dataclasses import dataclass
from itertools import combinations, islice

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.theory.coherence import CoherenceStatistics, coherence_statistics, unit_rows
from atomlab.theory.inner_product import AtomicInnerProduct


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
        chosen = with_next_atom(chosen, unit, top)
    return chosen


def with_next_atom(chosen: Tensor, unit: Tensor, top: bool) -> Tensor:
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
