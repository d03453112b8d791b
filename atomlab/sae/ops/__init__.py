"""The arithmetic of a training step, behind one interface, `Operators`.

- `operators`: the interface, and the training objective over any implementation of it.
- `baseline_objective`: the objective of the architectures that a TSAE is compared with.
- `dense`: the reference implementation, with whole matrices and autograd.
- `sparse`: the implementation that works only on the entries of the code that have a value or a gradient.
- `kernels`: the interface of the kernels that `sparse` is made of, and which ones a device gets.
- `torch_kernels`: these kernels for every device; `tiled_select` and `bfloat16_screen` find the entries for them, the second by a
  bfloat16 product without losing exactness.
- `triton_kernels`: these kernels for CUDA devices.
- `density_switch`: chooses `dense` or `sparse` for the next step.
- `csr`: encodes and decodes millions of vectors with these kernels, outside training.

To add an implementation of the step, write an `Operators` and let `density_switch` choose it; to support another device, write
a `Kernels` and let `kernels_for` return it.
"""

from atomlab.sae.ops.baseline_objective import baseline_objective
from atomlab.sae.ops.csr import decode_csr, encode_csr
from atomlab.sae.ops.dense import Dense
from atomlab.sae.ops.density_switch import DensitySwitch, Implementation
from atomlab.sae.ops.kernels import Kernels, kernels_for
from atomlab.sae.ops.operators import Operators, Terms, objective
from atomlab.sae.ops.sparse import Sparse
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
    "baseline_objective",
    "decode_csr",
    "encode_csr",
    "kernels_for",
    "objective",
]
