"""The interface of a training step's arithmetic, and the training objective over any implementation of it."""

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from atomlab.sae.autoencoder import ThresholdSAE
from atomlab.sae.decoder import decoder_norms
from atomlab.sae.losses import Sparsity, pre_activation_penalty, reconstruction_loss
from atomlab.sae.sparse_code import Code


@runtime_checkable
class Operators(Protocol):
    """An implementation of the encoder and the decoder of a TSAE, with their gradients."""

    def encode(self, sae: ThresholdSAE, x: Float[Tensor, "batch d_in"]) -> Code:
        """Computes the code of a batch.

        Args:
            sae: the TSAE.
            x: activations, shape `(batch, d_in)`.

        Returns:
            The code, dense or as a list of entries.
        """
        ...

    def decode(self, sae: ThresholdSAE, code: Code) -> Float[Tensor, "batch d_in"]:
        """Computes the reconstruction x̂ = f W_dec + b_dec.

        Args:
            sae: the TSAE.
            code: a code from `encode`.

        Returns:
            x̂, shape `(batch, d_in)`.
        """
        ...


@final
@dataclass(frozen=True)
class Terms:
    """The terms of the loss on a batch, and the batch's code.

    Attributes:
        reconstruction: mean over the batch of ‖t − x̂‖², a scalar; t is the target of the reconstruction.
        sparsity: sparsity term and dead latents' term, each with its coefficient, a scalar.
        code: the code of the batch.
    """

    reconstruction: Float[Tensor, ""]
    sparsity: Float[Tensor, ""]
    code: Code

    @property
    def loss(self) -> Float[Tensor, ""]:
        """The sum of both terms, which training minimises."""
        return self.reconstruction + self.sparsity


def objective(
    operators: Operators,
    sae: ThresholdSAE,
    x: Float[Tensor, "batch d_in"],
    sparsity: Sparsity | None,
    dead: Bool[Tensor, " d_sae"] | None = None,
    dead_coefficient: float = 0.0,
    target: Float[Tensor, "batch d_in"] | None = None,
) -> Terms:
    """Computes the training objective on a batch.

    loss = mean ‖t − x̂‖² + sparsity term + λ_P · mean Σ_{j dead} ReLU(θ_j − z_j)·‖d_j‖, where means are over the batch.
    The last term is left out if no latent is dead or λ_P is 0. Where several processes share the dictionary, the value is that of
    all latents in each of them, and the gradients are those of the own ones.

    Args:
        operators: the implementation of encoder and decoder.
        sae: the TSAE.
        x: activations, shape `(batch, d_in)`.
        sparsity: the sparsity term with its coefficient; None means no such term.
        dead: which latents count as dead, shape `(d_sae,)`; None means none.
        dead_coefficient: λ_P.
        target: t, what is reconstructed, shape `(batch, d_in)`, if it is not x; with x = t + noise this trains a
            denoising autoencoder (Vincent et al. 2008).

    Returns:
        The terms; `.loss` has gradients to all parameters of `sae`.

    Cost: that of `operators`, and 6·batch·d_in·(number of dead latents) FLOPs for the last term, which needs the z of
    every sample.
    """
    code = operators.encode(sae, x)
    reconstruction = reconstruction_loss(x if target is None else target, operators.decode(sae, code))
    penalty = reconstruction.new_zeros(()) if sparsity is None else sparsity(sae, code)
    if (
        dead is not None and dead_coefficient > 0 and (dead.any() or not sae.shard.is_whole)
    ):  # all shards exchange a number
        latents = dead.nonzero().squeeze(1)
        threshold, norms = sae.threshold.index_select(0, latents), decoder_norms(sae.W_dec.index_select(0, latents))
        own = pre_activation_penalty(sae.pre_activations(x, latents), threshold, norms)
        penalty = penalty + dead_coefficient * sae.shard.total(own)
    return Terms(reconstruction, penalty, code)
