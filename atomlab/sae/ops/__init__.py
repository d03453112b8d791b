"""The TSAE's arithmetic: one interface, `Operators`, as `Dense` reference and, as `Sparse`, on the entries of the
code only: on `Stock` torch operators or, on CUDA devices, on Triton's kernels (`fused.Fused`)."""

from atomlab.sae.ops.dense import Dense
from atomlab.sae.ops.inference import decode_csr, encode_csr
from atomlab.sae.ops.objective import Operators, Terms, objective
from atomlab.sae.ops.sparse import Kernels, Sparse, Stock, kernels_for
from atomlab.sae.ops.switch import DensitySwitch, Implementation

__all__ = [
    "Dense",
    "DensitySwitch",
    "Implementation",
    "Kernels",
    "Operators",
    "Sparse",
    "Stock",
    "Terms",
    "decode_csr",
    "encode_csr",
    "kernels_for",
    "objective",
]
