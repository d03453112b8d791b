"""What a run is chosen by."""

import sys

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
