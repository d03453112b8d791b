"""A training that has gone wrong says so: at once where a number is not finite, and at its end where it got worse."""

import math
from typing import Any, final

import torch
from torch import Tensor, nn

_LAST = 0.1  # share of the steps at the end that is judged
_WORSE = 2.0  # times the variance of the inputs: R² below −1


@final
class Divergence(nn.Module):
    """Compares the reconstruction error of the last tenth of the steps with that of the first step.

    A run has diverged if its mean error over the last tenth is above that of its first step and above twice the
    variance of its inputs, that is R² < −1. The first condition lets runs pass that are too short to have learnt the
    mean of raw inputs (their R² starts far below 0 and rises), the second those whose latents all went silent under a
    large sparsity term (their R² falls to 0 and not below it). The state is in the checkpoint.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.error, self.variance = math.nan, 0.0, 0.0

    @torch.no_grad()
    def observe(self, error: Tensor, variance: Tensor, progress: float) -> None:
        """Takes in a step's mean ‖x − x̂‖² and mean ‖x − x̄‖².

        Args:
            error, variance: scalars.
            progress: share of the run's steps that are done.
        """
        if math.isnan(self.first):
            self.first = float(error / variance)
        if progress >= 1 - _LAST:
            self.error += float(error)
            self.variance += float(variance)

    @property
    def diverged(self) -> bool:
        """Whether the steps seen so far end worse than they began; False before the last tenth."""
        last = self.error / self.variance if self.variance > 0 else 0.0
        return last > max(_WORSE, self.first)

    @property
    def sentence(self) -> str:
        """What is said of a run that diverged."""
        return (
            f"the training diverged: the reconstruction error was {self.first:.3g} times the variance of the inputs at "
            f"the first step and is {self.error / self.variance:.3g} times it at the end. Lower training.schedule.learning_rate."
        )

    def get_extra_state(self) -> dict[str, Any]:
        return {"first": self.first, "error": self.error, "variance": self.variance}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.first, self.error, self.variance = (float(state[name]) for name in ("first", "error", "variance"))


def check_finite(loss: Tensor, batch: Tensor, step: int, learning_rate: float) -> None:
    """Ends a training whose loss is NaN or infinite: nothing that follows could be right.

    Raises:
        ValueError: says whether the activations or the training is at fault.
    """
    if loss.isfinite():
        return
    if not batch.isfinite().all():
        raise ValueError(
            f"The batch of step {step} has NaN or infinite activations: check the model's dtype and the harvest's "
            "precision, and remove the harvest from the cache."
        )
    raise ValueError(
        f"The loss is {float(loss)} at step {step}: lower training.schedule.learning_rate={learning_rate:.3g}, or use "
        "trainer.precision=32-true if it is another."
    )
