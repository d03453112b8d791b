"""The arithmetic of a training step, behind one interface, `Operators`.

`dense` is the reference: whole matrices and autograd. `sparse` works on the entries of the code that carry a value or a
gradient only, out of the three kernels of `kernels`: `torch_kernels` for every device, `triton_kernels` for CUDA
devices. `screen` finds the entries with a bfloat16 product, exactly. `switch` chooses between dense and sparse for the
next step. `operators` has the interface and the training objective; `csr` encodes and decodes millions of vectors.
"""

from atomlab.sae.ops.csr import decode_csr, encode_csr
from atomlab.sae.ops.dense import Dense
from atomlab.sae.ops.kernels import Kernels, kernels_for
from atomlab.sae.ops.operators import Operators, Terms, objective
from atomlab.sae.ops.sparse import Sparse
from atomlab.sae.ops.switch import DensitySwitch, Implementation
from atomlab.sae.ops.torch_kernels import TorchKernels

__all__ = [
    "Dense",
    "DensitySwitch",
    "Implementation",
    "Kernels",
    "Operators",
    "Sparse",
    "Terms",
    "TorchKernels",
    "decode_csr",
    "encode_csr",
    "kernels_for",
    "objective",
]
