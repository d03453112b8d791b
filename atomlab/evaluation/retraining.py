"""How evaluation trains TSAEs of its own: of a surrogate, another seed, a layer, a cell of the capacity grid."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

from lightning import Trainer, seed_everything

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.sae import SAE
from atomlab.training.build import build
from atomlab.training.callbacks import DecoderNorm, FinalCalibration, ProgressBar
from atomlab.training.recipe import Architecture, TrainingRecipe, check_shrinkage
from atomlab.training.trainer_checks import check_finished, check_trainer
from atomlab.training.vectors import VectorsDataModule


@final
@dataclass(frozen=True)
class Retraining:
    """The training of train.py, without its logging, validation and checkpoints.

    Attributes:
        architecture: of the TSAEs.
        recipe: of their training.
        shrinkage: λ of the metric S.
        trainer: makes a trainer from keyword arguments; those of the configuration are filled in already.
        batch_size: vectors of a batch.
        steps: steps of the optimiser in one training.

    Raises:
        ValueError: a shrinkage that is negative, infinite or no number.
    """

    architecture: Architecture
    recipe: TrainingRecipe
    shrinkage: float
    trainer: Callable[..., Trainer]
    batch_size: int
    steps: int

    def __post_init__(self) -> None:
        check_shrinkage(self.shrinkage)

    def train(
        self, data: ActivationDataModule | VectorsDataModule, *, seed: int, expansion: float | None = None
    ) -> SAE:
        """Trains a TSAE on one device, however many the run had.

        Args:
            data: prepared and set up.
            seed: of the initial atoms.
            expansion: d_sae / d_in; None takes that of `architecture`.

        Returns:
            The TSAE of raw activations, with atoms of unit S-norm, on the CPU.

        Raises:
            ValueError: a trainer that would take another number of steps, or a training that ended before its last.
        """
        seed_everything(seed, workers=True, verbose=False)
        architecture = self.architecture if expansion is None else replace(self.architecture, expansion=expansion)
        recipe = self.recipe if isinstance(data, ActivationDataModule) else self.recipe.without_foreign_atoms()
        module = build(data, architecture, recipe, shrinkage=self.shrinkage)
        trainer = self.trainer(
            devices=1,
            num_nodes=1,
            strategy="auto",
            callbacks=[DecoderNorm(), FinalCalibration(), ProgressBar(refresh_rate=20)],
            logger=False,
            enable_checkpointing=False,
            limit_val_batches=0,
            val_check_interval=1.0,
        )
        check_trainer(trainer, self.steps)
        trainer.fit(module, data)
        check_finished(trainer, self.steps)
        return module.folded().cpu()
