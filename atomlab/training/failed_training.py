"""Recognises trainings that failed: at once where a number is not finite, and at the end where the error grew."""

import math
from typing import Any, final

import torch
from torch import Tensor, nn

_LAST = 0.1  # share of the steps, at the end, that decides
_WORSE = 2.0  # times the variance of the inputs: R² is below −1
_GROWN = 1.5  # times the error of the first step: batches of a run that learns nothing differ by less


@final
class Divergence(nn.Module):
    """Compares the reconstruction error of the last tenth of the steps with that of the first step.

    A run has diverged if its mean error over the last tenth is above 1.5 times that of its first step, and above twice the
    variance of its inputs, that is R² < −1. The first condition spares runs that are too short to learn the mean of raw inputs:
    their R² starts far below 0 and rises, or stays there up to the difference of two batches. The second condition spares runs
    in which a large sparsity term silences all latents: their R² falls to 0 and not below it. The state is part of the
    checkpoint.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.error, self.variance = math.nan, 0.0, 0.0

    @torch.no_grad()
    def observe(self, error: Tensor, variance: Tensor, progress: float) -> None:
        """Adds the numbers of one step.

        Args:
            error: mean ‖x − x̂‖² over the batch, a scalar.
            variance: mean ‖x − x̄‖² over the batch, a scalar.
            progress: share of the steps of the run that are done, in [0, 1].
        """
        if math.isnan(self.first):
            self.first = float(error / variance)
        if progress >= 1 - _LAST:
            self.error += float(error)
            self.variance += float(variance)

    @property
    def diverged(self) -> bool:
        """Whether the run has diverged by the steps seen so far; False before the last tenth of them."""
        last = self.error / self.variance if self.variance > 0 else 0.0
        return last > max(_WORSE, _GROWN * self.first)

    @property
    def sentence(self) -> str:
        """The warning about a run that has diverged."""
        return (
            f"the training diverged: the reconstruction error was {self.first:.3g} times the variance of the inputs at "
            f"the first step and is {self.error / self.variance:.3g} times it at the end. Lower training.schedule.learning_rate."
        )

    def get_extra_state(self) -> dict[str, Any]:
        return {"first": self.first, "error": self.error, "variance": self.variance}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.first, self.error, self.variance = (float(state[name]) for name in ("first", "error", "variance"))


@final
class TrainingFailedError(ValueError):
    """A training cannot go on. `LastCheckpoint` adds to its message the checkpoint that is from before the failure."""


def not_finite(loss: Tensor, step: int, learning_rate: float, *, activations: bool) -> TrainingFailedError:
    """Makes the error of a training whose loss is NaN or infinite.

    Args:
        loss: of the step, a scalar; of several processes perhaps another one's is not finite.
        step: number of the step, for the message.
        learning_rate: for the message.
        activations: whether activations of the step, in any process, are NaN or infinite.

    Returns:
        The error; its message says whether the activations or the training is the cause.
    """
    if activations:
        return TrainingFailedError(
            f"The batch of step {step} has NaN or infinite activations: check the model's dtype and the harvest's "
            "precision, and remove the harvest from the cache; callbacks.guards.skip=10 leaves out up to 10 such batches."
        )
    value = "NaN or infinite" if loss.isfinite() else float(loss)
    return TrainingFailedError(
        f"The loss is {value} at step {step}: lower training.schedule.learning_rate={learning_rate:.3g}, or use "
        "trainer.precision=32-true if it is another."
    )
