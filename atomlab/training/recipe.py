"""What a TSAE is built like and how it is trained: the leaves `sae` and `training` of conf/, checked when they are made.

None of these types needs data, so a value that no data could train with is refused before anything is harvested.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, final, get_args

from atomlab.sae import Sparsity, TargetL0
from atomlab.sae.ops import Implementation

Coordinates = Literal["raw", "unit_mean_square", "whitened"]

_REFERENCE_WIDTH = 2304  # the number of latents at which the default learning rate was chosen


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_positive(key: str, value: float) -> None:
    if not (_is_number(value) and value > 0):
        raise ValueError(f"{key}={value} should be a number above 0.")


def _check_not_negative(key: str, value: float) -> None:
    if not (_is_number(value) and value >= 0):
        raise ValueError(f"{key}={value} should be 0 or a number above it.")


def _check_count(key: str, value: int) -> None:
    if not (_is_number(value) and value >= 1):
        raise ValueError(f"{key}={value} should be 1 or more.")


def _check_word(key: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ValueError(f"{key}={value} is unknown: choose {', '.join(words[:-1])} or {words[-1]}.")


@final
@dataclass(frozen=True)
class Architecture:
    """How a TSAE is built.

    Attributes:
        expansion: d_sae / d_in.
        inputs: the coordinates x̃ that the TSAE is trained in: `raw` (x̃ = x), `unit_mean_square` (centred and scaled so
            that E‖x̃‖² = 1), or `whitened` (first multiplied by S^½).
        tied: whether W_enc = W_decᵀ throughout the training, which with whitened inputs means W_enc = S W_decᵀ.
        bandwidth: ε of the straight-through estimators, in units of x̃.

    Raises:
        ValueError: a value outside of its range; the message names the key of conf/.
    """

    expansion: float = 4.0
    inputs: Coordinates = "whitened"
    tied: bool = False
    bandwidth: float = 0.025

    def __post_init__(self) -> None:
        _check_positive("sae.expansion", self.expansion)
        _check_positive("sae.bandwidth", self.bandwidth)
        _check_word("sae.inputs", self.inputs, get_args(Coordinates))

    def d_sae(self, d_in: int) -> int:
        """Computes the number of latents.

        Args:
            d_in: width of the activations.

        Returns:
            `expansion` times `d_in`, rounded to a whole number.

        Raises:
            ValueError: there would be fewer than two.
        """
        d_sae = round(self.expansion * d_in)
        if d_sae < 2:
            raise ValueError(
                f"sae.expansion={self.expansion} gives {d_sae} latents for d_in={d_in}: expected a positive number such as 4."
            )
        return d_sae


@final
@dataclass(frozen=True)
class Calibration:
    """How the thresholds are chosen before the first step.

    Attributes:
        l0: mean number of active latents of a vector that the first thresholds give; None takes the target of the
            sparsity term, which is then `TargetL0`.
        samples: training vectors that the thresholds are calibrated on.

    Raises:
        ValueError: a value outside of its range; the message names the key of conf/.
    """

    l0: float | None = None
    samples: int = 8192

    def __post_init__(self) -> None:
        if self.l0 is not None:
            _check_positive("training.calibration.l0", self.l0)
        _check_count("training.calibration.samples", self.samples)


@final
@dataclass(frozen=True)
class Schedule:
    """Learning rates over a run.

    The rate rises linearly over the first `warm_up` share of the steps and falls linearly to zero over the last `decay`
    share. Where the shares overlap, the lower of the two rates holds. Over the last `freeze` share of the steps the thresholds
    stand still and the sparsity term is off, so that the atoms settle on fixed supports; a freeze of 1 trains on fixed
    thresholds throughout.

    Attributes:
        learning_rate: of all weights but the thresholds; None stands for 3e-3 · √(2304 / d_sae).
        threshold_learning_rate: of the thresholds, in units of pre-activations; None stands for `learning_rate`.
        warm_up: share of the steps, from 0 to 1.
        decay: share of the steps, from 0 to 1.
        freeze: share of the steps, from 0 to 1.

    Raises:
        ValueError: a value outside of its range; the message names the key of conf/.
    """

    learning_rate: float | None = None
    threshold_learning_rate: float | None = None
    warm_up: float = 0.1
    decay: float = 0.5
    freeze: float = 0.2

    def __post_init__(self) -> None:
        if self.learning_rate is not None:
            _check_positive("training.schedule.learning_rate", self.learning_rate)
        if self.threshold_learning_rate is not None:
            _check_not_negative("training.schedule.threshold_learning_rate", self.threshold_learning_rate)
        for name in ("warm_up", "decay", "freeze"):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value <= 1):
                raise ValueError(f"training.schedule.{name}={value} should be a share of the run, from 0 to 1.")

    def rates(self, d_sae: int) -> tuple[float, float]:
        """Returns the highest learning rates of the weights and of the thresholds, for a TSAE of `d_sae` latents."""
        derived = 3e-3 * math.sqrt(_REFERENCE_WIDTH / d_sae)
        rate = derived if self.learning_rate is None else self.learning_rate
        return rate, rate if self.threshold_learning_rate is None else self.threshold_learning_rate

    def factor(self, step: int, steps: int) -> float:
        """Computes what the highest learning rates are multiplied by at a step.

        Args:
            step: number of the step, counted from 0.
            steps: number of steps of the run.

        Returns:
            The factor, above 0 and at most 1.
        """
        left = 1 - step / steps
        return min(1.0, (step + 1) / max(1, self.warm_up * steps), left / self.decay if self.decay else 1.0)


@final
@dataclass(frozen=True)
class Revival:
    """When a latent counts as dead, and the term of the loss that pulls it back to its threshold.

    Attributes:
        after: training vectors, over all processes, without an activation after which a latent counts as dead.
        coefficient: λ_P of the term Σ_{j dead} ReLU(θ_j − z_j)·‖d_j‖; 0 leaves it out (Anthropic's recipe: 3e-6).

    Raises:
        ValueError: a value outside of its range; the message names the key of conf/.
    """

    after: int = 50_000
    coefficient: float = 0.0

    def __post_init__(self) -> None:
        _check_count("training.revival.after", self.after)
        _check_not_negative("training.revival.coefficient", self.coefficient)


@final
@dataclass(frozen=True)
class TrainingRecipe:
    """How a TSAE is trained.

    Attributes:
        sparsity: the sparsity term of the loss.
        calibration: of the first thresholds.
        schedule: of the learning rates.
        revival: of dead latents.
        implementation: of a training step. All give one function: `auto` chooses by the counted density of the code;
            `dense`, `sparse` and `screened` force one of them.

    Raises:
        ValueError: an unknown implementation, or no mean L0 for the calibration; the message names the key of conf/.
    """

    sparsity: Sparsity = field(default_factory=lambda: TargetL0(1.0, 40.0))
    calibration: Calibration = Calibration()
    schedule: Schedule = Schedule()
    revival: Revival = Revival()
    implementation: Implementation = "auto"

    def __post_init__(self) -> None:
        _check_word("training.implementation", self.implementation, get_args(Implementation))
        if self.calibration.l0 is None and not isinstance(self.sparsity, TargetL0):
            raise ValueError(
                "training.calibration.l0=null takes the target of the sparsity term, and training.sparsity is "
                f"{type(self.sparsity).__name__}, which has none: give training.calibration.l0=40 or another number."
            )

    @property
    def initial_l0(self) -> float:
        """The mean L0 that the thresholds are calibrated to before the first step."""
        if self.calibration.l0 is not None:
            return self.calibration.l0
        assert isinstance(self.sparsity, TargetL0)
        return self.sparsity.target


def check_shrinkage(shrinkage: float) -> None:
    """Raises ValueError for a shrinkage λ of the metric S that is negative, infinite or no number."""
    _check_not_negative("shrinkage", shrinkage)
