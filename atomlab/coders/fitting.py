"""Fits non-negative values on given supports, in the coordinates in which the metric is Euclidean and atoms have unit
length.

The other files of the room keep the codes of these unit atoms from stage to stage, and turn them into codes of the
dictionary as given at their end.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.coders.nonnegative_least_squares import nonnegative_least_squares
from atomlab.sae.ops import decode_csr
from atomlab.sae.sparse_code import csr, entry_rows
from atomlab.theory import AtomicInnerProduct, Supports, supports

_ROWS = 512  # atoms whitened at a time
_GATHERED = 2**18  # numbers of gathered atoms at a time, so that they are read again from cache
_SOLVED = 2**19  # numbers of the Gram matrices that are solved at a time


@final
@dataclass(frozen=True)
class UnitAtoms:
    """A dictionary in whitened coordinates, with atoms of unit length.

    Attributes:
        rows: W d_j / ‖d_j‖_S, shape `(d_sae, d_in)`; an atom that is zero stays zero.
        norms: ‖d_j‖_S, shape `(d_sae,)`, float64.
        metric: S; None means Euclidean, W = I.
    """

    rows: Float[Tensor, "d_sae d_in"]
    norms: Float[Tensor, " d_sae"]
    metric: AtomicInnerProduct | None

    @classmethod
    def of(cls, dictionary: Tensor, metric: AtomicInnerProduct | None, dtype: torch.dtype) -> "UnitAtoms":
        """Whitens a dictionary in float64 and rounds its unit atoms once.

        Args:
            dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
            metric: S; None means Euclidean.
            dtype: dtype of the unit atoms.

        Raises:
            ValueError: the dictionary is no matrix, has NaN or infinite entries, or the metric has another width.

        Cost: 2·d_sae·d_in² float64 FLOPs in a metric; one copy of the dictionary.
        """
        if dictionary.ndim != 2 or not dictionary.isfinite().all():
            raise ValueError(
                f"A dictionary should be a finite (d_sae, d_in) matrix, got shape {tuple(dictionary.shape)}: check its "
                "source for NaN or infinite entries."
            )
        if metric is not None and len(metric.matrix) != dictionary.shape[1]:
            raise ValueError(
                f"The dictionary has atoms of width {dictionary.shape[1]}, the metric of width {len(metric.matrix)}: "
                "use a metric of the same site."
            )
        rows = torch.empty_like(dictionary, dtype=dtype)
        norms = torch.empty(len(dictionary), dtype=torch.float64, device=dictionary.device)
        for start in range(0, len(dictionary), _ROWS):
            part = slice(start, start + _ROWS)
            wide = dictionary[part].double()
            wide = wide if metric is None else metric.whiten(wide)
            norms[part] = wide.norm(dim=1)
            rows[part] = wide / torch.where(norms[part] > 0, norms[part], 1)[:, None]
        return cls(rows, norms, metric)

    def whiten(self, y: Float[Tensor, "samples d_in"]) -> Float[Tensor, "samples d_in"]:
        """Whitens vectors, in their dtype: W y."""
        return y if self.metric is None else self.metric.whiten(y)

    def residual(self, target: Float[Tensor, "samples d_in"], codes: Tensor) -> Float[Tensor, "samples d_in"]:
        """Subtracts from whitened vectors what CSR codes of the unit atoms reconstruct of them."""
        return target - decode_csr(codes, self.rows, self.rows.new_zeros(self.rows.shape[1]))

    def as_given(self, codes: Tensor) -> Tensor:
        """Turns CSR codes of the unit atoms, float64, into those of the dictionary as given, in the dtype of `rows`."""
        columns = codes.col_indices()
        values = (codes.values() / self.norms[columns]).to(self.rows.dtype)
        return sparse_code(entry_rows(codes), columns, values, (codes.shape[0], codes.shape[1]))


def sparse_code(
    rows: Int64[Tensor, " entries"],
    columns: Int64[Tensor, " entries"],
    values: Float[Tensor, " entries"],
    shape: tuple[int, int],
) -> Tensor:
    """Makes a CSR tensor from entries in any order, each position at most once; entries with value 0 are left out.

    Args:
        rows: sample of each entry, shape `(entries,)`.
        columns: latent of each entry, shape `(entries,)`.
        values: value of each entry, shape `(entries,)`.
        shape: number of samples and of latents.

    Returns:
        A CSR tensor in the dtype of `values`; columns ascend within a row.
    """
    kept = values.nonzero().squeeze(1)
    kept = kept[(rows[kept] * shape[1] + columns[kept]).argsort()]
    counts = torch.bincount(rows[kept], minlength=shape[0])
    pointers = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return csr(pointers, columns[kept], values[kept], shape)


def stacked(codes: list[Tensor]) -> Tensor:
    """Puts CSR codes of successive samples, at least one tensor, into one CSR tensor."""
    counts = torch.cat([part.crow_indices().diff() for part in codes])
    pointers = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    columns, values = (torch.cat(parts) for parts in zip(*((p.col_indices(), p.values()) for p in codes), strict=True))
    return csr(pointers, columns, values, (len(counts), codes[0].shape[1]))


@torch.no_grad()
@no_autocast()
def fit_values(atoms: UnitAtoms, target: Float[Tensor, "samples d_in"], support: Tensor) -> Tensor:
    """Finds the values g ≥ 0 on given supports that minimise ‖target − g U‖², with the unit atoms U.

    Args:
        atoms: the unit atoms U.
        target: whitened vectors, shape `(samples, d_in)`.
        support: codes of shape `(samples, d_sae)`, CSR or dense, whose non-zero entries are the supports.

    Returns:
        g, a CSR tensor of shape `(samples, d_sae)`, float64, with positive entries only; exact up to rounding, as
        `nonnegative_least_squares` says.

    Cost: 2·samples·K²·d_in float64 FLOPs for the Gram matrices, and `nonnegative_least_squares`; memory of the supports
    and of a few million numbers.
    """
    chosen = supports(support)
    values = torch.zeros(chosen.mask.shape, dtype=torch.float64, device=target.device)
    for part in chosen.by_size(lambda k: 4 * k * k, _SOLVED):
        taken = chosen.take(part)
        grams, correlations = _products(atoms.rows, target[part], taken)
        values[part, : taken.mask.shape[1]] = nonnegative_least_squares(grams, correlations, taken.mask)
    rows, slots = (values > 0).nonzero(as_tuple=True)
    return sparse_code(rows, chosen.indices[rows, slots], values[rows, slots], (support.shape[0], support.shape[1]))


def _products(unit: Tensor, target: Tensor, chosen: Supports) -> tuple[Tensor, Tensor]:
    """Computes, in float64, the inner products of the atoms of each support with each other and with the target."""
    samples, k = chosen.indices.shape
    grams = torch.empty((samples, k, k), dtype=torch.float64, device=unit.device)
    correlations = torch.empty((samples, k), dtype=torch.float64, device=unit.device)
    step = min(samples, max(1, _GATHERED // (k * unit.shape[1])))
    buffer, wide = unit.new_empty(step * k, unit.shape[1]), grams.new_empty(step * k, unit.shape[1])
    for start in range(0, samples, max(1, step)):
        indices = chosen.indices[start : start + step].flatten()
        part, used = slice(start, start + step), slice(len(indices))
        wide[used].copy_(torch.index_select(unit, 0, indices, out=buffer[used]))  # buffers are read from cache
        gathered = wide[used].view(-1, k, unit.shape[1])
        torch.matmul(gathered, gathered.mT, out=grams[part])
        correlations[part] = (gathered @ target[part, :, None].double()).squeeze(2)
    return grams, correlations
