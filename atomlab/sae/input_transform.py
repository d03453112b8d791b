"""The coordinates a TSAE is trained in, and the way back: x̃ = (x − mean) M."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from atomlab.autocast import no_autocast
from atomlab.sae.autoencoder import ThresholdSAE


@final
class InputTransform(nn.Module):
    """The affine map x̃ = (x − mean) M with inverse x = x̃ M⁻¹ + mean; buffers, so it is in every checkpoint.

    Args:
        mean: (d_in,).
        matrix: M (d_in, d_in).
        inverse: M⁻¹ (d_in, d_in).
    """

    mean: Tensor
    matrix: Tensor
    inverse: Tensor

    def __init__(
        self, mean: Float[Tensor, " d_in"], matrix: Float[Tensor, "d_in d_in"], inverse: Float[Tensor, "d_in d_in"]
    ) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("matrix", matrix), ("inverse", inverse)):
            self.register_buffer(name, value.clone())

    @classmethod
    def identity(cls, d_in: int) -> "InputTransform":
        """Raw inputs."""
        return cls(torch.zeros(d_in), torch.eye(d_in), torch.eye(d_in))

    @classmethod
    def scaled(cls, mean: Tensor, matrix: Tensor, inverse: Tensor, second_moment: Tensor) -> "InputTransform":
        """(x − mean) M, with M scaled so that E‖x̃‖² = 1 for the given mean and uncentred second moment E[x xᵀ] of
        the data."""
        covariance = second_moment - torch.outer(mean, mean)
        scale = ((matrix.T @ covariance @ matrix).trace()).rsqrt()
        return cls(*(value.float() for value in (mean, matrix * scale, inverse / scale)))

    @no_autocast()
    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        return (x - self.mean) @ self.matrix

    @no_autocast()
    def restore(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """The inverse: x̃ M⁻¹ + mean."""
        return x @ self.inverse + self.mean


@torch.no_grad()
@no_autocast()
def fold(sae: ThresholdSAE, transform: InputTransform) -> ThresholdSAE:
    """The TSAE of raw inputs that equals `restore(sae(transform(x)))`, with the same codes; exact up to rounding.

    z = (x − mean) M W̃_enc + b̃_enc gives W_enc = M W̃_enc, b_enc = b̃_enc − mean W_enc; x̂ = (f W̃_dec + b̃_dec) M⁻¹
    + mean.
    """
    W_enc = transform.matrix @ sae.W_enc
    shift = transform.mean @ W_enc
    if sae.apply_b_dec_to_input:  # the folded b_dec = b̃ M⁻¹ + mean is subtracted from x: it takes both shifts with it
        shift = torch.zeros_like(shift)
    return sae.with_weights(
        W_enc,
        sae.b_enc - shift,
        sae.W_dec @ transform.inverse,
        sae.b_dec @ transform.inverse + transform.mean,
        sae.threshold,
    )
