"""A batch's code, dense or as the list of its entries that carry a value or a gradient."""

import warnings
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor


@final
@dataclass(frozen=True)
class Entries:
    """Positions of a sparse (batch, d_sae) matrix in column order: columns ascend, and rows ascend within a column.

    Attributes:
        rows, columns: (entries,).
        batch, d_sae: of the matrix.
    """

    rows: Int64[Tensor, " entries"]
    columns: Int64[Tensor, " entries"]
    batch: int
    d_sae: int

    def row_order(self) -> Int64[Tensor, " entries"]:
        """The permutation that puts the entries into row order, columns ascending within a row."""
        return self.rows.sort(stable=True).indices


@final
@dataclass(frozen=True)
class Code:
    """Pre-activations and codes of a batch.

    Attributes:
        z: pre-activations, (batch, d_sae), or (entries,) when sparse.
        values: f = σ_θ(z), of the same shape.
        entries: where they are; None when dense. Holds at least every z > θ and every |z − θ| < ε/2: elsewhere f and
            all gradients vanish.
        batch: number of samples.
    """

    z: Tensor
    values: Tensor
    entries: Entries | None
    batch: int

    def at(self, per_latent: Float[Tensor, " d_sae"]) -> Tensor:
        """A value of each latent, laid beside `z`: as it is (it broadcasts) when dense, gathered when sparse."""
        return per_latent if self.entries is None else per_latent.index_select(0, self.entries.columns)

    @torch.no_grad()
    def firings(self) -> Int64[Tensor, " d_sae"]:
        """How many samples each latent fires on; its sum over the batch size is L0."""
        if self.entries is None:
            return (self.values > 0).sum(0)
        return torch.bincount(self.entries.columns[self.values > 0], minlength=self.entries.d_sae)


def offsets(sorted_numbers: Shaped[Tensor, " entries"], count: int) -> Int64[Tensor, " count_and_one"]:
    """Where each of `count` groups starts in a sorted list of group numbers, and its length at the end: the pointer
    array of CSR."""
    groups = torch.arange(count + 1, device=sorted_numbers.device)
    return torch.searchsorted(sorted_numbers, groups)


def csr(pointers: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A torch CSR tensor without torch's notice that CSR is in beta."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(pointers, columns, values, shape, check_invariants=False)
