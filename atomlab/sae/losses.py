"""Loss terms (theory.md 7). The sparsity gradient is taken on pre-activations, so that the window below θ counts."""

import math
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from atomlab.sae.autoencoder import ThresholdSAE, decoder_norms
from atomlab.sae.sparse_code import Code
from atomlab.sae.thresholding import step


def reconstruction_loss(x: Float[Tensor, "batch d_in"], x_hat: Float[Tensor, "batch d_in"]) -> Float[Tensor, ""]:
    """mean over the batch of ‖x − x̂‖²."""
    return (x - x_hat).square().sum(1).mean()


def mean_l0(code: Code, threshold: Float[Tensor, " d_sae"], bandwidth: float) -> Float[Tensor, ""]:
    """mean over the batch of Σ_j H(z_j − θ_j), with a gradient to θ."""
    return step(code.z, code.at(threshold), bandwidth).sum() / code.batch


def target_l0_penalty(
    code: Code, threshold: Float[Tensor, " d_sae"], bandwidth: float, target: float
) -> Float[Tensor, ""]:
    """((L0/L0*) − 1)², L0 the mean over the global batch of all processes.

    Its value is all-reduced; its gradient flows through this process's own part with full weight, which is exact when
    gradients are averaged over processes (as DDP does) and all have the same batch size.
    """
    l0 = mean_l0(code, threshold, bandwidth)
    if dist.is_available() and dist.is_initialized():
        total = l0.detach().clone()
        dist.all_reduce(total)
        l0 = l0 + (total / dist.get_world_size() - l0).detach()
    return (l0 / target - 1).square()


def tanh_penalty(code: Code, norms: Float[Tensor, " d_sae"], scale: float) -> Float[Tensor, ""]:
    """mean over the batch of Σ_j tanh(c·f_j·‖d_j‖) (Anthropic, January 2025)."""
    return torch.tanh(scale * code.values * code.at(norms)).sum() / code.batch


def pre_activation_penalty(
    z: Float[Tensor, "batch dead"], threshold: Float[Tensor, " dead"], norms: Float[Tensor, " dead"]
) -> Float[Tensor, ""]:
    """mean over the batch of Σ_{j dead} ReLU(θ_j − z_j)·‖d_j‖, given the dead latents only: pulls them back to their
    threshold."""
    return (torch.relu(threshold - z) * norms).sum() / len(z)


@runtime_checkable
class Sparsity(Protocol):
    """A sparsity term, its coefficient λ included, on one batch's code."""

    def __call__(self, sae: ThresholdSAE, code: Code) -> Tensor: ...


@final
@dataclass(frozen=True)
class L0:
    """λ·L0. The result saturates in λ: to reach a given L0 use `TargetL0`."""

    coefficient: float

    def __post_init__(self) -> None:
        _check(coefficient=self.coefficient)

    def __call__(self, sae: ThresholdSAE, code: Code) -> Tensor:
        return self.coefficient * mean_l0(code, sae.threshold, sae.bandwidth)


@final
@dataclass(frozen=True)
class TargetL0:
    """λ((L0/L0*) − 1)², L0 the mean over a batch of all processes: with accumulated gradients over each batch by itself,
    whose squares are averaged.
    """

    coefficient: float
    target: float

    def __post_init__(self) -> None:
        _check(coefficient=self.coefficient)
        if isinstance(self.target, bool) or not isinstance(self.target, int | float) or not 0 < self.target < math.inf:
            raise ValueError(
                f"training.sparsity.target={self.target} should be the number of latents that are to fire on a vector, above "
                "0, such as 40."
            )

    def __call__(self, sae: ThresholdSAE, code: Code) -> Tensor:
        return self.coefficient * target_l0_penalty(code, sae.threshold, sae.bandwidth, self.target)


@final
@dataclass(frozen=True)
class Tanh:
    """λ·Σ tanh(c·f·‖d‖)."""

    coefficient: float
    scale: float = 4.0

    def __post_init__(self) -> None:
        _check(coefficient=self.coefficient, scale=self.scale)

    def __call__(self, sae: ThresholdSAE, code: Code) -> Tensor:
        return self.coefficient * tanh_penalty(code, decoder_norms(sae.W_dec), self.scale)


def _check(**numbers: object) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"training.sparsity.{name}={value} should be 0 or a number above it.")
