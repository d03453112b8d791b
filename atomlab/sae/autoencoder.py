"""The threshold-activated sparse autoencoder (TSAE): f = σ_θ((x − b_dec·flag) W_enc + b_enc), x̂ = f W_dec + b_dec."""

from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from atomlab.autocast import no_autocast
from atomlab.sae.thresholding import threshold_activation


@final
class ThresholdSAE(nn.Module):
    """A dictionary of `d_sae` atoms (rows of W_dec) with a one-step threshold encoder (theory.md 6 and 7).

    Parameters: `W_enc` (d_in, d_sae), `b_enc` (d_sae,), `W_dec` (d_sae, d_in), `b_dec` (d_in,), `threshold` (d_sae,)
        float32, θ itself and never below 0. With `tied`, W_enc is W_decᵀ and no parameter: in coordinates whitened by
        the metric S this is the encoder S W_decᵀ. Starts with random unit atoms from the global generator, W_enc =
        W_decᵀ, zero biases and θ = 0.001.

    Args:
        d_in: width of the activations.
        d_sae: number of atoms.
        bandwidth: ε of the straight-through estimators, in units of the pre-activations.
        tied: share the encoder with the decoder.
        apply_b_dec_to_input: subtract b_dec from x first.
        ste_to_input: let the jump's gradient flow to the pre-activations too.

    Raises:
        ValueError: sizes that are not positive.
    """

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        *,
        bandwidth: float = 0.025,
        tied: bool = False,
        apply_b_dec_to_input: bool = False,
        ste_to_input: bool = False,
    ) -> None:
        super().__init__()
        if d_in < 1 or d_sae < 1 or bandwidth <= 0:
            raise ValueError(
                f"A TSAE needs d_in, d_sae and bandwidth above 0, got d_in={d_in}, d_sae={d_sae}, "
                f"bandwidth={bandwidth}."
            )
        self.d_in, self.d_sae, self.bandwidth, self.tied = d_in, d_sae, bandwidth, tied
        self.apply_b_dec_to_input, self.ste_to_input = apply_b_dec_to_input, ste_to_input
        atoms = nn.functional.normalize(torch.randn(d_sae, d_in), dim=1)
        self.W_dec = nn.Parameter(atoms)
        if not tied:  # past the property of the same name, which a plain assignment would run into
            self._parameters["W_enc"] = nn.Parameter(atoms.clone().T)  # a latent's weights lie together in memory
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.threshold = nn.Parameter(torch.full((d_sae,), 0.001))

    @property
    def W_enc(self) -> Tensor:
        """(d_in, d_sae)"""
        free = self._parameters.get("W_enc")
        return self.W_dec.T if free is None else free

    def pre_activations(
        self, x: Float[Tensor, "*batch d_in"], latents: Int64[Tensor, " chosen"] | None = None
    ) -> Float[Tensor, "*batch chosen"]:
        """z = (x − b_dec·flag) W_enc + b_enc, of some latents or all; 2·batch·d_in·d_sae FLOPs, (batch, d_sae)
        memory."""
        centred = x - self.b_dec if self.apply_b_dec_to_input else x
        if latents is None:
            return centred @ self.W_enc + self.b_enc
        return centred @ self.W_enc.index_select(1, latents) + self.b_enc.index_select(0, latents)

    def activate(
        self, z: Float[Tensor, "*batch chosen"], latents: Int64[Tensor, " chosen"] | None = None
    ) -> Float[Tensor, "*batch chosen"]:
        """σ_θ(z); with `latents`, each z along the last dimension belongs to the latent of that number, repeated or
        not."""
        threshold = self.threshold if latents is None else self.threshold.index_select(0, latents)
        return threshold_activation(z, threshold, self.bandwidth, self.ste_to_input)

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """The non-negative code f, dense."""
        return self.activate(self.pre_activations(x))

    def decode(self, codes: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """x̂ = f W_dec + b_dec."""
        return codes @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        return self.decode(self.encode(x))

    @torch.no_grad()
    def clamp_thresholds_(self) -> None:
        self.threshold.clamp_(min=0)

    @torch.no_grad()
    def unit_norm_decoder_(self, gram: Float[Tensor, "d_in d_in"] | None = None) -> None:
        """Projects the atoms to unit norm √(d G dᵀ) (Euclidean without `gram`); the function changes. For training."""
        self.W_dec /= decoder_norms(self.W_dec, gram)[:, None]

    @torch.no_grad()
    def remove_parallel_gradient_(self, gram: Float[Tensor, "d_in d_in"] | None = None, block: int = 1024) -> None:
        """Takes from W_dec.grad what would only change an atom's norm: its component along the norm's gradient G d."""
        if self.W_dec.grad is None:
            return
        for atoms, gradient in zip(self.W_dec.split(block), self.W_dec.grad.split(block), strict=True):
            normal = atoms if gram is None else atoms @ gram
            share = (gradient * normal).sum(1) / normal.square().sum(1).clamp(min=torch.finfo(normal.dtype).tiny)
            gradient.addcmul_(normal, share[:, None], value=-1)  # blocks that stay in the cache

    @torch.no_grad()
    def with_unit_norm_decoder(self, gram: Float[Tensor, "d_in d_in"] | None = None) -> "ThresholdSAE":
        """The same function with unit-norm atoms: norms move into W_enc, b_enc and θ. Free encoder. Raises ValueError
        on a zero atom."""
        norms = decoder_norms(self.W_dec, gram)
        if (norms == 0).any():
            raise ValueError(f"Atom {int((norms == 0).nonzero()[0])} is zero and cannot be scaled to unit norm.")
        return self.with_weights(
            self.W_enc * norms, self.b_enc * norms, self.W_dec / norms[:, None], self.b_dec, self.threshold * norms
        )

    @torch.no_grad()
    def with_weights(
        self, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor, threshold: Tensor
    ) -> "ThresholdSAE":
        """A TSAE of the same settings, free encoder and the given weights, in their dtype and on their device."""
        other = ThresholdSAE(
            self.d_in,
            self.d_sae,
            bandwidth=self.bandwidth,
            apply_b_dec_to_input=self.apply_b_dec_to_input,
            ste_to_input=self.ste_to_input,
        ).to(W_dec)
        other.load_state_dict({"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec, "threshold": threshold})
        return other


@no_autocast()
def decoder_norms(
    W_dec: Float[Tensor, "d_sae d_in"], gram: Float[Tensor, "d_in d_in"] | None = None
) -> Float[Tensor, " d_sae"]:
    """√(d G dᵀ) of each atom; Euclidean without `gram`."""
    return W_dec.norm(dim=1) if gram is None else ((W_dec @ gram) * W_dec).sum(1).clamp(min=0).sqrt()
