"""What a trainer must be for the numbers to be right, asked before anything is harvested."""

from lightning import Trainer

_SUPPORTED = ("32-true", "bf16-mixed", "16-mixed", "64-true")


def check_trainer(trainer: Trainer) -> None:
    """Refuses a trainer under which thresholds would not train or the schedules would have no length.

    Weights, thresholds, the optimiser's moments and sums of losses must be of float32 or float64: a threshold of 16
    bits stops moving, since its step is below the rounding of its value. In the mixed precisions only the products of
    the training step are of 16 bits; measurement is not. On a CPU Lightning trains in bf16-mixed where 16-mixed is
    asked for, and warns of it.

    Raises:
        ValueError: another precision, or a number of steps that is not known.
    """
    if trainer.precision not in _SUPPORTED:
        raise ValueError(
            f"trainer.precision={trainer.precision} keeps the weights and thresholds in fewer than 32 bits, in which "
            f"thresholds stop moving: choose {', '.join(_SUPPORTED[:-1])} or {_SUPPORTED[-1]}."
        )
    if trainer.max_steps < 1:
        raise ValueError(
            f"trainer.max_steps={trainer.max_steps} gives the schedules of the learning rate no length: set steps to 1 "
            "or more."
        )
