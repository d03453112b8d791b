"""The Lightning module that trains a TSAE, or an SAE that it is compared with, on activations."""

import sys
from typing import Any, final

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from atomlab.activations.batches.shuffle import generator
from atomlab.activations.datamodule import ActivationDataModule
from atomlab.groups import Groups
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.sae import SAE, InputTransform, TargetL0, ThresholdSAE, fold
from atomlab.sae.ops import DensitySwitch, Terms, baseline_objective, objective
from atomlab.theory import AtomicInnerProduct
from atomlab.training.failed_training import Divergence, not_finite
from atomlab.training.l1_control import L1Control
from atomlab.training.loggers import WandbRun
from atomlab.training.over_processes import batch_means, clip_by_norm_
from atomlab.training.recipe import TrainingRecipe
from atomlab.training.shard_measurement import ShardMeasurement
from atomlab.training.validation import Measurement

_ON_THE_BAR = 10  # steps from one set of numbers on the progress bar to the next


@final
class SAEModule(LightningModule):
    """Trains an SAE with Adam, in the coordinates of an input transform.

    A TSAE is trained by `objective`. Over the last `recipe.schedule.freeze` share of the steps its thresholds stand still and
    the sparsity term is off. A baseline is trained by `baseline_objective`, with the target of `recipe.sparsity` as its L0.
    Each validation measures `folded()`, the same SAE for raw activations (`Measurement`).

    Args:
        sae: initialised, and a TSAE calibrated, on inputs in the coordinates of `transform`.
        transform: from raw activations to the inputs of `sae`.
        metric: S, in which the atoms are measured and have unit norm.
        recipe: loss, learning rates, dead latents, and the implementation of a step. The calibration is done already.
        switch: chooses between the dense and the sparse implementation of a TSAE's step; None takes that of `recipe`.
        sample_sizes: of a validation.
        root_mean_square: of a coordinate of the inputs of `sae` about its mean, which scales the noise.

    Raises:
        TrainingFailedError: in training, a loss that is not finite, unless `skips_not_finite`.
    """

    def __init__(
        self,
        sae: SAE,
        transform: InputTransform,
        metric: AtomicInnerProduct,
        recipe: TrainingRecipe,
        switch: DensitySwitch | None = None,
        sample_sizes: SampleSizes = SampleSizes(),
        root_mean_square: float = 1.0,
    ) -> None:
        super().__init__()
        self.sae, self.transform, self.atomic, self.recipe = sae, transform, metric, recipe
        self.sample_sizes = sample_sizes
        self.switch = DensitySwitch.of(recipe.implementation) if switch is None else switch
        self.l1 = L1Control()
        self.divergence = Divergence()
        self.since_fired: Tensor
        self.register_buffer("since_fired", torch.zeros(sae.d_sae, dtype=torch.int64))
        self.noise_seed: Tensor
        self.register_buffer("noise_seed", torch.randint(2**31, ()))
        self.seed, self.root_mean_square = 0, root_mean_square
        self.skips_not_finite = False  # `Guards` leaves out batches whose loss is not finite
        self.seen: tuple[Tensor, Tensor] | None = None  # error over variance and L0 of the last batch, if it was finite
        self.transformed = False  # whether training batches come in the coordinates of `sae` already
        self.measurement: Measurement | ShardMeasurement | None = None
        self.validated: tuple[int, float] | None = None  # step of the last validation, and its R² in the S-norm

    @property
    def groups(self) -> Groups:
        """The processes that train together: which see other data, and which hold other latents."""
        return self.sae.shard.groups

    def setup(self, stage: str) -> None:
        """Connects the processes, and lets the data transform training batches where they are read ahead.

        A GPU transforms them better by itself. Under `deterministic=true` torch would write NaN into all new memory, for
        programs that read memory which nothing has written. No step does, so this is switched off: it is a tenth of a step.
        """
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
        self.sae.shard = self.sae.shard.among(Groups.of(self.trainer))
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, ActivationDataModule):
            on_cpu = self.trainer.strategy.root_device.type == "cpu"
            self.transformed = data.train_in(self.transform if on_cpu else None)

    def on_train_start(self) -> None:
        # Once, since a GPU would wait for it; a resumed run has its checkpoint's.
        self.seed = int(self.noise_seed)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        x = batch if self.transformed else self.transform(batch)
        noisy = self._with_noise(x, batch_idx) if self.recipe.noise else x
        terms = self._terms(noisy, x)
        loss = terms.loss
        if self.recipe.incoherence.acts_in(batch_idx):
            drawn = generator(self.seed, batch_idx, "atoms", device=x.device)  # the same in all processes
            loss = loss + self.recipe.incoherence(self.sae, drawn)
        if self.any_process(~loss.isfinite()):
            activations = self.any_process(~batch.isfinite().all())
            error = not_finite(loss, self.trainer.global_step, self.rates[0], activations=activations)
            if not self.skips_not_finite:
                raise error
            self.seen = None
            return loss * torch.nan  # so every gradient is NaN, on all processes, and `Guards` drops them everywhere
        if isinstance(self.sae, ThresholdSAE):
            self.switch.observe(self.sae, terms.code)
        self._log_training(x, terms, loss.detach())
        return loss

    def _terms(self, noisy: Tensor, x: Tensor) -> Terms:
        """The terms of the loss on a batch x, of which the SAE sees `noisy`."""
        revival = self.recipe.revival
        dead = self.since_fired >= revival.after
        if isinstance(self.sae, ThresholdSAE):
            frozen = self.progress >= 1 - self.recipe.schedule.freeze
            sparsity = None if frozen else self.recipe.sparsity
            chosen = self.switch.choose(self.sae, noisy)
            return objective(chosen, self.sae, noisy, sparsity, dead, revival.coefficient, target=x)
        return baseline_objective(self.sae, noisy, self.l1.coefficient.clone(), dead, revival.coefficient, target=x)

    def any_process(self, here: Tensor) -> bool:
        """Whether something is so in any process. All have to know: one that goes another way leaves the others waiting.

        Args:
            here: whether it is so in this process, a scalar.
        """
        return bool(self.groups.everyone.sum(here.int()))

    def _with_noise(self, x: Tensor, batch_idx: int) -> Tensor:
        """Adds the noise of this batch, which a resumed run draws again.

        Every process draws that of the whole batch and takes its own rows, as `ShuffledBatches` deals them out, so that
        vectors get the same noise on any number of processes.
        """
        data = self.groups.data
        drawn = generator(self.seed, batch_idx, "noise", device=x.device)
        noise = torch.randn(len(x) * data.size, x.shape[1], generator=drawn, device=x.device)[data.rank :: data.size]
        return x + self.recipe.noise * self.root_mean_square * noise

    @torch.no_grad()
    def _log_training(self, x: Tensor, terms: Terms, loss: Tensor) -> None:
        data, firings = self.groups.data, terms.code.firings()
        firings = data.sum(firings)
        self.since_fired.add_(len(x) * data.size).masked_fill_(firings > 0, 0)
        means = batch_means(self.sae, x, terms, loss, firings, self.since_fired >= self.recipe.revival.after)
        self.divergence.observe(means.reconstruction, means.variance, self.progress)
        if not isinstance(self.sae, ThresholdSAE):
            assert isinstance(self.recipe.sparsity, TargetL0)
            self.l1.observe(means.l0, self.recipe.sparsity.target)
        self.seen = (means.reconstruction / means.variance, means.l0)
        if self._is_shown():
            self.log_dict({"train/r2": 1 - self.seen[0], "train/l0": self.seen[1]}, prog_bar=True)
            self.log_dict(
                {
                    "train/loss": means.loss,
                    "train/reconstruction": means.reconstruction,
                    "train/sparsity": means.sparsity,
                    **self._implementation(),
                    "train/dead": means.dead,
                }
            )

    def _is_shown(self) -> bool:
        """Whether a logger or the progress bar shows the numbers of this step; Lightning takes as long for those it drops."""
        every, step = self.trainer.log_every_n_steps, self.trainer.global_step + 1  # pyright: ignore
        return step % _ON_THE_BAR == 0 or (every > 0 and step % every == 0)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips as Lightning does; where several processes share the dictionary, by the norm over all latents."""
        if self.sae.shard.is_whole or not gradient_clip_val or gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            clip_by_norm_(self.sae, float(gradient_clip_val))

    def _implementation(self) -> dict[str, Any]:
        """What is logged of how this kind of SAE is trained."""
        if isinstance(self.sae, ThresholdSAE):
            return {"train/density": self.switch.density}
        return {"train/l1": self.l1.coefficient}

    def on_train_end(self) -> None:
        if self.divergence.diverged and self.trainer.is_global_zero:
            sys.stderr.write(f"\natomlab: warning: {self.divergence.sentence}\n")

    @property
    def rates(self) -> tuple[float, float]:
        """The highest learning rates of the weights and of the thresholds."""
        return self.recipe.schedule.rates(self.sae.shard.d_sae)

    @property
    def progress(self) -> float:
        """Share of the run's steps that are done."""
        return self.trainer.global_step / self.trainer.max_steps

    def configure_optimizers(self) -> Any:
        steps, schedule = self.trainer.max_steps, self.recipe.schedule
        rate, threshold_rate = self.rates

        weights = [p for name, p in self.sae.named_parameters() if name != "threshold"]
        groups = [{"params": weights, "lr": rate}]
        if isinstance(self.sae, ThresholdSAE):
            groups.append({"params": [self.sae.threshold], "lr": threshold_rate})
        optimizer = torch.optim.Adam(
            groups,
            fused=not (
                self.trainer.gradient_clip_val and "mixed" in str(self.trainer.precision)
            ),  # Lightning forbids it
        )
        factors = [
            lambda step: schedule.factor(step, steps),
            lambda step: schedule.factor(step, steps) * (step / steps < 1 - schedule.freeze),
        ]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors[: len(groups)])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @torch.no_grad()
    def folded(self) -> SAE:
        """Returns the SAE of raw activations, which is measured, saved and published.

        Its atoms have unit S-norm; those of TopK and BatchTopK have the norms of the training's coordinates, times one
        factor, so that their mean S-norm is 1. Where several processes share the dictionary, each gets its own latents of it.
        """
        return fold(self.sae, self.transform).with_unit_norm_decoder(self.atomic.matrix.to(self.sae.W_dec))

    def on_validation_epoch_start(self) -> None:
        sae = self.folded()
        if isinstance(sae, ThresholdSAE) and not sae.shard.is_whole:
            self.measurement = ShardMeasurement(sae, self.atomic, self.sample_sizes)
        else:
            self.measurement = Measurement(sae, self.atomic, self.sample_sizes, null=True, data=self.groups.data)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        assert self.measurement is not None
        self.measurement.update(batch)

    def on_validation_epoch_end(self) -> None:
        assert self.measurement is not None
        values = self.measurement.values()
        self.validated = (self.trainer.global_step, values["r2_s"])
        self.log_dict({f"validation/{name}": value for name, value in values.items()}, rank_zero_only=False)
        for logger in self.loggers:
            if isinstance(logger, WandbRun) and not self.trainer.sanity_checking:
                atoms = {f"dictionary/{name}": value for name, value in self.measurement.of_atoms().items()}
                logger.log_histograms(atoms, self.trainer.global_step)
        self.measurement = None
