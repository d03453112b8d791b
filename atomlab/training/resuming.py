"""Checkpoints that say what they are of, and runs that go on from them."""

from collections.abc import Mapping
from typing import Any, final

from lightning.pytorch import Callback, LightningModule, Trainer

from atomlab.identity import Identity, check_same, comparable_identity, say_other_code

KEY = "identity"


@final
class RunIdentity(Callback):
    """Writes what the run is into every checkpoint, and opens the checkpoint of a finished run for more steps.

    Args:
        identity: of the run (`atomlab.identity`).
    """

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = self.identity

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if checkpoint["global_step"] < trainer.max_steps:
            reopen(checkpoint)


def check_resumable(checkpoint: Mapping[str, Any], identity: Identity, source: str) -> None:
    """Refuses a checkpoint that the run cannot go on from.

    Args:
        checkpoint: as it was read.
        identity: of the run that asks.
        source: names the checkpoint in messages.

    Raises:
        ValueError: it is of another run, in more than `atomlab.identity.MAY_DIFFER`, or has done more steps than asked for.
    """
    then = comparable_identity(checkpoint.get(KEY), source)
    check_same(
        identity, then, what=source, remedy="give the options of that run again, or leave out resume to start a new one"
    )
    say_other_code(identity, then, source)
    done = checkpoint["global_step"]
    if identity["steps"] < done:
        raise ValueError(
            f"{source} has done {done} steps, more than steps={identity['steps']}: ask for {done} or more, or leave out "
            "resume to start a new run."
        )


def reopen(checkpoint: dict[str, Any]) -> None:
    """Marks the one epoch of a run as unfinished, in place, so that Lightning goes on with it.

    A run is one epoch of `steps` batches. In the checkpoint of a finished run this epoch is over, and Lightning would
    train nothing. The progress becomes that of a checkpoint which was saved after the same batch in mid-run.
    """
    loop = checkpoint["loops"]["fit_loop"]
    for count in ("total", "current"):
        loop["epoch_progress"][count] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    batches = loop["epoch_loop.batch_progress"]
    if batches["current"]["completed"] == batches["current"]["ready"]:  # saved after the batch's end, where Lightning
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1  # has counted it, and will count it again
    done = batches["total"]["ready"]
    batches["current"] |= {"ready": done, "started": done, "processed": done, "completed": done - 1}
    batches["total"] |= {"ready": done, "started": done, "processed": done, "completed": done - 1}
    batches["is_last_batch"] = False
