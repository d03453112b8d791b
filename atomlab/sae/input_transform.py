"""The coordinates x̃ = (x − mean) M that a TSAE is trained in, and the way back to raw activations."""

from typing import final, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from atomlab.autocast import no_autocast
from atomlab.sae.autoencoder import ThresholdSAE
from atomlab.sae.baselines.baseline_sae import SAE, BaselineSAE


@final
class InputTransform(nn.Module):
    """The affine map x̃ = (x − mean) M with the inverse x = x̃ M⁻¹ + mean.

    The three tensors are buffers, so every checkpoint has them. They are copied, and nothing checks that `inverse` is
    the inverse of `matrix`.

    Args:
        mean: shape `(d_in,)`.
        matrix: M, shape `(d_in, d_in)`.
        inverse: M⁻¹, shape `(d_in, d_in)`.
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
        """Returns the map that leaves activations of width `d_in` as they are."""
        return cls(torch.zeros(d_in), torch.eye(d_in), torch.eye(d_in))

    @classmethod
    def scaled(cls, mean: Tensor, matrix: Tensor, inverse: Tensor, second_moment: Tensor) -> "InputTransform":
        """Returns the map with M scaled by a positive number such that E‖x̃‖² = 1 on the data.

        The factor is 1/√trace(Mᵀ C M) with the covariance C = E[x xᵀ] − mean meanᵀ.

        Args:
            mean: mean of the data, shape `(d_in,)`.
            matrix: M before scaling, shape `(d_in, d_in)`.
            inverse: M⁻¹ before scaling, shape `(d_in, d_in)`.
            second_moment: E[x xᵀ] of the data, not centred, shape `(d_in, d_in)`.

        Returns:
            The map in float32. The factor is computed in the dtype of the arguments; float64 is advisable.
        """
        scale = _mean_square(matrix, mean, second_moment).rsqrt()
        return cls(*(value.float() for value in (mean, matrix * scale, inverse / scale)))

    def root_mean_square(self, mean: Tensor, second_moment: Tensor) -> float:
        """Computes the root mean square of a coordinate of x̃ about its mean: √(trace(Mᵀ C M) / d_in).

        Args:
            mean: mean of the data, shape `(d_in,)`.
            second_moment: E[x xᵀ] of the data, not centred, shape `(d_in, d_in)`.

        Returns:
            1/√d_in for the map that `scaled` returns on the same data.
        """
        return float((_mean_square(self.matrix.to(mean), mean, second_moment) / len(mean)).clamp(min=0).sqrt())

    @no_autocast()
    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """Maps raw activations x, shape `(..., d_in)`, to x̃ = (x − mean) M of the same shape."""
        return (x - self.mean) @ self.matrix

    @no_autocast()
    def restore(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """Maps transformed activations x̃, shape `(..., d_in)`, back to raw ones: x̃ M⁻¹ + mean."""
        return x @ self.inverse + self.mean


def _mean_square(matrix: Tensor, mean: Tensor, second_moment: Tensor) -> Tensor:
    """Computes E‖(x − mean) M‖² = trace(Mᵀ C M), with the covariance C = E[x xᵀ] − mean meanᵀ."""
    return (matrix.T @ (second_moment - torch.outer(mean, mean)) @ matrix).trace()


@overload
def fold(sae: ThresholdSAE, transform: InputTransform) -> ThresholdSAE: ...
@overload
def fold(sae: BaselineSAE, transform: InputTransform) -> BaselineSAE: ...
@overload
def fold(sae: SAE, transform: InputTransform) -> SAE: ...
@torch.no_grad()
@no_autocast()
def fold(sae: SAE, transform: InputTransform) -> SAE:
    """Makes the SAE of raw activations that has the codes of an SAE of transformed ones.

    From z = (x − mean) M W̃_enc + b̃_enc follow W_enc = M W̃_enc and b_enc = b̃_enc − mean W_enc; from
    x̂ = (f W̃_dec + b̃_dec) M⁻¹ + mean follow W_dec = W̃_dec M⁻¹ and b_dec = b̃_dec M⁻¹ + mean. The pre-activations stay,
    and with them what makes codes of them.

    Args:
        sae: the SAE of transformed activations x̃.
        transform: the map from raw activations to x̃.

    Returns:
        An SAE of the same kind with an encoder of its own, equal to `transform.restore(sae(transform(x)))` up to
        rounding. Its atoms do not have unit norm in general.

    Cost: 4·d_in²·d_sae FLOPs.
    """
    W_enc = transform.matrix @ sae.W_enc
    shift = transform.mean @ W_enc
    if sae.apply_b_dec_to_input:  # x minus the folded b_dec, b̃_dec M⁻¹ + mean, is already shifted by the mean
        shift = torch.zeros_like(shift)
    return sae.moved(W_enc, shift, sae.W_dec @ transform.inverse, sae.b_dec @ transform.inverse + transform.mean)
