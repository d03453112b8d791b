"""The training objective, over any implementation of the arithmetic."""

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from atomlab.sae.autoencoder import ThresholdSAE, decoder_norms
from atomlab.sae.losses import Sparsity, pre_activation_penalty, reconstruction_loss
from atomlab.sae.sparse_code import Code


@runtime_checkable
class Operators(Protocol):
    """The encoder and the decoder, with their gradients."""

    def encode(self, sae: ThresholdSAE, x: Float[Tensor, "batch d_in"]) -> Code: ...

    def decode(self, sae: ThresholdSAE, code: Code) -> Float[Tensor, "batch d_in"]: ...


@final
@dataclass(frozen=True)
class Terms:
    """Loss terms of a batch, coefficients included, and its code."""

    reconstruction: Float[Tensor, ""]
    sparsity: Float[Tensor, ""]
    code: Code

    @property
    def loss(self) -> Float[Tensor, ""]:
        return self.reconstruction + self.sparsity


def objective(
    operators: Operators,
    sae: ThresholdSAE,
    x: Float[Tensor, "batch d_in"],
    sparsity: Sparsity | None,
    dead: Bool[Tensor, " d_sae"] | None = None,
    dead_coefficient: float = 0.0,
) -> Terms:
    """mean ‖x − x̂‖² and the sparsity term, plus λ_P·Σ_{j dead} ReLU(θ_j − z_j)‖d_j‖ where latents are dead and λ_P >
    0.

    The last term needs every sample's z, so the dead latents' part of the encoder is dense: 6·batch·d_in·(number
    dead) FLOPs more.
    """
    code = operators.encode(sae, x)
    reconstruction = reconstruction_loss(x, operators.decode(sae, code))
    penalty = reconstruction.new_zeros(()) if sparsity is None else sparsity(sae, code)
    if dead is not None and dead_coefficient > 0 and dead.any():
        latents = dead.nonzero().squeeze(1)
        threshold, norms = sae.threshold.index_select(0, latents), decoder_norms(sae.W_dec.index_select(0, latents))
        penalty = penalty + dead_coefficient * pre_activation_penalty(sae.pre_activations(x, latents), threshold, norms)
    return Terms(reconstruction, penalty, code)
