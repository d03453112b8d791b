"""Watches a training while it runs: says in one sentence what goes wrong, and may leave out batches that are not finite."""

import logging
import sys
from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from atomlab.ranges import Count, Index
from atomlab.training.failed_training import TrainingFailedError
from atomlab.training.module import SAEModule

_log = logging.getLogger(__name__)
_DENSE = 0.5  # share of all latents that are active in one vector
_SILENT = 0.1  # active latents in one vector
_GROWN = 8.0  # times the L0 that the training started with
_PARTS = 10  # of the steps; the means over them tell whether anything is learned
_SHORTEST = 50  # steps of a run whose parts are long enough to tell
_LEAST = 1e-3  # by which error or L0 must have fallen, as a share


@final
class Guards(Callback):
    """Warns once, of codes that become dense, of codes that become empty, or of a training that learns nothing.

    - Codes become dense: the mean L0 of `every` steps is above 8 times that of the first `every` steps, or above half of all
      latents where it began at less than a quarter of them.
    - Codes become empty: that mean is below 0.1. Where it is 0, all latents are dead.
    - Nothing is learned: over the last tenth of the steps so far, neither the reconstruction error (as a share of the variance)
      nor L0 is lower than over the first tenth, by a thousandth of its value. From the third tenth on, in runs of 50 steps
      or more.

    The training goes on after a warning, which goes to standard error. A loss or gradient that is NaN or infinite ends it
    (`TrainingFailedError`). With `skip` up to so many such batches are left out instead, and the log names each of them: their
    gradients are dropped on all processes, so that the moments of the optimiser stay as they are, and the weights up to the
    rounding of `DecoderNorm`.

    Args:
        every: number of steps that L0 and firings are averaged over.
        skip: number of batches that may be left out.

    Raises:
        ValueError: `every` is below 1 or `skip` below 0.
        TrainingFailedError: in training, more than `skip` steps whose gradients are not finite.
    """

    def __init__(self, every: Count = 50, skip: Index = 0) -> None:
        if every < 1:
            raise ValueError(f"callbacks.guards.every={every} should be 1 or more.")
        if skip < 0:
            raise ValueError(f"callbacks.guards.skip={skip} should be 0 or more.")
        self.every, self.skip, self.skipped = every, skip, 0
        self.l0 = _Mean()
        self.first_l0: float | None = None
        self.part, self.parts = [_Mean(), _Mean()], []  # error and L0 of this tenth of the steps, and of those before
        self.said = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        assert isinstance(pl_module, SAEModule)
        pl_module.skips_not_finite = self.skip > 0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Drops gradients that are not finite. All processes decide alike, also those that hold other latents.

        Args:
            trainer, pl_module, optimizer: as Lightning passes them.
        """
        if not self.skip:
            return
        assert isinstance(pl_module, SAEModule)
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        if not gradients or not pl_module.any_process(~torch.stack([g.isfinite().all() for g in gradients]).all()):
            return
        self.skipped += 1
        if self.skipped > self.skip:
            raise TrainingFailedError(
                f"{self.skipped} batches gave NaN or infinite gradients by step {trainer.global_step}, and "
                f"callbacks.guards.skip={self.skip} allows no more: lower training.schedule.learning_rate, or check the "
                "activations."
            )
        optimizer.zero_grad(set_to_none=True)  # a parameter without a gradient is left as it is, moments and all
        _log.warning(
            "Step %d is left out, since its gradients are NaN or infinite (%d of at most %d).",
            trainer.global_step, self.skipped, self.skip,
        )  # fmt: skip

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SAEModule)
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if pl_module.seen is None:
            return
        error, l0 = pl_module.seen
        for mean, value in ((self.l0, l0), (self.part[0], error), (self.part[1], l0)):
            mean.add(value)
        step = trainer.global_step
        if self.l0.count == self.every:
            self._look_at_codes(trainer, pl_module)
            self.l0 = _Mean()
        if step * _PARTS // trainer.max_steps > (step - 1) * _PARTS // trainer.max_steps:
            self._look_at_learning(trainer)

    def _look_at_codes(self, trainer: Trainer, module: SAEModule) -> None:
        l0, d_sae, step = self.l0.value, module.sae.shard.d_sae, trainer.global_step
        if self.first_l0 is None:
            self.first_l0 = l0
        if l0 < _SILENT:
            dead = f"all {d_sae:,} latents are dead" if l0 == 0 else f"nearly all of {d_sae:,} latents are dead"
            self._say(
                trainer,
                f"the codes are becoming empty: L0 is {l0:.3g} at step {step} and was {self.first_l0:.4g} at the start, so "
                f"{dead} and nothing is learned any more. Lower training.sparsity.coefficient or "
                "training.schedule.learning_rate.",
            )
        elif l0 > _GROWN * self.first_l0 or (l0 > _DENSE * d_sae and self.first_l0 < _DENSE / 2 * d_sae):
            self._say(
                trainer,
                f"the codes are becoming dense: L0 is {l0:.4g} of {d_sae:,} latents at step {step}, and was "
                f"{self.first_l0:.4g} at the start. Raise training.sparsity.coefficient, or lower "
                "training.schedule.learning_rate.",
            )

    def _look_at_learning(self, trainer: Trainer) -> None:
        self.parts.append([mean.value for mean in self.part])
        self.part = [_Mean(), _Mean()]
        if trainer.max_steps < _SHORTEST or len(self.parts) < 3:
            return
        (error, l0), (last_error, last_l0) = self.parts[0], self.parts[-1]
        if last_error >= (1 - _LEAST) * error and last_l0 >= (1 - _LEAST) * l0:
            self._say(
                trainer,
                f"the training learns nothing: R² was {1 - error:.4g} over its first tenth and is {1 - last_error:.4g} "
                f"over the steps before step {trainer.global_step}, and L0 did not fall either ({l0:.4g}, {last_l0:.4g}). "
                "Try another training.schedule.learning_rate.",
            )

    def _say(self, trainer: Trainer, sentence: str) -> None:
        if not self.said and trainer.is_global_zero:
            sys.stderr.write(f"\natomlab: warning: {sentence}\n")
        self.said = True

    def state_dict(self) -> dict[str, Any]:
        means = [self.l0, *self.part]
        return {
            "skipped": self.skipped, "first_l0": self.first_l0, "parts": self.parts, "said": self.said,
            "means": [[float(mean.total), mean.count] for mean in means],
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped, self.first_l0 = state_dict["skipped"], state_dict["first_l0"]
        self.parts, self.said = state_dict["parts"], state_dict["said"]
        self.l0, *self.part = (_Mean(total, count) for total, count in state_dict["means"])


@final
class _Mean:
    """A running mean of numbers that may be on a GPU, which is not waited for until the mean is read."""

    def __init__(self, total: float = 0.0, count: int = 0) -> None:
        self.total: float | Tensor = total
        self.count = count

    def add(self, value: Tensor) -> None:
        """Adds a number, unless it is not finite: a batch that was left out."""
        finite = value.detach().double()
        self.total, self.count = self.total + torch.where(finite.isfinite(), finite, 0.0), self.count + 1

    @property
    def value(self) -> float:
        """The mean; 0 of no numbers."""
        return float(self.total) / max(1, self.count)
