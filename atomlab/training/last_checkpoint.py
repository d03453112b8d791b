"""Keeps a checkpoint from which a run continues exactly, after Ctrl-C or a signal of a scheduler at any step."""

import logging
import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from atomlab.activations.store.files import remove_unfinished
from atomlab.files import UNFINISHED, atomic_write
from atomlab.groups import Groups
from atomlab.ranges import Count
from atomlab.training.checkpoint_io import CheckpointFiles
from atomlab.training.failed_training import TrainingFailedError
from atomlab.training.stop_signals import StopSignals

_BEST = "best.ckpt"
_log = logging.getLogger(__name__)


@final
class LastCheckpoint(Callback):
    """Writes `last.ckpt` regularly, at the end of the training, and at the first signal, which ends the run.

    Signals are SIGINT, SIGTERM, and SIGUSR1 and SIGUSR2, by which Slurm and submitit tell a job that its time is nearly over.

    At most three files are kept: `last.ckpt`; `previous.ckpt`, the one before it; and `best.ckpt`, that of the validation with
    the largest R² in the S-norm, if the run validates before its end too (`trainer.val_check_interval`). Weights that are not
    finite are never written. `resume=<folder>/last.ckpt` continues the run, bit for bit on a CPU.

    After a signal the step or the validation under way is finished first. The same signal again, more than a second later, does
    what it did before the training began. Several processes decide together at every tenth step, so that all of them save
    and stop at the same one. The exit code is 128 + the number of the signal. Further processes end with 0, since Lightning
    kills the first process when another one fails.

    Args:
        folder: where the checkpoint goes. A new one replaces the old one as a whole, so a kill never leaves half a file.
        every: number of steps between two checkpoints.

    Raises:
        ValueError: `every` is below 1.
        TrainingFailedError: in training, weights that are not finite.
    """

    def __init__(self, folder: str, every: Count = 250) -> None:
        if every < 1:
            raise ValueError(f"callbacks.last.every={every} should be 1 or more.")
        self.path, self.every = Path(folder) / "last.ckpt", every
        self.signals = StopSignals()
        self.saved = -1  # the step of the last checkpoint
        self.best = -math.inf  # R² in the S-norm of best.ckpt
        self.unsaved: str | None = None  # why the newest checkpoint could not be written

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        trainer.strategy.checkpoint_io = CheckpointFiles()
        self.signals.enter(self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the handlers only now, to replace Lightning's own, which communicates with other processes from inside.

        Args:
            trainer, pl_module: as Lightning passes them; not used.
        """
        self.signals.listen()
        if trainer.is_global_zero:
            remove_unfinished(self.path.parent)  # what a kill left, in a run that goes on in its folder

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # in the middle of a step: no checkpoint holds the gradients accumulated so far
        step = trainer.global_step
        asked = self._asked_of_any(trainer) if trainer.world_size == 1 or step % 10 == 0 else 0
        if asked or step % self.every == 0:
            self._save(trainer)
        self._stop(trainer, asked)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step, validated = trainer.global_step, getattr(pl_module, "validated", None)
        early = step < trainer.max_steps
        if trainer.state.fn != "fit" or trainer.sanity_checking or validated is None or validated[0] != step:
            return
        if validated[1] > self.best and (early or self.best > -math.inf):
            before, self.best = self.best, validated[1]
            if step != self.saved:
                self._save(trainer)
            if step != self.saved or not self._kept_as_best(trainer):  # the disk is full
                self.best = before

    def _kept_as_best(self, trainer: Trainer) -> bool:
        try:
            with Groups.of(trainer).everyone.fails_together():
                if trainer.is_global_zero:
                    _keep(self.path, self.path.with_name(_BEST))
        except OSError as error:
            if trainer.is_global_zero:
                _log.warning("%s stays as it was (%s); the training goes on.", self.path.with_name(_BEST), error)
            return False
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the best value, unless the run goes on in a new folder, which has no such checkpoint yet.

        Args:
            state_dict: as `state_dict` returned it.
        """
        if self.path.with_name(_BEST).exists():
            self.best = state_dict["best"]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, TrainingFailedError) and self.saved >= 0:
            good = f"The checkpoint of step {self.saved} is from before that: resume={self.path}"
            exception.args = (f"{exception} {good}",)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step != self.saved:
            self._save(trainer)
        self._stop(trainer, self._asked_of_any(trainer))
        self.signals.leave(self)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.signals.leave(self)

    def _asked_of_any(self, trainer: Trainer) -> int:
        """Returns the number of a signal that came to any process; 0 if none did."""
        if trainer.world_size == 1:
            return self.signals.asked
        asked = torch.tensor(self.signals.asked, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(asked, reduce_op="max"))

    def _stop(self, trainer: Trainer, number: int) -> None:
        if not number:
            return
        if not trainer.is_global_zero:
            raise SystemExit(0)
        sys.stderr.write(f"\natomlab: stopped after step {trainer.global_step}; go on with resume={self.path}\n")
        raise SystemExit(128 + number)

    def _save(self, trainer: Trainer) -> None:
        """Writes the checkpoint; if the disk is full or read-only, warns and lets the training go on.

        All processes hear of an error that one of them has, so that all know the same step as the last one that is saved.
        """
        self._refuse_weights_that_are_not_finite(trainer)
        try:
            self._write(trainer)
            self.saved, self.unsaved = trainer.global_step, None
        except OSError as error:
            self.unsaved = f"The checkpoint of step {trainer.global_step} could not be written to {self.path} ({error})"
            kept = f"{self.path} keeps that of step {self.saved}" if self.saved >= 0 else "there is none yet"
            if trainer.is_global_zero:
                _log.warning("%s; the training goes on, and %s.", self.unsaved, kept)

    def _write(self, trainer: Trainer) -> None:
        """Writes the checkpoint under another name, gives `last.ckpt` its second name, and puts the new one in its place."""
        everyone, arriving = Groups.of(trainer).everyone, self.path.with_name(f"{UNFINISHED}arriving.ckpt")
        try:
            with everyone.fails_together():
                try:  # under a temporary name: Lightning itself copies into place, and a kill could leave half a copy
                    trainer.save_checkpoint(arriving, weights_only=False)  # the optimiser and the loops as well
                except OSError:
                    trainer.strategy.barrier("Trainer.save_checkpoint")  # the other processes wait there
                    raise
            with everyone.fails_together():
                if trainer.is_global_zero:
                    with atomic_write(self.path) as whole:
                        os.replace(arriving, whole)
                        if self.path.exists():
                            _keep(self.path, self.path.with_name("previous.ckpt"))
        finally:
            if trainer.is_global_zero:
                with suppress(OSError):
                    arriving.unlink(missing_ok=True)

    def _refuse_weights_that_are_not_finite(self, trainer: Trainer) -> None:
        weights = [p.isfinite().all() for p in trainer.lightning_module.parameters()]
        broken = (~torch.stack(weights).all()).int()
        if trainer.world_size > 1:
            broken = trainer.strategy.reduce(broken, reduce_op="max")
        if broken:
            raise TrainingFailedError(
                f"The weights are NaN or infinite after step {trainer.global_step}, and no checkpoint is made of them: lower "
                "training.schedule.learning_rate."
            )

    def require_saved(self) -> None:
        """Reports, once the results are written, that the last checkpoint could not be.

        Raises:
            OSError: it could not be written.
        """
        if self.unsaved is not None:
            raise OSError(f"{self.unsaved}; the results are complete, and the run cannot go on from its end.")


def _keep(path: Path, name: Path) -> None:
    """Gives the file a second name, by a hard link; renames it on file systems without hard links.

    Whatever has that name already keeps it until the file takes it, so that a kill never finds the name gone.
    """
    link = name.with_name(f".{name.name}")
    link.unlink(missing_ok=True)
    try:
        link.hardlink_to(path)
    except OSError:
        os.replace(path, name)
        return
    os.replace(link, name)
    link.unlink(missing_ok=True)  # a file that has the name already is left with both names
