"""Runs that may be stopped at any step, by Ctrl-C or by a scheduler, and go on later as if they never had been."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, final

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


@final
class LastCheckpoint(Callback):
    """Keeps `last.ckpt`: every `every` steps, at the end, and at the first SIGINT or SIGTERM, which ends the run.

    `resume=<folder>/last.ckpt` goes on from there, bit for bit on a CPU. The step under way is finished first; a second
    signal ends the run at once. Several processes agree to stop at every tenth step, so that all of them save together.

    Args:
        folder: where the checkpoint goes; it is replaced as a whole, so a kill never leaves half of one.
        every: steps.
    """

    def __init__(self, folder: str, every: int = 250) -> None:
        self.path, self.every, self.stop = Path(folder) / "last.ckpt", every, False
        self.saved = -1  # the step of the last checkpoint
        self.previous: dict[int, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # within a step: the gradients gathered so far are in no checkpoint
        step = trainer.global_step
        if trainer.world_size > 1 and step % 10 == 0:
            self.stop = trainer.strategy.reduce_boolean_decision(self.stop, all=False)
        now = self.stop and (trainer.world_size == 1 or step % 10 == 0)
        if now or step % self.every == 0:
            self._save(trainer)
        if now:
            if trainer.is_global_zero:
                sys.stderr.write(f"\natomlab: stopped after step {step}; go on with resume={self.path}\n")
            raise KeyboardInterrupt

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step != self.saved:
            self._save(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}

    def _save(self, trainer: Trainer) -> None:
        arriving = self.path.with_name(
            ".writing-last.ckpt"
        )  # Lightning writes elsewhere and copies, which a kill halves
        trainer.save_checkpoint(arriving, weights_only=False)
        if trainer.is_global_zero:
            os.replace(arriving, self.path)
        self.saved = trainer.global_step

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.stop = True
        signal.signal(number, self.previous[number])
