"""Runs that may be stopped at any step, by Ctrl-C or by a scheduler, and go on later as if they never had been."""

import logging
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, final

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from atomlab.files import place

_log = logging.getLogger(__name__)


@final
class LastCheckpoint(Callback):
    """Keeps `last.ckpt`: every `every` steps, at the end, and at the first SIGINT or SIGTERM, which ends the run; and
    the one before it as `previous.ckpt`.

    `resume=<folder>/last.ckpt` goes on from there, bit for bit on a CPU. The step under way is finished first; a second
    signal ends the run at once. Several processes agree to stop at every tenth step, so that all of them save together.

    Args:
        folder: where the checkpoint goes; it is replaced as a whole, so a kill never leaves half of one.
        every: steps.
    """

    def __init__(self, folder: str, every: int = 250) -> None:
        self.path, self.every, self.stop = Path(folder) / "last.ckpt", every, False
        self.saved = -1  # the step of the last checkpoint
        self.unsaved: str | None = None  # why there is no newer one
        self.previous: dict[int, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
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
        """A disk that is full or cannot be written costs this checkpoint and not the run: a warning says so."""
        try:
            with place(self.path) if trainer.is_global_zero else nullcontext(self.path) as arriving:
                try:  # Lightning writes elsewhere and copies, which a kill halves
                    trainer.save_checkpoint(arriving, weights_only=False)
                except OSError:
                    trainer.strategy.barrier("Trainer.save_checkpoint")  # where the other processes wait
                    raise
                if trainer.is_global_zero and self.path.exists():
                    _keep(self.path, self.path.with_name("previous.ckpt"))
            self.saved, self.unsaved = trainer.global_step, None
        except OSError as error:
            self.unsaved = f"The checkpoint of step {trainer.global_step} could not be written to {self.path} ({error})"
            kept = f"{self.path} keeps that of step {self.saved}" if self.saved >= 0 else "there is none yet"
            _log.warning("%s; the training goes on, and %s.", self.unsaved, kept)

    def require_saved(self) -> None:
        """To be called after the results are written: raises OSError if the last checkpoint could not be."""
        if self.unsaved is not None:
            raise OSError(f"{self.unsaved}; the results are complete, and the run cannot go on from its end.")

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.stop = True
        signal.signal(number, self.previous[number])


def _keep(path: Path, name: Path) -> None:
    """The file under another name too, at no moment without its own; where there are no hard links it is renamed."""
    name.unlink(missing_ok=True)
    try:
        name.hardlink_to(path)
    except OSError:
        os.replace(path, name)
