"""The reference implementation of the step: the equations of theory.md 7 with whole matrices and autograd."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from atomlab.sae.autoencoder import ThresholdSAE
from atomlab.sae.sparse_code import Code


@final
class Dense:
    """The `Operators` that compute every entry of the `(batch, d_sae)` code.

    Cost: five products, together 10·batch·d_in·d_sae FLOPs, for value and gradient; memory of several
    `(batch, d_sae)` matrices.
    """

    def encode(self, sae: ThresholdSAE, x: Float[Tensor, "batch d_in"]) -> Code:
        """Computes the dense code of a batch.

        Args:
            sae, x: as in `Operators.encode`.

        Returns:
            The dense code.
        """
        z = sae.pre_activations(x)
        return Code(z, sae.activate(z), None, len(x))

    def decode(self, sae: ThresholdSAE, code: Code) -> Float[Tensor, "batch d_in"]:
        """Computes the reconstruction x̂ = f W_dec + b_dec.

        Args:
            sae: as in `Operators.decode`.
            code: a dense code.

        Returns:
            x̂, shape `(batch, d_in)`.
        """
        return sae.decode(code.values)
