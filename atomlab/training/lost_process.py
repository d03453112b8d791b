"""Says in a sentence that another process of the run has ended, where the libraries say that a connection broke."""

import contextlib
import re
import sys
import threading
import time
from collections.abc import Iterator

from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch import Trainer

from atomlab.training.failed_training import TrainingFailedError
from atomlab.training.last_checkpoint import LastCheckpoint

_BROKEN = re.compile(r"Connection (reset|closed)|Broken pipe|remote process exited")  # gloo's words, and NCCL's
_TO_SPEAK = 3.0  # seconds


@contextlib.contextmanager
def lost_process_in_words(trainer: Trainer) -> Iterator[None]:
    """Turns the error that a process gets when another one of its run has ended into a sentence that names the checkpoint.

    The first process says it. A further one ends at once without a word: some of the others may wait for it alone, and only
    its end tells them that they wait in vain, since gloo has no way to leave a group.

    Args:
        trainer: whose processes work together inside the block.

    Yields:
        Nothing.

    Raises:
        TrainingFailedError: in the first process, in place of a `RuntimeError` of torch's process groups about a broken
            connection.
        SystemExit: in a further one.
    """
    with _time_to_speak():
        try:
            yield
        except RuntimeError as error:
            if trainer.world_size == 1 or not _BROKEN.search(str(error)):
                raise
            if not trainer.is_global_zero:
                sys.exit(2)
            outlive_the_others()
            saved = [c for c in trainer.callbacks if isinstance(c, LastCheckpoint) and c.path.exists()]  # pyright: ignore
            on = f"Go on with resume={saved[0].path}" if saved else "No checkpoint was written yet: start again"
            raise TrainingFailedError(
                f"Another of the {trainer.world_size} processes of this run has ended, so all of them end. What it printed "
                f"says why; one that was killed from outside, as for want of memory, prints nothing. {on}."
            ) from error


def outlive_the_others() -> None:
    """Lets the first process go on, to its sentence or to its table, whatever the end of the others was.

    Processes that are left end with the first one (`atomlab.launch.ranks`).
    """
    for thread in threading.enumerate():
        if isinstance(thread, _ChildProcessObserver):
            thread._child_processes = []


@contextlib.contextmanager
def _time_to_speak() -> Iterator[None]:
    """Gives the first process some seconds to notice the end of another one and to say so, inside the block.

    Every five seconds a thread of Lightning's looks whether another process has failed, and kills them all, this one too.
    """
    kill = _ChildProcessObserver._terminate_all

    def later(self: _ChildProcessObserver) -> None:
        time.sleep(_TO_SPEAK)
        if self._child_processes:
            kill(self)

    _ChildProcessObserver._terminate_all = later
    try:
        yield
    finally:
        _ChildProcessObserver._terminate_all = kill
