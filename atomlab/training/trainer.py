"""What a trainer must be for the numbers to be right, asked before anything is harvested, and whether it came to its end."""

from lightning import Trainer

_SUPPORTED = ("32-true", "bf16-mixed", "16-mixed", "64-true")
_WHOLE = {"fast_dev_run": False, "overfit_batches": 0.0, "limit_train_batches": 1.0}


def check_trainer(trainer: Trainer, steps: int) -> None:
    """Refuses a trainer under which thresholds would not train, or that would take another number of steps than the
    schedules and the record of the run have.

    Weights, thresholds, the optimiser's moments and sums of losses must be of float32 or float64: a threshold of 16
    bits stops moving, since its step is below the rounding of its value. In the mixed precisions only the products of
    the training step are of 16 bits; measurement is not. On a CPU Lightning trains in bf16-mixed where 16-mixed is
    asked for, and warns of it.

    Args:
        trainer: that will train.
        steps: of the run.

    Raises:
        ValueError: another precision, or another number of steps.
    """
    if trainer.precision not in _SUPPORTED:
        raise ValueError(
            f"trainer.precision={trainer.precision} keeps the weights and thresholds in fewer than 32 bits, in which "
            f"thresholds stop moving: choose {', '.join(_SUPPORTED[:-1])} or {_SUPPORTED[-1]}."
        )
    for name, whole in _WHOLE.items():
        value = getattr(trainer, name)
        if value != whole or type(value) is not type(whole):  # 1 is one batch, 1.0 all of them
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
    """Refuses to go on with a training that something ended before its last step: a limit of time, or a callback.

    Raises:
        ValueError: it did.
    """
    if trainer.global_step < steps:
        raise ValueError(
            f"The training ended at step {trainer.global_step} of {steps} (a callback or a limit of the trainer ended it), "
            "so its schedules are not at their end and it would be measured as what it is not: take out what ended it, "
            "and go on with resume=<folder>/checkpoints/last.ckpt."
        )
