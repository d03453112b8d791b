"""Runs that may be stopped at any step, by Ctrl-C or by a scheduler, and go on later as if they never had been."""

import logging
import os
import signal
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from atomlab.files import atomic_write

_log = logging.getLogger(__name__)


@final
class LastCheckpoint(Callback):
    """Keeps `last.ckpt`: every `every` steps, at the end, and at the first SIGINT or SIGTERM, which ends the run; and
    the one before it as `previous.ckpt`.

    `resume=<folder>/last.ckpt` goes on from there, bit for bit on a CPU. The step or the validation under way is finished
    first; a second signal, a second or more later, does what it did before the training. Several processes agree to stop
    at every tenth step, so that all of them save together. The exit code is 128 + the signal's number; further processes
    end with 0, since Lightning kills the first one when one of them fails.

    Args:
        folder: where the checkpoint goes; it is replaced as a whole, so a kill never leaves half of one.
        every: steps.

    Raises:
        ValueError: `every` below 1.
    """

    def __init__(self, folder: str, every: int = 250) -> None:
        if every < 1:
            raise ValueError(f"callbacks.last.every={every} should be 1 or more.")
        self.path, self.every = Path(folder) / "last.ckpt", every
        self.asked, self.since = 0, 0.0  # the first signal's number, and when it came
        self.saved = -1  # the step of the last checkpoint
        self.unsaved: str | None = None  # why there is no newer one
        self.previous: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Not earlier, so that Lightning's own handler, which talks to other processes from inside, is replaced."""
        self._handle(dict.fromkeys(self.previous, self._ask))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # within a step: the gradients gathered so far are in no checkpoint
        step = trainer.global_step
        asked = self._asked_of_any(trainer) if trainer.world_size == 1 or step % 10 == 0 else 0
        if asked or step % self.every == 0:
            self._save(trainer)
        self._stop(trainer, asked)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step != self.saved:
            self._save(trainer)
        self._stop(trainer, self._asked_of_any(trainer))
        self._handle(self.previous)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._handle(self.previous)

    def _asked_of_any(self, trainer: Trainer) -> int:
        """The number of a signal that came to any process; 0 if none did."""
        if trainer.world_size == 1:
            return self.asked
        asked = torch.tensor(self.asked, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(asked, reduce_op="max"))

    def _stop(self, trainer: Trainer, number: int) -> None:
        if not number:
            return
        if not trainer.is_global_zero:
            raise SystemExit(0)
        sys.stderr.write(f"\natomlab: stopped after step {trainer.global_step}; go on with resume={self.path}\n")
        raise SystemExit(128 + number)

    def _handle(self, handlers: dict[int, Any]) -> None:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers in the main thread only
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _save(self, trainer: Trainer) -> None:
        """A disk that is full or cannot be written costs this checkpoint and not the run: a warning says so."""
        try:
            with atomic_write(self.path) if trainer.is_global_zero else nullcontext(self.path) as arriving:
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
        if not self.asked:
            self.asked, self.since = number, time.monotonic()
        elif time.monotonic() - self.since > 1:  # a terminal, a scheduler and a parent may each send the same signal
            signal.signal(number, self.previous[number])
            os.kill(os.getpid(), number)


def _keep(path: Path, name: Path) -> None:
    """The file under another name too, at no moment without its own; where there are no hard links it is renamed."""
    name.unlink(missing_ok=True)
    try:
        name.hardlink_to(path)
    except OSError:
        os.replace(path, name)
