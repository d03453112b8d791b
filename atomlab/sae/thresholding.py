"""The threshold activation σ_θ(z) = z·1[z > θ] and the step H(z − θ), with straight-through gradients (theory.md 7)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def _window(z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """Computes K((z − θ)/ε) with the rectangle K(u) = 1[|u| < ½], in the dtype of θ."""
    return ((z - threshold).abs() < bandwidth / 2).to(threshold.dtype)


class _ThresholdActivation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float, ste_to_input: bool) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth, ctx.ste_to_input = bandwidth, ste_to_input
        return z * (z > threshold).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (gradient,) = gradients
        z, threshold = ctx.saved_tensors
        # ∂f/∂z = 1[z > θ]  (+ (θ/ε) K((z − θ)/ε), Anthropic's)        ∂f/∂θ = −(θ/ε) K((z − θ)/ε)
        jump = threshold / ctx.bandwidth * _window(z, threshold, ctx.bandwidth)
        to_z = (z > threshold).to(z.dtype) + (jump.to(z.dtype) if ctx.ste_to_input else 0)
        return gradient * to_z, -(gradient.to(threshold.dtype) * jump).sum_to_size(threshold.shape), None, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return (z > threshold).to(threshold.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        (gradient,) = gradients
        z, threshold = ctx.saved_tensors
        # ∂H(z − θ)/∂θ = −(1/ε) K((z − θ)/ε), and nothing to z
        slope = _window(z, threshold, ctx.bandwidth) / ctx.bandwidth
        return None, -(gradient * slope).sum_to_size(threshold.shape), None


def threshold_activation(
    z: Float[Tensor, "*batch d_sae"], threshold: Float[Tensor, " d_sae"], bandwidth: float, ste_to_input: bool = False
) -> Float[Tensor, "*batch d_sae"]:
    """Computes f = z·1[z > θ], with straight-through gradients.

    The value is exact. The gradients replace the jump at θ by a window of width ε (theory.md 7):
    ∂f/∂θ = −(θ/ε) K((z − θ)/ε) and ∂f/∂z = 1[z > θ], with the rectangle K(u) = 1[|u| < ½]. The window reaches below θ,
    so a latent that does not fire can still lower its threshold.

    Args:
        z: pre-activations, shape `(..., d_sae)`, of any floating dtype.
        threshold: θ ≥ 0, shape `(d_sae,)`, float32 also under autocast.
        bandwidth: ε > 0.
        ste_to_input: whether ∂f/∂z gets (θ/ε) K((z − θ)/ε) in addition.

    Returns:
        f, in the shape and dtype of `z`. The gradient of θ is summed over the batch.
    """
    return _ThresholdActivation.apply(z, threshold, bandwidth, ste_to_input)  # type: ignore[no-any-return]


def step(
    z: Float[Tensor, "*batch d_sae"], threshold: Float[Tensor, " d_sae"], bandwidth: float
) -> Float[Tensor, "*batch d_sae"]:
    """Computes the step H(z − θ) = 1[z > θ], whose sum over the latents is L0, with a straight-through gradient to θ.

    The value is exact. The gradient is ∂H/∂θ = −(1/ε) K((z − θ)/ε), with the rectangle K(u) = 1[|u| < ½]; none flows
    to z (theory.md 7).

    Args:
        z: pre-activations, shape `(..., d_sae)`.
        threshold: θ, shape `(d_sae,)`.
        bandwidth: ε > 0.

    Returns:
        0 or 1, in the shape of `z` and the dtype of `threshold`.
    """
    return _Step.apply(z, threshold, bandwidth)  # type: ignore[no-any-return]
