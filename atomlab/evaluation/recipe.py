"""How evaluation trains TSAEs of its own: of a surrogate, another seed, a layer, a cell of the capacity grid."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from lightning import Trainer, seed_everything
from lightning.pytorch import LightningDataModule

from atomlab.sae import ThresholdSAE
from atomlab.training.callbacks import DecoderNorm, ProgressBar
from atomlab.training.module import SAEModule
from atomlab.training.trainer_checks import check_finished, check_trainer


@final
@dataclass(frozen=True)
class Recipe:
    """The training code of train.py, without its logging, validation and checkpoints.

    Attributes:
        build: data to an initialised module (`atomlab.training.module.build` with all but `data` given).
        trainer: keyword arguments to a trainer (`lightning.Trainer` with the configuration's own given).
        batch_size: vectors a batch.
        steps: of a run's optimiser.
    """

    build: Callable[..., SAEModule]
    trainer: Callable[..., Trainer]
    batch_size: int
    steps: int

    def train(self, data: LightningDataModule, *, seed: int, expansion: float | None = None) -> ThresholdSAE:
        """A TSAE of the data's raw activations, with atoms of unit S-norm.

        Args:
            data: prepared and set up; one process trains on one device, however many the run had.
            seed: of the initial atoms.
            expansion: d_sae / d_in; the configuration's own if None.
        """
        seed_everything(seed, workers=True, verbose=False)
        module = self.build(data=data) if expansion is None else self.build(data=data, expansion=expansion)
        trainer = self.trainer(
            devices=1,
            num_nodes=1,
            strategy="auto",
            callbacks=[DecoderNorm(), ProgressBar(refresh_rate=20)],
            logger=False,
            enable_checkpointing=False,
            limit_val_batches=0,
            val_check_interval=1.0,
        )
        check_trainer(trainer, self.steps)
        trainer.fit(module, data)
        check_finished(trainer, self.steps)
        return module.folded().cpu()
