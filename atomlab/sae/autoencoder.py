"""The threshold-activated sparse autoencoder (TSAE), in raw or transformed coordinates."""

from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from atomlab.groups import ALONE, Groups
from atomlab.sae.decoder import decoder_norms, norms_without_zero, remove_parallel_gradient_
from atomlab.sae.encoder import affine
from atomlab.sae.origin import Origin
from atomlab.sae.shard import Shard
from atomlab.sae.thresholding import threshold_activation

_DRAWN = 1024  # atoms that are drawn at a time; it decides which random numbers an atom gets


@final
class ThresholdSAE(nn.Module):
    """A dictionary of `d_sae` atoms, the rows of W_dec, with a one-step threshold encoder (theory.md 6 and 7).

    f = σ_θ(z), z = x W_enc + b_enc, x̂ = f W_dec + b_dec, with σ_θ(z) = z where z > θ and 0 elsewhere. With
    `apply_b_dec_to_input`, z = (x − b_dec) W_enc + b_enc.

    Training starts from random unit atoms, drawn from torch's global generator, W_enc = W_decᵀ, zero biases and
    θ = 0.001.

    Args:
        d_in: width of the activations.
        d_sae: number of atoms.
        bandwidth: ε, width of the window of the straight-through estimators, in units of the pre-activations.
        tied: whether W_enc is W_decᵀ and no parameter of its own. In coordinates whitened by the metric S this is the
            encoder S W_decᵀ of raw activations.
        apply_b_dec_to_input: whether the encoder subtracts b_dec from its input.
        ste_to_input: whether the straight-through gradient of the jump at θ also flows to the pre-activations.
        groups: the processes that share the dictionary. Each holds some of the latents (`Shard`): d_sae is then the number of
            latents of all of them, and everything below that has the shape `d_sae` is of this process's own latents. Their
            first atoms are the rows that one process alone would have drawn. `encode`, `pre_activations` and `activate` give
            the own part of a code; `decode` gives the whole reconstruction.

    Attributes:
        shard: which latents this process holds.
        d_sae: how many they are.
        W_enc: encoder, shape `(d_in, d_sae)`.
        b_enc: encoder bias, shape `(d_sae,)`.
        W_dec: decoder with atoms as rows, shape `(d_sae, d_in)`.
        b_dec: decoder bias, shape `(d_in,)`.
        threshold: θ, shape `(d_sae,)`, never below 0; float32 also under autocast.
        origin: where it comes from, if it was read from files; copies with other weights have none.

    Raises:
        ValueError: a size or the bandwidth is not positive, a process would hold no latent, or `apply_b_dec_to_input` with
            several processes.
    """

    origin: Origin | None = None

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        *,
        bandwidth: float = 0.025,
        tied: bool = False,
        apply_b_dec_to_input: bool = False,
        ste_to_input: bool = False,
        groups: Groups = ALONE,
    ) -> None:
        super().__init__()
        if d_in < 1 or d_sae < 1 or bandwidth <= 0:
            raise ValueError(
                f"A TSAE needs d_in, d_sae and bandwidth above 0, got d_in={d_in}, d_sae={d_sae}, "
                f"bandwidth={bandwidth}."
            )
        self.shard = Shard(d_sae, groups)
        if apply_b_dec_to_input and not self.shard.is_whole:
            raise ValueError(
                "A TSAE whose encoder subtracts b_dec cannot be shared by several processes, since each would have only its part "
                "of the gradient of b_dec: use apply_b_dec_to_input=False."
            )
        self.d_in, self.d_sae, self.bandwidth, self.tied = d_in, self.shard.size, bandwidth, tied
        self.apply_b_dec_to_input, self.ste_to_input = apply_b_dec_to_input, ste_to_input
        atoms = _random_atoms(self.shard, d_in)
        self.W_dec = nn.Parameter(atoms)
        if not tied:  # a plain assignment would meet the read-only property of the same name
            self._parameters["W_enc"] = nn.Parameter(
                atoms.clone().T
            )  # the weights of one latent are adjacent in memory
        self.b_enc = nn.Parameter(torch.zeros(self.d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.threshold = nn.Parameter(torch.full((self.d_sae,), 0.001))

    @property
    def W_enc(self) -> Tensor:
        """The encoder, shape `(d_in, d_sae)`: the parameter, or W_decᵀ if the TSAE is tied."""
        free = self._parameters.get("W_enc")
        return self.W_dec.T if free is None else free

    def pre_activations(
        self, x: Float[Tensor, "*batch d_in"], latents: Int64[Tensor, " chosen"] | None = None
    ) -> Float[Tensor, "*batch chosen"]:
        """Computes the pre-activations z = x W_enc + b_enc, with x − b_dec for x if `apply_b_dec_to_input` is set.

        Args:
            x: activations, shape `(..., d_in)`.
            latents: numbers of the latents that are wanted, shape `(chosen,)`; None means all.

        Returns:
            z, shape `(..., chosen)`, or `(..., d_sae)` for all latents.

        Cost: 2·batch·d_in·chosen FLOPs.
        """
        return affine(x, self.W_enc, self.b_enc, self.b_dec if self.apply_b_dec_to_input else None, latents)

    def activate(
        self, z: Float[Tensor, "*batch chosen"], latents: Int64[Tensor, " chosen"] | None = None
    ) -> Float[Tensor, "*batch chosen"]:
        """Applies the threshold activation: f = σ_θ(z).

        Args:
            z: pre-activations, shape `(..., chosen)`.
            latents: number of the latent that each place of the last dimension belongs to, shape `(chosen,)`; numbers
                may repeat. None means that the last dimension is all latents in order.

        Returns:
            f, in the shape and dtype of `z`.
        """
        threshold = self.threshold if latents is None else self.threshold.index_select(0, latents)
        return threshold_activation(z, threshold, self.bandwidth, self.ste_to_input)

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Computes the dense code f ≥ 0, shape `(..., d_sae)`, of activations `(..., d_in)`."""
        return self.activate(self.pre_activations(x))

    def decode(self, codes: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """Computes the reconstruction x̂ = f W_dec + b_dec, shape `(..., d_in)`, of dense codes `(..., d_sae)`."""
        return self.shard.total(codes @ self.W_dec) + self.b_dec

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """Encodes and decodes: x̂ of x, both of shape `(..., d_in)`."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def start_from_(self, atoms: Float[Tensor, "d_sae d_in"]) -> None:
        """Sets the atoms, and the encoder to W_enc = W_decᵀ, in place.

        Args:
            atoms: shape `(d_sae, d_in)`.
        """
        self.W_dec.copy_(atoms)
        if not self.tied:
            self.W_enc.copy_(atoms.T)

    @torch.no_grad()
    def clamp_thresholds_(self) -> None:
        """Sets thresholds below 0 to 0, in place."""
        self.threshold.clamp_(min=0)

    @torch.no_grad()
    def settle_(self, factor: float) -> None:
        """Multiplies all thresholds by a factor, in place (`atomlab.sae.l0_number`)."""
        self.threshold.mul_(factor)

    @torch.no_grad()
    def unit_norm_decoder_(self, gram: Float[Tensor, "d_in d_in"] | None = None) -> None:
        """Scales every atom to unit norm √(d G dᵀ), in place and without compensation, so the function changes.

        This is the projection after each step of a training with unit-norm atoms; `with_unit_norm_decoder` keeps the
        function instead.

        Args:
            gram: G, shape `(d_in, d_in)`, symmetric; None means the Euclidean norm.
        """
        self.W_dec /= decoder_norms(self.W_dec, gram)[:, None]

    @torch.no_grad()
    def remove_parallel_gradient_(self, gram: Float[Tensor, "d_in d_in"] | None = None, block: int = 1024) -> None:
        """Removes the part of W_dec's gradient that would only change norms (`atomlab.sae.decoder`), in place."""
        remove_parallel_gradient_(self.W_dec, gram, block)

    @torch.no_grad()
    def with_unit_norm_decoder(self, gram: Float[Tensor, "d_in d_in"] | None = None) -> "ThresholdSAE":
        """Returns a TSAE of the same function whose atoms have unit norm √(d G dᵀ).

        The norm of each atom moves into its column of W_enc, its b_enc and its θ.

        Args:
            gram: G, shape `(d_in, d_in)`, symmetric; None means the Euclidean norm.

        Returns:
            A new TSAE with an encoder of its own. Its reconstructions are equal up to rounding, and each latent's
            codes are multiplied by the norm of its atom.

        Raises:
            ValueError: an atom is zero.
        """
        norms = norms_without_zero(self.W_dec, gram)
        return self.with_weights(
            self.W_enc * norms, self.b_enc * norms, self.W_dec / norms[:, None], self.b_dec, self.threshold * norms
        )

    def one_step(self) -> "ThresholdSAE":
        """Returns this TSAE, whose codes are one-step threshold codes already."""
        return self

    def moved(self, W_enc: Tensor, shift: Tensor, W_dec: Tensor, b_dec: Tensor) -> "ThresholdSAE":
        """Makes a TSAE of other coordinates: with these weights, and pre-activations that are lower by a shift.

        Args:
            W_enc: shape `(d_in, d_sae)`.
            shift: shape `(d_sae,)`.
            W_dec: shape `(d_sae, d_in)`.
            b_dec: shape `(d_in,)`.
        """
        return self.with_weights(W_enc, self.b_enc - shift, W_dec, b_dec, self.threshold)

    @torch.no_grad()
    def with_weights(
        self, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor, threshold: Tensor
    ) -> "ThresholdSAE":
        """Makes a TSAE with the settings of this one and the given weights.

        Args:
            W_enc: shape `(d_in, d_sae)`.
            b_enc: shape `(d_sae,)`.
            W_dec: shape `(d_sae, d_in)`.
            b_dec: shape `(d_in,)`.
            threshold: shape `(d_sae,)`.

        Returns:
            A new TSAE with an encoder of its own, also if this one is tied. Its parameters are copies in the dtype and
            on the device of `W_dec`.
        """
        with torch.device("meta"):  # draws nothing: every weight is given
            other = ThresholdSAE(
                self.d_in,
                self.shard.d_sae,
                bandwidth=self.bandwidth,
                apply_b_dec_to_input=self.apply_b_dec_to_input,
                ste_to_input=self.ste_to_input,
                groups=self.shard.groups,
            )
        weights = {"W_enc": W_enc.T, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec, "threshold": threshold}
        copies = {name: value.to(W_dec, copy=True).contiguous() for name, value in weights.items()}
        other.load_state_dict(copies | {"W_enc": copies["W_enc"].T}, assign=True)
        return other


def _random_atoms(shard: Shard, d_in: int) -> Tensor:
    """Draws the unit atoms of the whole TSAE in blocks, and keeps those of this process, shape `(own, d_in)`.

    Memory: the own atoms and a block, however wide the whole is.
    """
    atoms = torch.empty(shard.size, d_in)
    for first in range(0, shard.d_sae, _DRAWN):
        block = torch.randn(min(_DRAWN, shard.d_sae - first), d_in)
        start, stop = max(first, shard.first), min(first + len(block), shard.first + shard.size)
        if start < stop:
            atoms[start - shard.first : stop - shard.first] = block[start - first : stop - first]
    return nn.functional.normalize(atoms, dim=1)
