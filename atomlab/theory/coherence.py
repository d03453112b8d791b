"""Coherence of a dictionary (theory.md 3), computed from tiles of the Gram matrix of unit atoms, which is never held
whole.
"""

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
    """Statistics of the cosines G_ij = cos(d_i, d_j) over pairs of distinct atoms.

    Attributes:
        per_atom: μ_i = max_{j≠i} |G_ij|, shape `(d_sae,)`.
        babel: the Babel function μ₁(1), ..., μ₁(k), shape `(k,)`, float64.
        histogram: number of ordered pairs with |G_ij| in each of 100,000 equal bins of [0, 1], int64.
        rounding: bound of the error of each |G_ij|, to first order (d_in + 2)·u, with u the unit roundoff of the dtype
            and atoms that were rounded once. (That of float64 is far below the certificates' margin.)
    """

    per_atom: Tensor
    babel: Tensor
    histogram: Tensor
    rounding: float

    @property
    def coherence(self) -> float:
        """Mutual coherence μ = max_i μ_i, as computed: exact up to `rounding`."""
        return float(self.per_atom.max())

    @property
    def coherence_bound(self) -> float:
        """Upper bound of μ whatever the rounding; this is what certificates use."""
        return self.coherence + self.rounding

    def babel_bound(self, k: Int[Tensor, " sizes"]) -> Float[Tensor, " sizes"]:
        """Bounds the Babel function μ₁(k) from above, whatever the rounding.

        Beyond the end k₀ of the curve the bound is that of μ₁(k) ≤ μ₁(k₀)·k/k₀.

        Args:
            k: numbers of atoms, shape `(sizes,)`, integers.

        Returns:
            An upper bound of μ₁ at each k, shape `(sizes,)`, float64; 0 for k ≤ 0.
        """
        curve, end = torch.cat([self.babel.new_zeros(1), self.babel]).to(k.device), len(self.babel)
        return curve[k.clamp(min=0, max=end)] * (k / end).clamp(min=1) + self.rounding * k.clamp(min=0)

    def pair_quantile(self, q: float) -> float:
        """Computes the q-quantile of |G_ij| over pairs, rounded up to the edge of its bin, but to μ at most.

        Args:
            q: share of the pairs, in [0, 1].

        Returns:
            An upper bound of the quantile that exceeds it by at most 1e-5.
        """
        return min(float(self.pair_quantiles(torch.tensor([q], dtype=torch.float64))[0]), self.coherence)

    def pair_quantiles(self, q: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Computes several quantiles of |G_ij| over pairs, each rounded up to the edge of its bin, even if that is
        above μ.

        Args:
            q: shares of the pairs, shape `(n,)`, in [0, 1].

        Returns:
            Upper bounds of the quantiles, shape `(n,)`, float64, each at most 1e-5 above the quantile.
        """
        cumulative = self.histogram.cumsum(0).double()
        bins = torch.searchsorted(cumulative, q.double() * cumulative[-1]).clamp(max=len(cumulative) - 1)
        return (bins + 1).double() / len(cumulative)


@torch.no_grad()
def unit_rows(
    dictionary: Float[Tensor, "d_sae d_in"], metric: AtomicInnerProduct | None = None
) -> Float[Tensor, "d_sae d_in"]:
    """Whitens the atoms and scales them to unit length, so that G = U Uᵀ.

    They are computed in float64 and rounded once, so an ill-conditioned metric costs no digits. Time: 2·d_sae·d_in²
    float64 FLOPs in a metric. Memory: the result and 4,096 float64 rows.

    Args:
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        metric: inner product in which atoms get unit norm; Euclidean if None.

    Returns:
        U, shape `(d_sae, d_in)`, in the dtype of the dictionary or float32 if that is narrower.

    Raises:
        ValueError: the dictionary is not a matrix, has NaN or infinite entries or an atom that is zero, or the metric
            has another width.
    """
    if dictionary.ndim != 2:
        raise ValueError(
            f"A dictionary should be a (d_sae, d_in) matrix, got shape {tuple(dictionary.shape)}: reshape it."
        )
    if not torch.isfinite(dictionary).all():
        raise ValueError("The dictionary has NaN or infinite entries: check the training that it comes from.")
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
    """Computes per-atom coherence, the Babel function up to k and the distribution of |G_ij| over pairs of atoms.

    One pass goes over the tiles of half of the Gram matrix. Time: that of `unit_rows`, d_in·d_sae² FLOPs in the
    dictionary's dtype and a few operations a pair. Memory: a copy of the dictionary, `(d_sae, k)` and a few `(block,
    block)` arrays.

    Args:
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        metric: inner product of the cosines; Euclidean if None.
        k: length of the Babel function; beyond d_sae − 1 it repeats its last value.
        block: rows and columns of a tile.

    Returns:
        The statistics, exact up to their `rounding`, by which a pair may also fall into the bin next to its own.

    Raises:
        ValueError: there are fewer than two atoms, or `unit_rows` refuses the dictionary.
    """
    unit = unit_rows(dictionary, metric)
    n = len(unit)
    if n < 2:
        raise ValueError(f"Coherence is defined for pairs of atoms, but the dictionary has {n}: give at least 2 atoms.")
    asked, k = k, min(k, n - 1)
    top = unit.new_full((n, k), -1)  # -1 is below every |cosine|; an atom forms no pair with itself
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
    """Lists the (rows, columns) tiles of the upper half of an (n, n) matrix, diagonal included."""
    parts = [slice(start, min(start + block, n)) for start in range(0, n, block)]
    return [(rows, columns) for i, rows in enumerate(parts) for columns in parts[i:]]


def _histogram(tile: Tensor) -> Tensor:
    bins = tile.mul(_BINS).int().clamp_(max=_BINS - 1)
    return torch.bincount(bins.flatten(), minlength=_BINS).cpu()


def _with_larger(top: Float[Tensor, "atoms k"], tile: Tensor, dim: int) -> Float[Tensor, "atoms k"]:
    """Updates the k largest entries of each atom, in no order, with a tile whose rows (or, with dim 1, columns) are the
    atoms.

    After a few tiles, few entries exceed the smallest of an atom's k. One comparison finds them, and a whole tile is
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
    """Computes `mask.nonzero(as_tuple=True)`, reading eight entries at once where the width allows it: faster where few
    are true.
    """
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
    """Computes the mutual coherence μ = max_{i≠j} |cos(d_i, d_j)| of a dictionary.

    Time and memory: those of `coherence_statistics`.

    Args:
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        metric: inner product of the cosines; Euclidean if None.

    Returns:
        μ in [0, 1]; exact up to rounding of the dictionary's dtype.

    Raises:
        ValueError: there are fewer than two atoms, or `unit_rows` refuses the dictionary.

    >>> mutual_coherence(torch.eye(3))
    0.0
    """
    return coherence_statistics(dictionary, metric, k=1).coherence


def per_atom_coherence(
    dictionary: Float[Tensor, "d_sae d_in"], metric: AtomicInnerProduct | None = None
) -> Float[Tensor, " d_sae"]:
    """Computes the coherence μ_i = max_{j≠i} |cos(d_i, d_j)| of each atom.

    Time and memory: those of `coherence_statistics`.

    Args:
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        metric: inner product of the cosines; Euclidean if None.

    Returns:
        μ_i in [0, 1], shape `(d_sae,)`, in the dictionary's dtype (float32 at least); exact up to its rounding.

    Raises:
        ValueError: there are fewer than two atoms, or `unit_rows` refuses the dictionary.
    """
    return coherence_statistics(dictionary, metric, k=1).per_atom


def babel_function(dictionary: Float[Tensor, "d_sae d_in"], k: int, metric: AtomicInnerProduct | None = None) -> float:
    """Computes the Babel function μ₁(k) = max_i Σ (k largest |G_ij|, j ≠ i) (Tropp 2004).

    Time and memory: those of `coherence_statistics`.

    Args:
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        k: number of other atoms; μ₁(0) = 0, and beyond d_sae − 1 all others count.
        metric: inner product of the cosines; Euclidean if None.

    Returns:
        μ₁(k); exact up to rounding of the dictionary's dtype.

    Raises:
        ValueError: k is below 0, there are fewer than two atoms, or `unit_rows` refuses the dictionary.
    """
    if k < 0:
        raise ValueError(f"The Babel function needs k of 0 or more, got {k}.")
    return float(coherence_statistics(dictionary, metric, k=k).babel[-1]) if k else 0.0


def welch_bound(d_sae: int, d_in: int) -> float:
    """Computes the Welch bound √((n − d) / (d (n − 1))), a lower bound of the coherence of any n unit atoms.

    Time and memory: O(1). Source: Welch 1974.

    Args:
        d_sae: number n of atoms.
        d_in: width d of the atoms.

    Returns:
        A lower bound of μ; 0 for n ≤ d.

    >>> welch_bound(4, 3) == 1 / 3
    True
    """
    return math.sqrt(max(0, d_sae - d_in) / (d_in * (d_sae - 1))) if d_sae > 1 else 0.0
