"""Finds the checkpoint that a run goes on from, records in each one what was trained, and refuses those of other trainings."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from lightning.pytorch import Callback, LightningModule, Trainer

from atomlab.identity import Identity, check_same, comparable_identity, warn_of_other_code
from atomlab.interop.checkpoint import find_checkpoint

_KEY = "identity"
_AUTO = "auto"


@final
class RunIdentity(Callback):
    """Writes the identity of the run into every checkpoint, and reopens the checkpoint of a finished run for more steps.

    Args:
        identity: the record of the run (`atomlab.identity`).
    """

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[_KEY] = self.identity

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if checkpoint["global_step"] < trainer.max_steps:
            reopen(checkpoint)


def checkpoint_to_resume(resume: str | None, own: Path, *, named: bool) -> Path | None:
    """Finds the checkpoint that a run goes on from.

    Args:
        resume: `auto`, for the newest checkpoint in the folder of the run itself that can be read; a checkpoint; the folder
            of a run, for the newest one in it that can be read; or None.
        own: folder of the run.
        named: whether the command line names that folder.

    Returns:
        A checkpoint that can be read as a whole. None where `resume` is None, and where it is `auto` and the folder has no
        checkpoints yet. A line on standard error says so in the second case.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: no checkpoint can be read, or `auto` without a folder that is named.
    """
    if resume != _AUTO:
        return None if resume is None else find_checkpoint(resume)
    if not named:
        raise ValueError(
            "resume=auto looks for checkpoints in the folder of the run, which is a new one unless it is named: give "
            "hydra.run.dir=<folder> as well, or the folder of a run as resume."
        )
    if not any((own / "checkpoints").glob("[!.]*.ckpt")):
        sys.stderr.write(f"atomlab: resume=auto: {own} has no checkpoint yet, so the training starts.\n")
        return None
    return find_checkpoint(own)


def check_resumable(checkpoint: Mapping[str, Any], identity: Identity, source: str) -> None:
    """Refuses a checkpoint that the run cannot continue from.

    Args:
        checkpoint: the content of the checkpoint.
        identity: the record of the run that should continue.
        source: names the checkpoint in messages.

    Raises:
        ValueError: the checkpoint has no record; or its record differs in more than `atomlab.identity.MAY_DIFFER`; or it
            has done more steps than the run asks for.
    """
    then = comparable_identity(checkpoint.get(_KEY), source)
    check_same(
        identity, then, what=source, remedy="give the options of that run again, or leave out resume to start a new one"
    )
    warn_of_other_code(identity, then, source)
    done = checkpoint["global_step"]
    if identity["steps"] < done:
        raise ValueError(
            f"{source} has done {done} steps, more than steps={identity['steps']}: ask for {done} or more, or leave out "
            "resume to start a new run."
        )


def reopen(checkpoint: dict[str, Any]) -> None:
    """Marks the epoch in the checkpoint of a finished run as unfinished, in place, so that Lightning continues it.

    A run is a single epoch. In the checkpoint of a finished run this epoch is over, and Lightning would train nothing. The
    progress becomes that of a checkpoint that was saved after the same batch in the middle of a run.

    Args:
        checkpoint: the content of a checkpoint, which is changed.
    """
    loop = checkpoint["loops"]["fit_loop"]
    for count in ("total", "current"):
        loop["epoch_progress"][count] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    batches = loop["epoch_loop.batch_progress"]
    if (
        batches["current"]["completed"] == batches["current"]["ready"]
    ):  # saved after the end of the batch, which Lightning
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1  # has counted already and will count again
    done = batches["total"]["ready"]
    batches["current"] |= {"ready": done, "started": done, "processed": done, "completed": done - 1}
    batches["total"] |= {"ready": done, "started": done, "processed": done, "completed": done - 1}
    batches["is_last_batch"] = False
