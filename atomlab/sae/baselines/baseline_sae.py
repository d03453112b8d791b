"""The sparse autoencoder that a TSAE is compared with: an affine encoder, one of four activations, and a decoder."""

from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from atomlab.sae.autoencoder import ThresholdSAE
from atomlab.sae.baselines.activations import Activation
from atomlab.sae.decoder import decoder_norms, norms_without_zero, remove_parallel_gradient_
from atomlab.sae.encoder import affine
from atomlab.sae.origin import Origin
from atomlab.sae.shard import Shard
from atomlab.sae.sparse_code import Code


@final
class BaselineSAE(nn.Module):
    """A dictionary of `d_sae` atoms, the rows of W_dec, whose codes an activation makes.

    f = activation(z), z = x W_enc + b_enc, x̂ = f W_dec + b_dec. With `apply_b_dec_to_input`, z = (x − b_dec) W_enc +
    b_enc. Training starts from random unit atoms, drawn from torch's global generator, W_enc = W_decᵀ and zero biases.

    Args:
        d_in: width of the activations.
        d_sae: number of atoms. One process holds all of them: a baseline is never shared by several.
        activation: `Relu()`, `TopK(k)`, `BatchTopK(k)` or `Gated(d_sae)`.
        apply_b_dec_to_input: whether the encoder subtracts b_dec from its input.

    Attributes:
        shard: all latents, and the processes that see other data.
        W_enc: encoder, shape `(d_in, d_sae)`.
        b_enc: encoder bias, shape `(d_sae,)`; of a gated SAE that of the gate, b_gate.
        W_dec: decoder with atoms as rows, shape `(d_sae, d_in)`.
        b_dec: decoder bias, shape `(d_in,)`.
        activation: the activation, with parameters and buffers of its own.
        origin: where it comes from, if it was read from files; copies with other weights have none.

    Raises:
        ValueError: a size is not positive.
    """

    origin: Origin | None = None

    def __init__(self, d_in: int, d_sae: int, activation: Activation, *, apply_b_dec_to_input: bool = False) -> None:
        super().__init__()
        if d_in < 1 or d_sae < 1:
            raise ValueError(f"An SAE needs d_in and d_sae above 0, got d_in={d_in} and d_sae={d_sae}.")
        self.d_in, self.d_sae, self.apply_b_dec_to_input = d_in, d_sae, apply_b_dec_to_input
        self.shard = Shard(d_sae)
        self.activation: Activation = activation
        atoms = nn.functional.normalize(torch.randn(d_sae, d_in), dim=1)
        self.W_dec = nn.Parameter(atoms)
        self.W_enc = nn.Parameter(atoms.clone().T)  # the weights of one latent are adjacent in memory
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(d_sae)), nn.Parameter(torch.zeros(d_in))

    def pre_activations(
        self, x: Float[Tensor, "*batch d_in"], latents: Int64[Tensor, " chosen"] | None = None
    ) -> Float[Tensor, "*batch chosen"]:
        """Computes z = x W_enc + b_enc, with x − b_dec for x if `apply_b_dec_to_input` is set.

        Args:
            x: activations, shape `(..., d_in)`.
            latents: numbers of the latents that are wanted, shape `(chosen,)`; None means all.

        Returns:
            z, shape `(..., chosen)`, or `(..., d_sae)` for all latents.
        """
        return affine(x, self.W_enc, self.b_enc, self.b_dec if self.apply_b_dec_to_input else None, latents)

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Computes the dense code f ≥ 0, shape `(..., d_sae)`, of activations `(..., d_in)`."""
        return self.activation(self.pre_activations(x), self.b_enc)

    def batch_code(self, x: Float[Tensor, "batch d_in"]) -> Code:
        """Computes the dense code of a training batch, which for BatchTopK depends on the whole batch."""
        z = self.pre_activations(x)
        return Code(z, self.activation.of_batch(z, self.b_enc), None, len(x))

    def decode(self, codes: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """Computes the reconstruction x̂ = f W_dec + b_dec, shape `(..., d_in)`, of dense codes `(..., d_sae)`."""
        return codes @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """Encodes and decodes: x̂ of x, both of shape `(..., d_in)`."""
        return self.decode(self.encode(x))

    @property
    def threshold(self) -> Float[Tensor, " d_sae"]:
        """θ of the TSAE that `one_step` returns, shape `(d_sae,)`."""
        return self.activation.one_step(self.W_enc, self.b_enc)[2]

    @torch.no_grad()
    def one_step(self) -> ThresholdSAE:
        """Returns the TSAE with the same codes, up to rounding; of TopK the one with every z above 0.

        Its parameters are copies, in the dtype and on the device of W_dec.
        """
        W_enc, b_enc, threshold = self.activation.one_step(self.W_enc, self.b_enc)
        same = ThresholdSAE(self.d_in, self.d_sae, apply_b_dec_to_input=self.apply_b_dec_to_input).to(self.W_dec)
        return same.with_weights(W_enc, b_enc, self.W_dec, self.b_dec, threshold)

    @torch.no_grad()
    def start_from_(self, atoms: Float[Tensor, "d_sae d_in"]) -> None:
        """Sets the atoms, shape `(d_sae, d_in)`, and the encoder to W_enc = W_decᵀ, in place."""
        self.W_dec.copy_(atoms)
        self.W_enc.copy_(atoms.T)

    def clamp_thresholds_(self) -> None:
        """Does nothing: there are no trained thresholds."""

    @torch.no_grad()
    def settle_(self, level: float) -> None:
        """Moves the level that all latents' firing is decided by, in place (`atomlab.sae.l0_number`)."""
        self.activation.settle_(level, self.b_enc)

    @torch.no_grad()
    def unit_norm_decoder_(self, gram: Float[Tensor, "d_in d_in"] | None = None) -> None:
        """Scales every atom to unit norm √(d G dᵀ), in place and without compensation, so the function changes."""
        self.W_dec /= decoder_norms(self.W_dec, gram)[:, None]

    def remove_parallel_gradient_(self, gram: Float[Tensor, "d_in d_in"] | None = None) -> None:
        """Removes the part of W_dec's gradient that would only change norms (`atomlab.sae.decoder`), in place."""
        remove_parallel_gradient_(self.W_dec, gram)

    @torch.no_grad()
    def moved(self, W_enc: Tensor, shift: Tensor, W_dec: Tensor, b_dec: Tensor) -> "BaselineSAE":
        """Makes an SAE of other coordinates: with these weights, and pre-activations that are lower by a shift.

        Args:
            W_enc: shape `(d_in, d_sae)`.
            shift: shape `(d_sae,)`.
            W_dec: shape `(d_sae, d_in)`.
            b_dec: shape `(d_in,)`.
        """
        return self._with(W_enc, self.b_enc - shift, W_dec, b_dec, self.activation.moved(shift))

    @torch.no_grad()
    def with_unit_norm_decoder(self, gram: Float[Tensor, "d_in d_in"] | None = None) -> "BaselineSAE":
        """Returns an SAE of the same function whose atoms have unit norm √(d G dᵀ).

        The norm of each atom moves into the encoder. TopK and BatchTopK compare latents with each other, so there one
        factor moves, and it is the mean norm that becomes 1.

        Args:
            gram: G, shape `(d_in, d_in)`, symmetric; None means the Euclidean norm.

        Raises:
            ValueError: an atom is zero.
        """
        norms = norms_without_zero(self.W_dec, gram)
        if self.activation.compares_latents:
            norms = norms.mean().expand_as(norms)
        return self._with(
            self.W_enc * norms,
            self.b_enc * norms,
            self.W_dec / norms[:, None],
            self.b_dec,
            self.activation.scaled(norms),
        )

    def _with(
        self, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor, activation: Activation
    ) -> "BaselineSAE":
        other = BaselineSAE(self.d_in, self.d_sae, activation, apply_b_dec_to_input=self.apply_b_dec_to_input)
        other.to(W_dec)
        weights = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}
        other.shard = self.shard
        other.load_state_dict(weights, strict=False)  # the activation has its own already
        return other


SAE = ThresholdSAE | BaselineSAE  # what is trained, measured, saved and loaded
