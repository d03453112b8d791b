"""Chooses the coefficient of an ℓ1 term while it trains, so that an SAE that has one reaches a wanted L0."""

import math
from typing import final

import torch
from torch import Tensor, nn

_START = 0.01  # in coordinates in which E‖x̃‖² = 1
_GAIN = 0.02
_MOST = 1.0  # of the logarithm of L0 over its target


@final
class L1Control(nn.Module):
    """The coefficient λ of the ℓ1 term of a ReLU or gated SAE, which rises where too many latents fire.

    After each step log λ changes by 0.02·log(L0/L0*), which is cut off at ±0.02. So comparisons at one L0 need no search
    for the λ that gives it. λ is a buffer, which checkpoints have.

    Attributes:
        coefficient: λ, a float32 scalar; starts at 0.01, in coordinates in which inputs have a mean square norm of 1.
    """

    coefficient: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("coefficient", torch.tensor(_START))

    @torch.no_grad()
    def observe(self, l0: Tensor, target: float) -> None:
        """Changes λ after a step.

        Args:
            l0: mean number of latents that fired on a vector of the batch, a scalar; the mean over all processes, so that
                all have the same λ.
            target: L0*, above 0.
        """
        off = (l0.clamp(min=1e-9).log() - math.log(target)).clamp(-_MOST, _MOST)
        self.coefficient.mul_((_GAIN * off).exp().to(self.coefficient))
