"""What the step on entries is made of (`Kernels`), and which implementation a device gets."""

from importlib.util import find_spec
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from atomlab.sae.ops.torch_kernels import TorchKernels
from atomlab.sae.sparse_code import Entries


@runtime_checkable
class Kernels(Protocol):
    """What the step on entries is made of."""

    def operand(self, v: Tensor) -> Tensor:
        """A matrix as the other three read it."""
        ...

    def find(
        self,
        x: Float[Tensor, "batch d_in"],
        atoms: Float[Tensor, "d_sae d_in"],
        bias: Float[Tensor, " d_sae"],
        threshold: Float[Tensor, " d_sae"],
        bandwidth: float,
    ) -> tuple[Float[Tensor, " entries"], Entries]:
        """z of all entries with z > θ or |z − θ| < ε/2, and where they are."""
        ...

    def bag_sum(
        self,
        table: Float[Tensor, "n d_in"],
        index: Int64[Tensor, " entries"],
        bags: Int64[Tensor, " entries"],
        weights: Float[Tensor, " entries"],
        count: int,
    ) -> Float[Tensor, "count d_in"]:
        """Row b is Σ weights_e·table[index_e] over the entries with bags_e = b; `bags` ascend."""
        ...

    def sampled_dot(
        self, x: Float[Tensor, "batch d_in"], atoms: Float[Tensor, "d_sae d_in"], entries: Entries
    ) -> Float[Tensor, " entries"]:
        """x[row]·atoms[column] of each entry."""
        ...


def kernels_for(device: torch.device, screened: bool | None = None, room: int = 1 << 20) -> Kernels:
    """Triton's on a CUDA device where Triton is installed (with `room` for so many entries), `TorchKernels` elsewhere."""
    if device.type == "cuda" and find_spec("triton") is not None:
        from atomlab.sae.ops.triton_kernels import TritonKernels  # imports Triton, which not every machine has

        return TritonKernels(room)
    return TorchKernels(screened)
