"""What a TSAE is built like and how it is trained: the leaves `sae` and `training` of conf/, checked when they are made.

None of these types needs data, so a value that no data could train with is refused before anything is harvested.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, final, get_args

from atomlab.groups import ALONE, Groups
from atomlab.ranges import Count, NotNegative, Positive, Share, check_ranges, fits, in_words
from atomlab.sae import SAE, BaselineSAE, BatchTopK, Gated, Incoherence, Relu, Sparsity, TargetL0, ThresholdSAE, TopK
from atomlab.sae.ops import Implementation

Coordinates = Literal["raw", "scaled"]
Kind = Literal["threshold", "relu", "top_k", "batch_top_k", "gated"]

OWN_STARTS = ("data", "random", "kmeans")  # initial atoms that are not those of another training


def _check_word(key: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ValueError(f"{key}={value} is unknown: choose {', '.join(words[:-1])} or {words[-1]}.")


@final
@dataclass(frozen=True)
class Architecture:
    """How a TSAE, or an SAE that it is compared with, is built.

    Attributes:
        expansion: d_sae / d_in.
        inputs: the coordinates x̃ that the SAE is trained in: `raw` (x̃ = x), or `scaled` (centred, multiplied by
            S^(α/2), and scaled so that E‖x̃‖² = 1).
        alpha: α, from 0 to 1: whose squared error the training lowers, from the Euclidean one (0) to that of the
            S-norm (1, whitened inputs).
        tied: whether W_enc = W_decᵀ throughout the training, which means W_enc = S^α W_decᵀ in raw coordinates.
        bandwidth: ε of the straight-through estimators of a TSAE, in units of x̃.
        activation: `threshold` for a TSAE, or `relu`, `top_k`, `batch_top_k` or `gated` for a `BaselineSAE`.

    Raises:
        ValueError: a value outside of its range, or a tied encoder of another activation than `threshold`; the message
            names the key of conf/.
    """

    expansion: Positive = 4.0
    inputs: Coordinates = "scaled"
    alpha: Share = 1.0
    tied: bool = True
    bandwidth: Positive = 0.025
    activation: Kind = "threshold"

    def __post_init__(self) -> None:
        check_ranges("sae", self)
        _check_word("sae.activation", self.activation, get_args(Kind))
        _check_word("sae.inputs", self.inputs, get_args(Coordinates))
        if self.tied and self.activation != "threshold":
            raise ValueError(
                f"sae.tied=true is for sae.activation=threshold: with {self.activation} give sae.tied=false, or choose "
                f"sae={self.activation}, which has it."
            )

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

    def new_sae(self, d_in: int, l0: float, groups: Groups = ALONE) -> SAE:
        """Makes an SAE with random atoms, drawn from PyTorch's global random numbers.

        Args:
            d_in: width of the activations.
            l0: mean number of active latents that is aimed at; rounded, k of `top_k` and `batch_top_k`.
            groups: the processes that train together; those of `groups.latents` share a TSAE.

        Raises:
            ValueError: fewer than two latents.
        """
        d_sae = self.d_sae(d_in)
        k = max(1, round(l0))
        match self.activation:
            case "threshold":
                return ThresholdSAE(d_in, d_sae, bandwidth=self.bandwidth, tied=self.tied, groups=groups)
            case "relu":
                activation = Relu()
            case "top_k":
                activation = TopK(k)
            case "batch_top_k":
                activation = BatchTopK(k)
            case "gated":
                activation = Gated(d_sae)
        sae = BaselineSAE(d_in, d_sae, activation)
        sae.shard = sae.shard.among(groups)
        return sae


@final
@dataclass(frozen=True)
class InitialAtoms:
    """Where the atoms start.

    Attributes:
        source: `data` (training vectors), `kmeans` (centroids of training vectors, in the coordinates of the training),
            `random` (uniform on the unit sphere), the path of a run's folder, a checkpoint or an SAE of the same site
            and number of latents, or a list of two or more such paths of any number of latents: the atoms that more than
            half of them have, and training vectors for the rest.
        samples: training vectors that centroids and vectors are taken from.
        passes: passes over these that k-means makes, at most.
        bound: largest |cos| of two initial atoms. A vector or centroid nearer to an earlier one than this is left out, and
            another vector takes its place; k-means alone leaves twins, since it knows distances and no directions.
        agreement: of a list of paths, the |cos| in the metric S from which on two atoms of different runs count as one.

    Raises:
        ValueError: a value outside of its range; the message names the key of conf/.
    """

    source: str | Sequence[str] = "data"
    samples: Count = 100_000
    passes: Count = 20
    bound: Share = 0.5
    agreement: Share = 0.7

    def __post_init__(self) -> None:
        named = [self.source] if isinstance(self.source, str) else self.source
        if not isinstance(named, Sequence) or not named or not all(isinstance(name, str) and name for name in named):
            raise ValueError(
                f"training.initial_atoms.source={self.source} should be kmeans, data, random, the path of a run or an SAE, or "
                "a list of such paths."
            )
        if not isinstance(self.source, str) and (len(named) < 2 or {*OWN_STARTS} & {*named}):
            raise ValueError(
                f"training.initial_atoms.source={list(named)} should list two or more runs or SAEs, whose common atoms are "
                "the start: give one path without brackets, or kmeans, data or random alone."
            )
        check_ranges("training.initial_atoms", self)

    @property
    def paths(self) -> tuple[str, ...]:
        """The other trainings whose atoms these are; none for training vectors, centroids and random atoms."""
        if not isinstance(self.source, str):
            return tuple(self.source)
        return () if self.source in OWN_STARTS else (self.source,)


@final
@dataclass(frozen=True)
class Calibration:
    """How the thresholds are chosen before the first step, and set right after the last one.

    Attributes:
        l0: mean number of active latents of a vector that the first thresholds give; None takes the target of the
            sparsity term, which is then `TargetL0`.
        samples: training vectors that the first thresholds are calibrated on, and validation vectors that the last ones
            are.
        final: whether all thresholds are multiplied by one number after the last step, so that the mean L0 of validation
            vectors is the target of `TargetL0`. In training it is met on training vectors only, and held-out vectors
            have more active latents.

    Raises:
        ValueError: a value outside of its range; the message names the key of conf/.
    """

    l0: Positive | None = None
    samples: Count = 8192
    final: bool = True

    def __post_init__(self) -> None:
        check_ranges("training.calibration", self)


@final
@dataclass(frozen=True)
class Schedule:
    """Learning rates over a run.

    The rate rises linearly over the first `warm_up` share of the steps and falls linearly to zero over the last `decay`
    share. Where the shares overlap, the lower of the two rates holds. Over the last `freeze` share of the steps the thresholds
    stand still and the sparsity term is off, so that the atoms settle on fixed supports; a freeze of 1 trains on fixed
    thresholds throughout.

    Attributes:
        learning_rate: of all weights but the thresholds; None stands for `learning_rate_at_2304` · √(2304 / d_sae).
        learning_rate_at_2304: that rate of a TSAE with 2,304 latents; has no effect where `learning_rate` is given.
        threshold_learning_rate: of the thresholds, in units of pre-activations; None stands for `learning_rate`.
        warm_up: share of the steps, from 0 to 1.
        decay: share of the steps, from 0 to 1.
        freeze: share of the steps, from 0 to 1.

    Raises:
        ValueError: a value outside of its range; the message names the key of conf/.
    """

    learning_rate: Positive | None = None
    learning_rate_at_2304: Positive = 3e-3
    threshold_learning_rate: NotNegative | None = None
    warm_up: Share = 0.1
    decay: Share = 0.5
    freeze: Share = 0.0

    def __post_init__(self) -> None:
        check_ranges("training.schedule", self)

    def rates(self, d_sae: int) -> tuple[float, float]:
        """Returns the highest learning rates of the weights and of the thresholds, for a TSAE of `d_sae` latents."""
        derived = self.learning_rate_at_2304 * math.sqrt(2304 / d_sae)
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
    """When a latent counts as dead, and the term of the loss that brings it back.

    Attributes:
        after: training vectors, over all processes, without an activation after which a latent counts as dead.
        coefficient: of the term for dead latents; 0 leaves it out. A TSAE has Σ_{j dead} ReLU(θ_j − z_j)·‖d_j‖ (Anthropic's
            recipe: 3e-6), TopK and BatchTopK have `dead_latents_loss` (1/32 in its paper), ReLU and Gated have none.

    Raises:
        ValueError: a value outside of its range; the message names the key of conf/.
    """

    after: Count = 50_000
    coefficient: NotNegative = 0.0

    def __post_init__(self) -> None:
        check_ranges("training.revival", self)


@final
@dataclass(frozen=True)
class TrainingRecipe:
    """How a TSAE, or an SAE that it is compared with, is trained.

    Attributes:
        sparsity: the sparsity term of the loss. Of other SAEs than a TSAE only the target of `TargetL0` counts: it is k, or
            the L0 that `L1Control` aims at.
        calibration: of the first thresholds.
        schedule: of the learning rates.
        revival: of dead latents.
        initial_atoms: where the atoms start.
        noise: standard deviation of the normal noise that each training input gets, as a share of the inputs' root mean
            square; the TSAE reconstructs the input without it. With 0 there is none.
        incoherence: the term of the loss that keeps the atoms apart.
        implementation: of a training step of a TSAE. All give one function: `auto` chooses by the counted density of the code;
            `dense`, `sparse` and `screened` force one of them.

    Raises:
        ValueError: an unknown implementation, or no mean L0 for the calibration; the message names the key of conf/.
    """

    sparsity: Sparsity = field(default_factory=lambda: TargetL0(1.0, 40.0))
    calibration: Calibration = Calibration()
    schedule: Schedule = Schedule()
    revival: Revival = Revival()
    initial_atoms: InitialAtoms = InitialAtoms()
    noise: NotNegative = 0.3
    incoherence: Incoherence = field(default_factory=Incoherence)
    implementation: Implementation = "auto"

    def __post_init__(self) -> None:
        _check_word("training.implementation", self.implementation, get_args(Implementation))
        check_ranges("training", self)
        if self.calibration.l0 is None and not isinstance(self.sparsity, TargetL0):
            raise ValueError(
                "training.calibration.l0=null takes the target of the sparsity term, and training.sparsity is "
                f"{type(self.sparsity).__name__}, which has none: give training.calibration.l0=40 or another number."
            )

    def without_foreign_atoms(self) -> "TrainingRecipe":
        """Returns this recipe with training vectors as initial atoms if they would be those of another training."""
        if not self.initial_atoms.paths:
            return self
        return replace(self, initial_atoms=replace(self.initial_atoms, source="data"))

    @property
    def final_l0(self) -> float | None:
        """The mean L0 that the thresholds are set to after the last step; None where they are left as they are."""
        return self.sparsity.target if self.calibration.final and isinstance(self.sparsity, TargetL0) else None

    @property
    def initial_l0(self) -> float:
        """The mean L0 that the thresholds are calibrated to before the first step."""
        if self.calibration.l0 is not None:
            return self.calibration.l0
        assert isinstance(self.sparsity, TargetL0)
        return self.sparsity.target


def check_together(architecture: Architecture, recipe: TrainingRecipe, groups: Groups = ALONE) -> None:
    """Refuses a recipe or processes that an architecture cannot be trained with.

    Raises:
        ValueError: an activation other than `threshold` without a target of L0 or with a dictionary that several processes
            share, or `relu` and `gated` with a term for dead latents, which they do not have. The message names the key of
            conf/.
    """
    kind = architecture.activation
    if kind == "threshold":
        return
    if groups.latents.size > 1:
        raise ValueError(
            f"trainer.strategy.latents={groups.latents.size} processes can share a TSAE only, and sae.activation={kind}: use "
            "trainer=ddp, in which each process has the whole dictionary, or sae=tsae."
        )
    if not isinstance(recipe.sparsity, TargetL0):
        raise ValueError(
            f"training.sparsity is {type(recipe.sparsity).__name__}, and sae.activation={kind} is trained to a mean L0: use "
            "training.sparsity._target_=atomlab.sae.TargetL0 with a target."
        )
    if kind in ("relu", "gated") and recipe.revival.coefficient > 0:
        raise ValueError(
            f"training.revival.coefficient={recipe.revival.coefficient} is of a term for dead latents, which "
            f"sae.activation={kind} does not have: use training.revival.coefficient=0."
        )


def check_shrinkage(shrinkage: float) -> None:
    """Raises ValueError for a shrinkage λ of the metric S that is negative, infinite or no number."""
    if not fits(shrinkage, NotNegative):
        raise ValueError(f"shrinkage={shrinkage} should be {in_words(NotNegative)}.")
