"""Checks before the harvest that a trainer gives right numbers, and after the training that it took all its steps."""

from lightning import Trainer

from atomlab.groups import Groups

_SUPPORTED = ("32-true", "bf16-mixed", "16-mixed", "64-true")
_WHOLE = {"fast_dev_run": False, "overfit_batches": 0.0, "limit_train_batches": 1.0}


def check_trainer(trainer: Trainer, steps: int) -> None:
    """Refuses a trainer that would not train the thresholds, or would take another number of steps than the run has.

    The weights, the thresholds, the moments of the optimiser and the sums of losses must be float32 or float64: the steps of
    a threshold of 16 bits are smaller than the rounding of its value, so it stops moving. In mixed precision only the
    products of the training step have 16 bits; measurement has none. If 16-mixed is asked for on a CPU, Lightning trains in
    bf16-mixed and warns.

    Args:
        trainer: the trainer of the run.
        steps: number of steps that the schedules and the record of the run have.

    Raises:
        ValueError: the precision is another one, or 16-mixed where processes share a dictionary; or an option of the trainer
            changes the number of steps.
    """
    if trainer.precision not in _SUPPORTED:
        raise ValueError(
            f"trainer.precision={trainer.precision} keeps the weights and thresholds in fewer than 32 bits, in which "
            f"thresholds stop moving: choose {', '.join(_SUPPORTED[:-1])} or {_SUPPORTED[-1]}."
        )
    if trainer.precision == "16-mixed" and Groups.of(trainer).latents.size > 1:
        raise ValueError(
            "trainer.precision=16-mixed scales the loss in each process by what its own gradients allow, and processes that "
            "share a dictionary need one scale: use bf16-mixed."
        )
    for name, whole in _WHOLE.items():
        value = getattr(trainer, name)
        if value != whole or type(value) is not type(whole):  # 1 means one batch, 1.0 all batches
            raise ValueError(
                f"trainer.{name}={value} would end the training before steps={steps}: leave it out, and set steps."
            )
    if trainer.max_steps < 1:
        raise ValueError(
            f"trainer.max_steps={trainer.max_steps} gives the schedules of the learning rate no length: set steps to 1 "
            "or more."
        )
    if trainer.max_steps != steps:
        raise ValueError(
            f"trainer.max_steps={trainer.max_steps} is not steps={steps}: leave out trainer.max_steps, which follows steps."
        )
    if trainer.accumulate_grad_batches < 1:
        raise ValueError(
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches} trains nothing: use 1 or more."
        )


def check_finished(trainer: Trainer, steps: int) -> None:
    """Refuses a training that ended before its last step, such as by a limit of time or a callback.

    Args:
        trainer: after the training.
        steps: number of steps of the run.

    Raises:
        ValueError: the trainer took fewer steps.
    """
    if trainer.global_step < steps:
        raise ValueError(
            f"The training ended at step {trainer.global_step} of {steps} (a callback or a limit of the trainer ended it), "
            "so its schedules are unfinished and its numbers would be those of another run: take out what ended it, and go on "
            "with resume=<folder>/checkpoints/last.ckpt."
        )
