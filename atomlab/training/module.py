"""Training of a TSAE on activations: losses and schedules."""

import math
import sys
from typing import Any, Literal, final

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.sae import (
    InputTransform,
    Sparsity,
    ThresholdSAE,
    calibrate_thresholds_,
    fold,
)
from atomlab.sae.ops import DensitySwitch, Implementation, Terms, objective
from atomlab.theory import AtomicInnerProduct
from atomlab.training.divergence import Divergence, check_finite
from atomlab.training.measurement import Measurement
from atomlab.training.options import check_values
from atomlab.training.training_data import TrainingData

InputVariant = Literal["raw", "unit_mean_square", "whitened"]
_REFERENCE_WIDTH = 2304  # d_sae at which the default learning rate was chosen


@final
class SAEModule(LightningModule):
    """A TSAE in training, in the coordinates of `transform`; `folded()` is the same TSAE for raw activations.

    Adam; the rate rises over the first `warm_up` share of the steps and falls linearly over the last `decay` share.
    Over the last
    `freeze` share thresholds stand still and the sparsity term is off, so that the atoms settle on fixed supports.

    Args:
        sae: initialised and calibrated.
        transform: from raw activations to the sae's inputs.
        sparsity: the sparsity term.
        metric: S, for the metrics.
        learning_rate: of all weights but the thresholds.
        threshold_learning_rate: of the thresholds (raw θ, so it is in units of pre-activations).
        warm_up, decay, freeze: shares of the run.
        dead_after: vectors, over all processes, after which a latent that did not fire counts as dead.
        dead_coefficient: λ_P of the term that pulls dead latents back to their thresholds; 0 leaves it out.
        switch: between the dense and the sparse implementation of the step; None takes the measured limits.
    """

    def __init__(
        self,
        sae: ThresholdSAE,
        transform: InputTransform,
        sparsity: Sparsity,
        metric: AtomicInnerProduct,
        *,
        learning_rate: float,
        threshold_learning_rate: float,
        warm_up: float = 0.1,
        decay: float = 0.5,
        freeze: float = 0.2,
        dead_after: int = 50_000,
        dead_coefficient: float = 0.0,
        switch: DensitySwitch | None = None,
    ) -> None:
        super().__init__()
        self.sae, self.transform, self.sparsity, self.atomic = sae, transform, sparsity, metric
        self.learning_rate, self.threshold_learning_rate = learning_rate, threshold_learning_rate
        self.warm_up, self.decay, self.freeze_share = warm_up, decay, freeze
        self.dead_after, self.dead_coefficient = dead_after, dead_coefficient
        self.switch = DensitySwitch() if switch is None else switch
        self.divergence = Divergence()
        self.since_fired: Tensor
        self.register_buffer("since_fired", torch.zeros(sae.d_sae, dtype=torch.int64))
        self.measurement: Measurement | None = None
        self.validated: tuple[int, float] | None = None  # step of the last validation, and its R² in the S-norm

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        x = self.transform(batch)
        frozen = self.progress >= 1 - self.freeze_share
        terms = objective(
            self.switch.choose(self.sae, x),
            self.sae,
            x,
            None if frozen else self.sparsity,
            self.since_fired >= self.dead_after,
            self.dead_coefficient,
        )
        check_finite(terms.loss, batch, self.trainer.global_step, self.learning_rate)
        self.switch.observe(self.sae, terms.code)
        self._log_training(x, terms)
        return terms.loss

    @torch.no_grad()
    def _log_training(self, x: Tensor, terms: Terms) -> None:
        firings = terms.code.firings()
        fired, vectors = firings > 0, len(x) * self.trainer.world_size
        if self.trainer.world_size > 1:
            gathered = self.all_gather(fired)
            assert isinstance(gathered, Tensor)
            fired = gathered.any(0)
        self.since_fired.add_(vectors).masked_fill_(fired, 0)
        variance = (x - x.mean(0)).square().sum(1).mean()
        self.divergence.observe(terms.reconstruction, variance, self.progress)
        shown = {"train/r2": 1 - terms.reconstruction / variance, "train/l0": firings.sum() / len(x)}
        self.log_dict(shown, prog_bar=True)
        self.log_dict(
            {
                "train/loss": terms.loss,
                "train/reconstruction": terms.reconstruction,
                "train/sparsity": terms.sparsity,
                "train/density": self.switch.density,
                "train/dead": (self.since_fired >= self.dead_after).float().mean(),
            }
        )

    def on_train_end(self) -> None:
        if self.divergence.diverged and self.trainer.is_global_zero:
            sys.stderr.write(f"\natomlab: warning: {self.divergence.sentence}\n")

    @property
    def progress(self) -> float:
        """Share of the run's steps that are done."""
        return self.trainer.global_step / self.trainer.max_steps

    def configure_optimizers(self) -> Any:
        steps = self.trainer.max_steps

        def schedule(step: int) -> float:
            share = step / steps
            return min(1.0, (step + 1) / max(1, self.warm_up * steps), (1 - share) / self.decay if self.decay else 1.0)

        weights = [p for name, p in self.sae.named_parameters() if name != "threshold"]
        optimizer = torch.optim.Adam(
            [
                {"params": weights, "lr": self.learning_rate},
                {"params": [self.sae.threshold], "lr": self.threshold_learning_rate},
            ],
            fused=not (
                self.trainer.gradient_clip_val and "mixed" in str(self.trainer.precision)
            ),  # Lightning forbids it
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, [schedule, lambda step: schedule(step) * (step / steps < 1 - self.freeze_share)]
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @torch.no_grad()
    def folded(self) -> ThresholdSAE:
        """The TSAE of raw activations, with atoms of unit S-norm: the object that is measured, saved and published."""
        return fold(self.sae, self.transform).with_unit_norm_decoder(self.atomic.matrix.to(self.sae.W_dec))

    def on_validation_epoch_start(self) -> None:
        self.measurement = Measurement(self.folded(), self.atomic, null=True)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        assert self.measurement is not None
        self.measurement.update(batch)

    def on_validation_epoch_end(self) -> None:
        assert self.measurement is not None
        values = self.measurement.values()
        self.validated = (self.trainer.global_step, values["r2_s_norm"])
        self.log_dict({f"validation/{name}": value for name, value in values.items()}, rank_zero_only=False)
        self.measurement = None


def build(
    data: TrainingData,
    sparsity: Sparsity,
    *,
    expansion: float = 4,
    inputs: InputVariant = "whitened",
    tied: bool = False,
    bandwidth: float = 0.025,
    initial_l0: float = 40,
    calibration_samples: int = 8192,
    shrinkage: float = 0.0,
    learning_rate: float | None = None,
    threshold_learning_rate: float | None = None,
    warm_up: float = 0.1,
    decay: float = 0.5,
    freeze: float = 0.2,
    dead_after: int = 50_000,
    dead_coefficient: float = 0.0,
    implementation: Implementation = "auto",
) -> SAEModule:
    """A module for the activations of `data`, its thresholds calibrated on them.

    Args:
        data: prepared and set up.
        sparsity: the sparsity term.
        expansion: d_sae / d_in; sets d_sae and, unless given, the learning rate 3e-3·√(2304 / d_sae).
        inputs: coordinates of the training: raw, unit_mean_square (centred, E‖x̃‖² = 1) or whitened (by S^½ too).
        tied: W_enc = W_decᵀ throughout (with whitened inputs: W_enc = S W_decᵀ).
        bandwidth: of the straight-through estimators, for E‖x̃‖² = 1.
        initial_l0: mean L0 that the thresholds are calibrated to.
        calibration_samples: training vectors used for it.
        shrinkage: of S.
        learning_rate, threshold_learning_rate: None derives them.
        warm_up, decay, freeze, dead_after, dead_coefficient: see `SAEModule`.
        implementation: of the step, one function whichever it is: auto (by counted density), dense, sparse, screened.

    Raises:
        ValueError: what `check_values` refuses, an expansion that gives no latent, an initial_l0 beyond d_sae, a
            rank-deficient second moment.
    """
    check_values(
        {
            "expansion": expansion,
            "inputs": inputs,
            "bandwidth": bandwidth,
            "initial_l0": initial_l0,
            "calibration_samples": calibration_samples,
            "shrinkage": shrinkage,
            "learning_rate": learning_rate,
            "threshold_learning_rate": threshold_learning_rate,
            "warm_up": warm_up,
            "decay": decay,
            "freeze": freeze,
            "dead_after": dead_after,
            "dead_coefficient": dead_coefficient,
            "implementation": implementation,
        }
    )
    d_in = data.d_in
    d_sae = round(expansion * d_in)
    if d_sae < 2:
        raise ValueError(
            f"sae.expansion={expansion} gives {d_sae} latents for d_in={d_in}: expected a positive number such as 4."
        )
    if not initial_l0 < d_sae:
        raise ValueError(
            f"sae.initial_l0={initial_l0} should be below d_sae={d_sae}, which is sae.expansion={expansion} times "
            f"d_in={d_in}: lower it (it follows sae.sparsity.target) or raise the expansion."
        )
    switch = DensitySwitch.of(implementation)
    reference = data.reference_moments
    metric = AtomicInnerProduct.from_second_moment(reference.second_moment, shrinkage=shrinkage, count=reference.count)
    transform = _transform(inputs, data, metric)
    sae = ThresholdSAE(d_in, d_sae, bandwidth=bandwidth, tied=tied)
    calibrate_thresholds_(sae, transform(data.sample("train", calibration_samples)), initial_l0)
    rate = 3e-3 * math.sqrt(_REFERENCE_WIDTH / d_sae) if learning_rate is None else learning_rate
    return SAEModule(
        sae,
        transform,
        sparsity,
        metric,
        learning_rate=rate,
        threshold_learning_rate=rate if threshold_learning_rate is None else threshold_learning_rate,
        warm_up=warm_up,
        decay=decay,
        freeze=freeze,
        dead_after=dead_after,
        dead_coefficient=dead_coefficient,
        switch=switch,
    )


def _transform(inputs: InputVariant, data: TrainingData, metric: AtomicInnerProduct) -> InputTransform:
    mean, second_moment = data.moments.mean, data.moments.second_moment
    identity = torch.eye(data.d_in, dtype=torch.float64)
    if inputs == "raw":
        return InputTransform.identity(data.d_in)
    if inputs == "unit_mean_square":
        return InputTransform.scaled(mean, identity, identity, second_moment)
    return InputTransform.scaled(mean, metric.whitening, metric.unwhitening, second_moment)


def reference_metric(data: ActivationDataModule, shrinkage: float) -> AtomicInnerProduct:
    """S of the reference corpus."""
    reference = data.reference_moments
    return AtomicInnerProduct.from_second_moment(reference.second_moment, shrinkage=shrinkage, count=reference.count)
