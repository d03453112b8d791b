"""The interface of the kernels that the sparse step is made of, and which implementation a device gets."""

from importlib.util import find_spec
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from atomlab.sae.ops.torch_kernels import TorchKernels
from atomlab.sae.sparse_code import Entries


@runtime_checkable
class Kernels(Protocol):
    """The three operations of the sparse step, and how they want their matrices.

    `find` encodes, `bag_sum` decodes and computes the gradients of matrices, and `sampled_dot` computes the gradient
    of the code. None of them takes part in autograd; `Sparse` has the gradients.
    """

    def operand(self, v: Tensor) -> Tensor:
        """Converts a matrix to the dtype and layout in which the other three take it."""
        ...

    def find(
        self,
        x: Float[Tensor, "batch d_in"],
        atoms: Float[Tensor, "d_sae d_in"],
        bias: Float[Tensor, " d_sae"],
        threshold: Float[Tensor, " d_sae"],
        bandwidth: float,
    ) -> tuple[Float[Tensor, " entries"], Entries]:
        """Finds the entries of the code that have a value or a gradient.

        Args:
            x: inputs of the encoder, shape `(batch, d_in)`, as an operand.
            atoms: W_encᵀ, shape `(d_sae, d_in)`, as an operand.
            bias: b_enc, shape `(d_sae,)`.
            threshold: θ, shape `(d_sae,)`.
            bandwidth: ε, 0 or above.

        Returns:
            z = x·w_j + b_j, shape `(entries,)`, of all entries with z > θ or |z − θ| < ε/2, and their positions.
        """
        ...

    def bag_sum(
        self,
        table: Float[Tensor, "n d_in"],
        index: Int64[Tensor, " entries"],
        bags: Int64[Tensor, " entries"],
        weights: Float[Tensor, " entries"],
        count: int,
    ) -> Float[Tensor, "count d_in"]:
        """Sums weighted rows of a table by bag: row b of the result is Σ weights_e · table[index_e] over bags_e = b.

        Args:
            table: shape `(n, d_in)`, as an operand.
            index: row of the table of each entry, shape `(entries,)`.
            bags: bag of each entry, ascending, shape `(entries,)`.
            weights: shape `(entries,)`.
            count: number of bags.

        Returns:
            The sums, shape `(count, d_in)`; 0 for an empty bag.

        Cost: 2·d_in FLOPs an entry.
        """
        ...

    def sampled_dot(
        self, x: Float[Tensor, "batch d_in"], atoms: Float[Tensor, "d_sae d_in"], entries: Entries
    ) -> Float[Tensor, " entries"]:
        """Computes x[row]·atoms[column] of each entry.

        Args:
            x: shape `(batch, d_in)`, as an operand.
            atoms: shape `(d_sae, d_in)`, as an operand.
            entries: which pairs.

        Returns:
            The products, shape `(entries,)`.

        Cost: 2·d_in FLOPs an entry.
        """
        ...


def kernels_for(device: torch.device, screened: bool | None = None, room: int = 1 << 20) -> Kernels:
    """Chooses the kernels for a device.

    Args:
        device: where the matrices are.
        screened: passed on to `TorchKernels`.
        room: passed on to `TritonKernels`: expected number of entries.

    Returns:
        `TritonKernels` on CUDA where Triton is installed, `TorchKernels` elsewhere.
    """
    if device.type == "cuda" and find_spec("triton") is not None:
        from atomlab.sae.ops.triton_kernels import TritonKernels  # imports Triton, which not every machine has

        return TritonKernels(room)
    return TorchKernels(screened)
