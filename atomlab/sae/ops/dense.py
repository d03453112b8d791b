"""The reference: five dense products and autograd, as in the equations of theory.md 7."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from atomlab.sae.autoencoder import ThresholdSAE
from atomlab.sae.sparse_code import Code


@final
class Dense:
    """`Operators` over the whole (batch, d_sae) matrix: 10·batch·d_in·d_sae FLOPs for value and gradient, several
    such matrices of memory."""

    def encode(self, sae: ThresholdSAE, x: Float[Tensor, "batch d_in"]) -> Code:
        z = sae.pre_activations(x)
        return Code(z, sae.activate(z), None, len(x))

    def decode(self, sae: ThresholdSAE, code: Code) -> Float[Tensor, "batch d_in"]:
        return sae.decode(code.values)
