"""Several TSAEs trained in one process, on batches that are read and transformed once: what their trainings share."""

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from lightning import Trainer

from atomlab.activations.batches.lockstep import Lockstep
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.identity import Identity, differences
from atomlab.training.last_checkpoint import LastCheckpoint
from atomlab.training.stop_signals import StopSignals

_OWN = ("seed", "sae", "training", "code")  # in which members may differ
_SHARED = ("sae.inputs", "sae.alpha")  # but not in these, which the coordinates of the batches depend on


@final
class Bank:
    """What the members of a bank share: data, turns, coordinates of the batches, and the signals that stop them.

    Each member is trained as it would be alone: by a trainer, module, loggers and checkpoints of its own, with random
    numbers of its own. So its numbers are the same, bit for bit on a CPU.
    """

    def __init__(self) -> None:
        self.lockstep, self.signals = Lockstep(), StopSignals()
        self.first: tuple[ActivationDataModule, Identity] | None = None

    def join(self, data: ActivationDataModule, identity: Identity, trainer: Trainer) -> ActivationDataModule:
        """Takes a training into the bank, before its harvest.

        Args:
            data: of the training, not set up.
            identity: the record of the training.
            trainer: of the training. Its signals become those of the bank; its progress bar is shown if it is the first.

        Returns:
            The data to train on: those of the first member, in turns with the others.

        Raises:
            ValueError: the training has several processes, reads straight from the language model, or differs from the first
                member in what all of them share.
        """
        if trainer.world_size > 1 or data.batches.online is not None:
            raise ValueError(
                "bank=true trains in one process, from the cache: use trainer.devices=1 and activations=default, or leave out "
                "bank."
            )
        if self.first is None:
            self.first = data, identity
        elif trainer.progress_bar_callback is not None:
            trainer.progress_bar_callback.disable()
        _check_shared(self.first[1], identity)
        for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(callback, LastCheckpoint):
                callback.signals = self.signals
        return self.first[0].in_lockstep(self.lockstep)

    def wait_for_all(self) -> None:
        """Lets a training that took all its steps wait for the others.

        Raises:
            SystemExit: a signal came meanwhile.
        """
        self.lockstep.wait_for_all()
        self._end_if_asked()

    def run(self, trainings: Sequence[Callable[["Bank"], None]]) -> None:
        """Runs trainings to their ends. After a signal each of them saves and ends, and none begins.

        Args:
            trainings: each calls `join`, trains, and calls `wait_for_all`. None of them raises an error but SystemExit.
        """

        def task(training: Callable[["Bank"], None]) -> Callable[[], None]:
            def run() -> None:
                try:
                    self._end_if_asked()
                    training(self)
                except SystemExit:
                    self.signals.asked = self.signals.asked or signal.SIGTERM

            return run

        self.lockstep.run([task(training) for training in trainings])

    def _end_if_asked(self) -> None:
        if self.signals.asked:
            raise SystemExit(128 + self.signals.asked)


def run_bank(trainings: Sequence[Callable[[Bank], None]]) -> None:
    """Runs trainings in turns, in a bank of their own (`Bank.run`)."""
    Bank().run(trainings)


def _check_shared(first: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuses a member whose batches would be others."""
    found = {
        key: pair for key, pair in differences(own, first).items() if key in _SHARED or key.split(".")[0] not in _OWN
    }
    for key, (here, there) in found.items():
        raise ValueError(
            f"bank=true trains all jobs on the same batches, and {key} is {there} in the first job and {here} in this one: give "
            f"all jobs the same {key}, or leave out bank."
        )
