"""The code of a batch: dense, or a list of the entries that have a value or a gradient."""

import warnings
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor


@final
@dataclass(frozen=True)
class Entries:
    """Positions in a sparse `(batch, d_sae)` matrix, in column order: columns ascend, and rows within a column.

    Attributes:
        rows: number of the sample of each entry, shape `(entries,)`.
        columns: number of the latent of each entry, shape `(entries,)`.
        batch: number of rows of the matrix.
        d_sae: number of columns of the matrix.
    """

    rows: Int64[Tensor, " entries"]
    columns: Int64[Tensor, " entries"]
    batch: int
    d_sae: int

    def row_order(self) -> Int64[Tensor, " entries"]:
        """Returns the permutation, shape `(entries,)`, that sorts the entries by row, and by column within a row."""
        return self.rows.sort(stable=True).indices


@final
@dataclass(frozen=True)
class Code:
    """The pre-activations and the code of a batch.

    Attributes:
        z: pre-activations, shape `(batch, d_sae)` when dense, `(entries,)` when sparse.
        values: f = σ_θ(z), in the shape of `z`.
        entries: positions of `z` and `values` when sparse; None when dense. Every position with z > θ or
            |z − θ| < ε/2 is among them. At all others f and all gradients are 0.
        batch: number of samples.
    """

    z: Tensor
    values: Tensor
    entries: Entries | None
    batch: int

    def at(self, per_latent: Float[Tensor, " d_sae"]) -> Tensor:
        """Aligns one number a latent with `z`.

        Args:
            per_latent: shape `(d_sae,)`.

        Returns:
            The argument itself when dense, which broadcasts against `z`; the number of each entry's latent, shape
            `(entries,)`, when sparse.
        """
        return per_latent if self.entries is None else per_latent.index_select(0, self.entries.columns)

    @torch.no_grad()
    def firings(self) -> Int64[Tensor, " d_sae"]:
        """Counts the samples that each latent fires on, shape `(d_sae,)`; the total over the batch size is the mean L0."""
        if self.entries is None:
            return (self.values > 0).sum(0)
        return torch.bincount(self.entries.columns[self.values > 0], minlength=self.entries.d_sae)


def offsets(sorted_numbers: Shaped[Tensor, " entries"], count: int) -> Int64[Tensor, " count_and_one"]:
    """Computes where each group starts in a sorted list of group numbers: the pointer array of CSR.

    Args:
        sorted_numbers: ascending numbers of groups, shape `(entries,)`.
        count: number of groups.

    Returns:
        Index of the first entry whose number is at least g, for g = 0 … count, shape `(count + 1,)`. The last of them
        is `entries`.
    """
    groups = torch.arange(count + 1, device=sorted_numbers.device)
    return torch.searchsorted(sorted_numbers, groups)


def entry_rows(codes: Tensor) -> Tensor:
    """Gives the row of each stored entry of a CSR tensor, in their order, shape `(entries,)`, int64."""
    return torch.repeat_interleave(codes.crow_indices().diff())


def csr(pointers: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Builds a torch CSR tensor without torch's warning that CSR is in beta, and without checks of its invariants.

    Args:
        pointers: where each row starts, shape `(rows + 1,)`.
        columns: column of each entry, shape `(entries,)`.
        values: value of each entry, shape `(entries,)`.
        shape: rows and columns of the matrix.

    Returns:
        The matrix, in the dtype of `values`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(pointers, columns, values, shape, check_invariants=False)


def take_rows(codes: Tensor, start: int, stop: int) -> Tensor:
    """Takes successive rows out of a matrix.

    Args:
        codes: shape `(rows, columns)`, CSR or dense.
        start: number of the first row taken.
        stop: number of the first row not taken any more.

    Returns:
        Rows start to stop − 1 in the layout of `codes`, as views of its values.
    """
    if codes.layout != torch.sparse_csr:
        return codes[start:stop]
    pointers = codes.crow_indices()[start : stop + 1]
    entries = slice(int(pointers[0]), int(pointers[-1]))
    shape = (stop - start, codes.shape[1])
    return csr(pointers - pointers[0], codes.col_indices()[entries], codes.values()[entries], shape)
