"""Loss terms (theory.md 7). The sparsity gradient is taken on pre-activations, so that the window below θ counts."""

from dataclasses import dataclass
from typing import Protocol, final

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor

from atomlab.sae.autoencoder import ThresholdSAE, decoder_norms
from atomlab.sae.thresholding import step


def reconstruction_loss(x: Float[Tensor, "batch d_in"], x_hat: Float[Tensor, "batch d_in"]) -> Float[Tensor, ""]:
    """mean over the batch of ‖x − x̂‖²."""
    return (x - x_hat).square().sum(1).mean()


def mean_l0(z: Float[Tensor, "batch d_sae"], threshold: Float[Tensor, " d_sae"], bandwidth: float) -> Float[Tensor, ""]:
    """mean over the batch of Σ_j H(z_j − θ_j), with a gradient to θ."""
    return step(z, threshold, bandwidth).sum(1).mean()


def target_l0_penalty(
    z: Float[Tensor, "batch d_sae"], threshold: Float[Tensor, " d_sae"], bandwidth: float, target: float
) -> Float[Tensor, ""]:
    """((L0/L0*) − 1)², L0 the mean over the global batch of all processes.

    Its value is all-reduced; its gradient flows through this process's own part with full weight, which is exact when gradients are
    averaged over processes (as DDP does) and all have the same batch size.
    """
    l0 = mean_l0(z, threshold, bandwidth)
    if dist.is_available() and dist.is_initialized():
        total = l0.detach().clone()
        dist.all_reduce(total)
        l0 = l0 + (total / dist.get_world_size() - l0).detach()
    return (l0 / target - 1).square()


def tanh_penalty(
    codes: Float[Tensor, "batch d_sae"], norms: Float[Tensor, " d_sae"], scale: float
) -> Float[Tensor, ""]:
    """mean over the batch of Σ_j tanh(c·f_j·‖d_j‖) (Anthropic, January 2025)."""
    return torch.tanh(scale * codes * norms).sum(1).mean()


def pre_activation_penalty(
    z: Float[Tensor, "batch d_sae"],
    threshold: Float[Tensor, " d_sae"],
    norms: Float[Tensor, " d_sae"],
    dead: Bool[Tensor, " d_sae"],
) -> Float[Tensor, ""]:
    """mean over the batch of Σ_{j dead} ReLU(θ_j − z_j)·‖d_j‖: pulls latents that never fire back to their threshold."""
    return (torch.relu(threshold - z) * (norms * dead)).sum(1).mean()


class Sparsity(Protocol):
    """A sparsity term, its coefficient λ included, on one batch's pre-activations and codes."""

    def __call__(self, sae: ThresholdSAE, z: Tensor, codes: Tensor) -> Tensor: ...


@final
@dataclass(frozen=True)
class L0:
    """λ·L0. The result saturates in λ: to reach a given L0 use `TargetL0`."""

    coefficient: float

    def __call__(self, sae: ThresholdSAE, z: Tensor, codes: Tensor) -> Tensor:
        return self.coefficient * mean_l0(z, sae.threshold, sae.bandwidth)


@final
@dataclass(frozen=True)
class TargetL0:
    """λ((L0/L0*) − 1)²."""

    coefficient: float
    target: float

    def __call__(self, sae: ThresholdSAE, z: Tensor, codes: Tensor) -> Tensor:
        return self.coefficient * target_l0_penalty(z, sae.threshold, sae.bandwidth, self.target)


@final
@dataclass(frozen=True)
class Tanh:
    """λ·Σ tanh(c·f·‖d‖)."""

    coefficient: float
    scale: float = 4.0

    def __call__(self, sae: ThresholdSAE, z: Tensor, codes: Tensor) -> Tensor:
        return self.coefficient * tanh_penalty(codes, decoder_norms(sae.W_dec), self.scale)
