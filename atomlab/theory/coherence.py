"""Coherence of a dictionary (theory.md 3): all from tiles of the Gram matrix of unit atoms, never held whole."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.theory.inner_product import AtomicInnerProduct

_BINS = 100_000  # resolution of the pair quantiles: 1e-5
_ROWS = 4096  # atoms whitened at a time


@dataclass(frozen=True)
class CoherenceStatistics:
    """Of G_ij = cos(d_i, d_j), i ≠ j.

    Attributes:
        per_atom: μ_i = max_j |G_ij| (d_sae,).
        babel: μ₁(1), ..., μ₁(k) (k,), float64.
        histogram: ordered pairs with |G_ij| in each of equal bins of [0, 1], int64.
        rounding: a bound of the error of each |G_ij| from the dtype's unit roundoff u, to first order: (d_in + 2) u for
            products of unit atoms that were rounded once. (Float64's own is far below the certificates' margin.)
    """

    per_atom: Tensor
    babel: Tensor
    histogram: Tensor
    rounding: float

    @property
    def coherence(self) -> float:
        """μ = max_i μ_i, as computed."""
        return float(self.per_atom.max())

    @property
    def coherence_bound(self) -> float:
        """An upper bound of μ whatever the rounding: what certificates use."""
        return self.coherence + self.rounding

    def babel_bound(self, k: Int[Tensor, " sizes"]) -> Float[Tensor, " sizes"]:
        """An upper bound of μ₁(k) at each size (0 for k ≤ 0), whatever the rounding; float64. Beyond the end k₀ of the
        curve that of μ₁(k) ≤ μ₁(k₀)·k/k₀.
        """
        curve, end = torch.cat([self.babel.new_zeros(1), self.babel]).to(k.device), len(self.babel)
        return curve[k.clamp(min=0, max=end)] * (k / end).clamp(min=1) + self.rounding * k.clamp(min=0)

    def pair_quantile(self, q: float) -> float:
        """The q-quantile of |G_ij| over pairs, rounded up to its bin's edge (an upper bound within 1e-5), at most μ."""
        return min(float(self.pair_quantiles(torch.tensor([q], dtype=torch.float64))[0]), self.coherence)

    def pair_quantiles(self, q: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The same of several q, float64, not held to μ."""
        cumulative = self.histogram.cumsum(0).double()
        bins = torch.searchsorted(cumulative, q.double() * cumulative[-1]).clamp(max=len(cumulative) - 1)
        return (bins + 1).double() / len(cumulative)


@torch.no_grad()
def unit_rows(
    dictionary: Float[Tensor, "d_sae d_in"], metric: AtomicInnerProduct | None = None
) -> Float[Tensor, "d_sae d_in"]:
    """Atoms in whitened coordinates at unit length: G = U Uᵀ. Float64 in, float64 out; otherwise float32, computed in
    float64 and rounded once, so that an ill-conditioned metric costs no digits. Time 2·d_sae·d_in² float64 FLOPs in a
    metric; memory: the result and 4,096 float64 rows.

    Raises:
        ValueError: NaN or infinite entries, no matrix, or a zero atom.
    """
    if dictionary.ndim != 2 or not torch.isfinite(dictionary).all():
        raise ValueError(
            f"A dictionary should be a finite (d_sae, d_in) matrix; got shape {tuple(dictionary.shape)}, "
            "NaN or infinite entries."
        )
    if metric is not None and dictionary.shape[1] != len(metric.matrix):
        raise ValueError(
            f"The dictionary has atoms of width {dictionary.shape[1]}, the metric of width {len(metric.matrix)}: "
            "use a metric of the same site."
        )
    unit = torch.empty_like(dictionary, dtype=torch.promote_types(dictionary.dtype, torch.float32))
    for start in range(0, len(dictionary), _ROWS):
        rows = dictionary[start : start + _ROWS].double()
        rows = rows if metric is None else metric.whiten(rows)
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        if not norms.all():
            zero = start + int((norms == 0).nonzero()[0, 0])
            raise ValueError(f"Atom {zero} of the dictionary is zero and has no direction: leave it out.")
        unit[start : start + _ROWS] = rows / norms
    return unit


@torch.no_grad()
@no_autocast()
def coherence_statistics(
    dictionary: Float[Tensor, "d_sae d_in"], metric: AtomicInnerProduct | None = None, *, k: int = 64, block: int = 2048
) -> CoherenceStatistics:
    """Per-atom coherence, Babel function up to k and the distribution over pairs, from one pass over half of the Gram
    matrix in tiles.

    Exact up to `rounding`. Time: that of `unit_rows`, d_in·d_sae² FLOPs in the dictionary's dtype and a few operations
    a pair; memory: a copy of the dictionary, (d_sae, k) and a few (block, block).

    Raises:
        ValueError: fewer than two atoms, or what `unit_rows` refuses.
    """
    unit = unit_rows(dictionary, metric)
    n = len(unit)
    if n < 2:
        raise ValueError(f"Coherence is about pairs of atoms: the dictionary has {n}.")
    asked, k = k, min(k, n - 1)
    top = unit.new_full((n, k), -1)  # an atom is no pair with itself; -1 falls below every other
    histogram = torch.zeros(_BINS, dtype=torch.int64)
    for rows, columns in _tiles(n, block):
        tile = (unit[rows] @ unit[columns].T).abs_().clamp_(max=1)
        if rows == columns:
            histogram += _histogram(tile.fill_diagonal_(0))
            histogram[0] -= len(tile)
            tile.fill_diagonal_(-1)
        else:
            histogram += 2 * _histogram(tile)
            top[columns] = _with_larger(top[columns], tile, 1)
        top[rows] = _with_larger(top[rows], tile, 0)
    top = top.sort(dim=1, descending=True).values
    babel = top.double().cumsum(1).amax(0).cpu()
    babel = torch.cat([babel, babel[-1:].expand(asked - k)])  # no atom has more than n − 1 others
    rounding = (unit.shape[1] + 2) * torch.finfo(unit.dtype).eps / 2
    return CoherenceStatistics(top[:, 0].clone(), babel, histogram, rounding)


def _tiles(n: int, block: int) -> list[tuple[slice, slice]]:
    """Of the upper half of an (n, n) matrix, diagonal included."""
    parts = [slice(start, min(start + block, n)) for start in range(0, n, block)]
    return [(rows, columns) for i, rows in enumerate(parts) for columns in parts[i:]]


def _histogram(tile: Tensor) -> Tensor:
    bins = tile.mul(_BINS).int().clamp_(max=_BINS - 1)
    return torch.bincount(bins.flatten(), minlength=_BINS).cpu()


def _with_larger(top: Float[Tensor, "atoms k"], tile: Tensor, dim: int) -> Float[Tensor, "atoms k"]:
    """The k largest of each atom's k so far and of its entries in a tile (its rows, or columns with dim 1), in no
    order. Few entries beat the least of the k once some tiles were seen: one comparison finds them, and a whole tile is
    sorted only where many do.
    """
    least = top.amin(1)
    if least.amax() < 0:  # the first tile
        return _largest(top, tile if dim == 0 else tile.T)
    found = _true(tile > (least[:, None] if dim == 0 else least))
    atoms, entries = found[dim], tile[found]
    if len(atoms) == 0:
        return top
    if len(atoms) > tile.numel() // 16:
        return _largest(top, tile if dim == 0 else tile.T)
    if dim:
        atoms, order = atoms.sort(stable=True)
        entries = entries[order]
    counts = torch.bincount(atoms, minlength=len(top))
    slots = torch.arange(len(atoms), device=atoms.device) - (counts.cumsum(0) - counts)[atoms]
    better = top.new_full((len(top), int(counts.max())), -1)
    better[atoms, slots] = entries
    return _largest(top, better)


def _largest(top: Tensor, others: Tensor) -> Tensor:
    return torch.cat([top, others], dim=1).topk(top.shape[1], dim=1, sorted=False).values


def _true(mask: Tensor) -> tuple[Tensor, Tensor]:
    """`mask.nonzero(as_tuple=True)`, eight at a time where that divides the width: faster where few are true."""
    width = mask.shape[1]
    if width % 8:
        rows, columns = mask.nonzero(as_tuple=True)
        return rows, columns
    words = mask.view(torch.int64).flatten().nonzero().squeeze(1)
    word, place = mask.view(-1, 8)[words].nonzero(as_tuple=True)
    flat = words[word] * 8 + place
    rows = flat.div(width, rounding_mode="floor")
    return rows, flat - rows * width


def mutual_coherence(dictionary: Float[Tensor, "d_sae d_in"], metric: AtomicInnerProduct | None = None) -> float:
    """μ = max_{i≠j} |cos(d_i, d_j)|, exact. Time and memory: those of `coherence_statistics`.

    >>> mutual_coherence(torch.eye(3))
    0.0
    """
    return coherence_statistics(dictionary, metric, k=1).coherence


def per_atom_coherence(
    dictionary: Float[Tensor, "d_sae d_in"], metric: AtomicInnerProduct | None = None
) -> Float[Tensor, " d_sae"]:
    """μ_i = max_{j≠i} |cos(d_i, d_j)|, exact. Time and memory: those of `coherence_statistics`."""
    return coherence_statistics(dictionary, metric, k=1).per_atom


def babel_function(dictionary: Float[Tensor, "d_sae d_in"], k: int, metric: AtomicInnerProduct | None = None) -> float:
    """μ₁(k) = max_i Σ (k largest |G_ij|, j ≠ i), exact (Tropp 2004); μ₁(0) = 0; k beyond d_sae − 1 counts all others.
    Time and memory: those of `coherence_statistics`.

    Raises:
        ValueError: k below 0.
    """
    if k < 0:
        raise ValueError(f"The Babel function needs k of 0 or more, got {k}.")
    return float(coherence_statistics(dictionary, metric, k=k).babel[-1]) if k else 0.0


def welch_bound(d_sae: int, d_in: int) -> float:
    """√((n − d) / (d (n − 1))): no dictionary of n = d_sae unit atoms has a smaller μ; 0 for n ≤ d (Welch 1974). Time
    and memory O(1).

    >>> welch_bound(4, 3) == 1 / 3
    True
    """
    return math.sqrt(max(0, d_sae - d_in) / (d_in * (d_sae - 1))) if d_sae > 1 else 0.0
