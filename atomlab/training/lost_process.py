"""Says in a sentence that another process of the run has ended, where the libraries say that a connection broke."""

import contextlib
import re
import threading
from collections.abc import Iterator

from lightning.pytorch import Trainer

from atomlab.training.failed_training import TrainingFailedError
from atomlab.training.last_checkpoint import LastCheckpoint

_OBSERVER = "child-process-observer"  # Lightning's thread
_BROKEN = re.compile(r"Connection (reset|closed)|Broken pipe|remote process exited")  # gloo's words, and NCCL's


@contextlib.contextmanager
def lost_process_in_words(trainer: Trainer) -> Iterator[None]:
    """Turns the error that a process gets when another one of its run has ended into a sentence that names the checkpoint.

    Args:
        trainer: whose processes work together inside the block.

    Yields:
        Nothing.

    Raises:
        TrainingFailedError: in place of a `RuntimeError` of torch's process groups about a broken connection.
    """
    try:
        yield
    except RuntimeError as error:
        if trainer.world_size == 1 or not _BROKEN.search(str(error)):
            raise
        _end_without_being_killed()
        saved = [c for c in trainer.callbacks if isinstance(c, LastCheckpoint) and c.path.exists()]  # pyright: ignore
        on = f"Go on with resume={saved[0].path}" if saved else "No checkpoint was written yet: start again"
        raise TrainingFailedError(
            f"Another of the {trainer.world_size} processes of this run has ended, so all of them end. What it printed says "
            f"why; one that was killed from outside, as for want of memory, prints nothing. {on}."
        ) from error


def _end_without_being_killed() -> None:
    """Lets the first process say its sentence and end by itself.

    Every five seconds a thread of Lightning's looks whether another process has failed, and kills this one, which may be about
    to say why. Processes that are left end with the first one (`atomlab.launch.ranks`).
    """
    for thread in threading.enumerate():
        if thread.name == _OBSERVER:
            vars(thread)["_child_processes"] = []
