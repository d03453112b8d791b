"""The TSAE's arithmetic: one interface, `Operators`, as `Dense` reference and, as `Sparse`, on the entries of the
code only."""

from atomlab.sae.ops.dense import Dense
from atomlab.sae.ops.inference import decode_csr, encode_csr
from atomlab.sae.ops.objective import Operators, Terms, objective
from atomlab.sae.ops.sparse import Sparse
from atomlab.sae.ops.switch import DensitySwitch

__all__ = ["Dense", "DensitySwitch", "Operators", "Sparse", "Terms", "decode_csr", "encode_csr", "objective"]
