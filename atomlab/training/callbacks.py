"""Callbacks around the steps of the optimiser: unit norms, the last thresholds, throughput, data wait and the progress bar."""

import logging
import sys
import time
from typing import Any, final

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from torch import Tensor

from atomlab.groups import Groups
from atomlab.progress import shows_progress
from atomlab.ranges import Count
from atomlab.sae import l0_number
from atomlab.training.module import SAEModule

_log = logging.getLogger(__name__)


@final
class DecoderNorm(Callback):
    """Keeps every atom at unit norm and every threshold θ at 0 or above.

    The norm is that of the coordinates of the training. With whitened inputs it is the S-norm up to a constant. Before each
    step the component of the gradient that would only change a norm is removed, so that it does not enter the moments of
    the optimiser.
    """

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        assert isinstance(pl_module, SAEModule)
        pl_module.sae.remove_parallel_gradient_()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SAEModule)
        pl_module.sae.unit_norm_decoder_()
        pl_module.sae.clamp_thresholds_()


@final
class FinalCalibration(Callback):
    """Multiplies all thresholds by one number after the last step, before the last validation and checkpoint.

    With it the mean L0 of `recipe.calibration.samples` validation vectors is `recipe.final_l0`; where that is None, nothing
    happens. Of a baseline the number is a level that is subtracted or becomes the threshold (`l0_number`). Where no number
    gives the L0, a warning says so and the SAE stays. It belongs behind `DecoderNorm`, whose last projection changes the
    pre-activations. All processes use the first one's number.

    Raises:
        ValueError: at the start, where it is needed and the trainer has no data module that gives validation vectors.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SAEModule)
        if pl_module.recipe.final_l0 is not None and not hasattr(_data_of(trainer), "sample"):
            raise ValueError(
                "training.calibration.final=true sets the last thresholds on validation vectors, and this trainer was given no "
                "data module with `sample`: give one, or use training.calibration.final=false."
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SAEModule)
        target = pl_module.recipe.final_l0
        if target is None or trainer.global_step < trainer.max_steps:
            return
        vectors = _data_of(trainer).sample("validation", pl_module.recipe.calibration.samples).to(batch.device)
        sae, x = pl_module.sae, pl_module.transform(vectors)
        try:
            number = l0_number(sae, x, float(target))
        except ValueError as error:  # the training is done, and must not be lost
            _log.warning("The thresholds stay as the training ended with them: %s", error)
            number = None
        number = trainer.strategy.broadcast(number)
        if number is not None:
            sae.settle_(number)


def _data_of(trainer: Trainer) -> Any:
    """The data module that the trainer fits on; None if it was given none."""
    return getattr(trainer, "datamodule", None)


@final
class Throughput(Callback):
    """Logs the number of training vectors per second over all processes, as `train/tokens_per_second`.

    Args:
        every: number of steps of the optimiser between two logged values, however many batches a step takes.

    Raises:
        ValueError: `every` is below 1.
    """

    def __init__(self, every: Count = 50) -> None:
        if every < 1:
            raise ValueError(f"callbacks.throughput.every={every} should be 1 or more.")
        self.every, self.seen, self.since = every, 0, 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Tensor, batch_idx: int) -> None:
        if self.seen == 0:
            self.since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        self.seen += len(batch)
        if (batch_idx + 1) % (self.every * trainer.accumulate_grad_batches) == 0:
            rate = self.seen * Groups.of(trainer).data.size / (time.perf_counter() - self.since)
            pl_module.log("train/tokens_per_second", rate, prog_bar=True)
            self.seen = 0


@final
class DataWait(Callback):
    """Logs `data/wait`, the share of the time since the last logged value in which steps waited for their batch, in [0, 1].

    The loader itself measures the time (its attribute `waited`), so neither the copy to the device nor Lightning's own work
    is in it.
    """

    def __init__(self) -> None:
        self.since, self.waited = 0.0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.since, self.waited = time.perf_counter(), 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        steps = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if (batch_idx + 1) % (steps * trainer.accumulate_grad_batches):
            return
        now, waited = time.perf_counter(), getattr(trainer.train_dataloader, "waited", 0.0)
        pl_module.log("data/wait", (waited - self.waited) / (now - self.since))
        self.since, self.waited = now, waited


@final
class ProgressBar(TQDMProgressBar):
    """Shows the training on one line of the terminal: batches, rate, time left, R², L0 and tokens per second.

    There are as many batches as steps, unless gradients are accumulated. Lightning's version number is left out, and so is
    its second bar for the validation. Where no terminal is there, nothing is drawn (`atomlab.progress`).

    Args:
        refresh_rate: batches between two drawings.
    """

    def __init__(self, refresh_rate: Count = 1) -> None:
        super().__init__(refresh_rate if shows_progress() else 0)

    def init_train_tqdm(self) -> Tqdm:
        """Draws on standard error, so that standard output holds the table alone."""
        return Tqdm(
            desc=self.train_description, disable=self.is_disabled, dynamic_ncols=True, file=sys.stderr, smoothing=0,
            bar_format=self.BAR_FORMAT,
        )  # fmt: skip

    def init_validation_tqdm(self) -> Tqdm:
        return Tqdm(disable=True)

    def on_train_start(self, *_: Any) -> None:
        """Sets total and start for a resumed run too; Lightning's own bar sets them only where an epoch begins."""
        super().on_train_start(*_)
        self.train_progress_bar.total = self.trainer.num_training_batches
        self.train_progress_bar.initial = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ends the line of the bar, so that the sentence about the error has a line of its own."""
        if isinstance(exception, Exception) and self._train_progress_bar is not None:
            self._train_progress_bar.close()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown = super().get_metrics(trainer, pl_module)
        return {
            name.removeprefix("train/").replace("tokens_per_second", "tokens/s"): value
            for name, value in shown.items()
            if name != "v_num"
        }
