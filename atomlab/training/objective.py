"""What a run is chosen by."""

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer

from atomlab.training.module import SAEModule


def validation_objective(trainer: Trainer, module: SAEModule, data: LightningDataModule) -> float | None:
    """R² in the S-norm of the finished TSAE on validation vectors: `validation/r2_s` of its last step.

    Every choice between runs belongs to the validation split; the test split is read by the closing table alone. Every
    process calls this, and all get the same value. It is the last validation's if that was at the last step; otherwise
    (a finished run that was resumed, an interval that does not divide the steps) it validates now.

    Args:
        trainer: that fitted `module` on `data`.

    Returns:
        None, and one sentence on standard error, where the trainer runs no validation.
    """
    if module.validated is None or module.validated[0] != trainer.global_step:
        trainer.validate(module, data, verbose=False)
    if module.validated is not None and module.validated[0] == trainer.global_step:
        return module.validated[1]
    if trainer.is_global_zero:
        sys.stderr.write(
            f"atomlab: no validation ran (trainer.limit_val_batches={trainer.limit_val_batches}), so this run has no "
            "objective: leave trainer.limit_val_batches at 1.0 for a sweep that chooses between runs.\n"
        )
    return None


def objective_of_row(row: Mapping[str, Any], key: str) -> float:
    """Takes the objective of a run from a row of its closing table, once the table is written.

    Only numbers whose name ends in `_validation` are of validation vectors. A sweep that chooses by another one spends the
    held-out vectors on the choice, and one sentence on standard error says so.

    Args:
        row: of the atoms, as results.json has it.
        key: `objective` of conf/, the name of one of its numbers, or of an interval's `value`.

    Returns:
        The number.

    Raises:
        ValueError: the row has no such number. The message names the nearest ones.
    """
    numbers = {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    if key not in numbers:
        near = get_close_matches(key, numbers, 3, 0.4) or sorted(numbers)[:3]
        raise ValueError(
            f"objective={key} is no number of the atoms' row in results.json: choose one of its numbers, such as "
            f"{', '.join(near)}. The results are complete."
        )
    if not key.endswith("_validation"):
        sys.stderr.write(
            f"atomlab: objective={key} is of held-out test vectors: after a choice by it they are held out no more.\n"
        )
    return numbers[key]
