"""What makes the rows of a table comparable: the same vectors, the same metric, and the L0 of the atoms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.coders import threshold_coder
from atomlab.evaluation.rows.held_out import HeldOut
from atomlab.evaluation.rows.measure import Replicates, measure
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.report import Row, attempt
from atomlab.sae import SAE, ThresholdSAE
from atomlab.theory import AtomicInnerProduct, support_sizes
from atomlab.units import CODERS, Unit, atoms, coded, neurons

_CLOSE = 0.01  # relative distance of a row's held-out L0 from the atoms' that is not corrected
_ALLOWED = 0.02  # beyond this distance a row is left out
_ROUNDS = 6


@final
@dataclass(frozen=True)
class Case:
    """A unit and the vectors that it is measured on.

    Attributes:
        unit: a dictionary and its codes.
        train: (samples, d_in) training vectors, in random order.
        test: held-out vectors, in random order, with their documents.
        fitted: number of training vectors that the unit was fitted to; None if it was fitted to none, or nobody knows.
    """

    unit: Unit
    train: Tensor
    test: HeldOut
    fitted: int | None = None

    def measured(self, metric: AtomicInnerProduct, sample_sizes: SampleSizes) -> tuple[Row, Replicates]:
        """Measures the row of the unit in a table.

        Args:
            metric: S.
            sample_sizes: sample sizes, and the seed of random atoms and supports.

        Returns:
            What `measure` returns, with `samples_fitted` in the row, the number of vectors that the unit was fitted to.
        """
        row, replicates = measure(self.unit, self.train, self.test, metric, sample_sizes)
        return row | {"samples_fitted": self.fitted}, replicates


@final
@dataclass(frozen=True)
class EqualL0:
    """The atoms of a table and their L0, which all other units of it are given.

    A coder is calibrated on validation vectors for the atoms' L0 there. From one text to another the L0 of one coder may
    drift more than that of another, so the target is then corrected (secant method on logarithms) until the held-out L0
    of the unit and of the atoms are within 1%, five times at most. A unit that stays more than 2% away is left out. K of
    OMP is the atoms' held-out L0. Of held-out vectors all this uses the number of non-zero values alone, not how well
    they are reconstructed.

    Attributes:
        case: the atoms with their own one-step code.
        validation: (samples, d_in) vectors that coders are calibrated on.
        metric: S.
        l0_validation: mean L0 of the atoms on them.
        l0: mean L0 of the atoms on held-out vectors.
    """

    case: Case
    validation: Tensor
    metric: AtomicInnerProduct
    l0_validation: float
    l0: float

    @classmethod
    def of(cls, case: Case, data: ActivationDataModule, metric: AtomicInnerProduct, samples: int) -> "EqualL0":
        """Measures the L0 of the atoms.

        Args:
            case: the atoms with their own one-step code.
            data: the activations, set up.
            metric: S.
            samples: number of validation vectors, at most.
        """
        validation = data.sample("validation", samples)
        sizes = (mean_l0(case.unit, vectors) for vectors in (validation, case.test.vectors))
        at_least = 1 / len(validation)  # atoms that never fire leave no L0 to give to others
        return cls(case, validation, metric, *(max(size, at_least) for size in sizes))

    def encoder_of(self, dictionary: Tensor, bias: Tensor) -> ThresholdSAE:
        """Gives a dictionary that has no encoder a one-step code with the L0 of the atoms (`threshold_coder`).

        Args:
            dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm but 0.
            bias: what reconstructions add, shape `(d_in,)`.
        """
        return threshold_coder(
            dictionary, bias, self.validation, min(self.l0_validation, len(dictionary) / 4), self.metric
        )

    def coded(self, name: str, sae: SAE, coder: str) -> Unit:
        """Makes the unit of a dictionary and a coder at the L0 of the atoms.

        Args:
            name: name of the dictionary.
            sae: the dictionary, its bias and its one-step encoder.
            coder: one of `atomlab.units.CODERS`.

        Returns:
            The unit.

        Raises:
            ValueError: the coder does not reach this L0 on this dictionary.
        """
        if coder == "omp" and abs(round(self.l0) / self.l0 - 1) <= _CLOSE:  # each vector gets that many
            return coded(name, sae, coder, self.l0, self.validation, self.metric)
        target = self.l0 if coder == "nonnegative_omp" else self.l0_validation
        found: dict[float, Unit] = {}
        tried: list[tuple[float, float]] = []
        for _ in range(_ROUNDS):
            try:
                unit = coded(name, sae, coder, target, self.validation, self.metric)
            except ValueError:
                if not found:
                    raise
                break
            reached = mean_l0(unit, self.case.test.vectors)
            found.setdefault(abs(reached / self.l0 - 1), unit)
            if min(found) <= _CLOSE:
                break
            tried.append((math.log(target), math.log(max(reached, self.l0 / 10))))
            target = math.exp(tried[-1][0] + (math.log(self.l0) - tried[-1][1]) / _slope(tried))
        if min(found) > _ALLOWED:
            raise ValueError(
                f"Its L0 on held-out vectors stays {min(found):.1%} away from the {self.l0:.4g} of the atoms, so it cannot be "
                "compared with them; leave the coder out of study.coders, or measure more vectors."
            )
        return found[min(found)]

    def cases(
        self, name: str, sae: SAE, coders: Sequence[str], missing: list[str], fitted: int | None = None
    ) -> list[Case]:
        """Makes the cases of one dictionary with several coders, on the vectors of the atoms.

        Args:
            name: name of the dictionary.
            sae: the dictionary, its bias and its one-step encoder.
            coders: names of `atomlab.units.CODERS`.
            missing: gets a sentence for each coder that does not reach the L0, whose case is left out.
            fitted: number of training vectors that the dictionary was fitted to.
        """
        found = []
        for coder in coders:
            unit = attempt(f"{name} + {CODERS[coder]}", lambda coder=coder: self.coded(name, sae, coder), missing)
            found += [] if unit is None else [Case(unit, self.case.train, self.case.test, fitted)]
        return found

    def trained_cases(
        self, sae: SAE, imported: Mapping[str, SAE], coders: Sequence[str], missing: list[str]
    ) -> list[Case]:
        """Makes the first cases of a table: the atoms with their own code, neurons, and the atoms and imported SAEs recoded.

        Args:
            sae: the TSAE of the atoms.
            imported: SAEs by the name of their row; each has a case as it was released, too.
            coders: names of `atomlab.units.CODERS`. The atoms' own one-step code has the wanted L0 as it is.
            missing: gets a sentence for each coder that does not reach the L0, whose case is left out.
        """
        own = self.case
        cases = [own, replace(own, unit=neurons(sae.d_in), fitted=None)]
        cases += self.cases("atoms", sae, [coder for coder in coders if coder != "threshold"], missing, own.fitted)
        for name, each in imported.items():
            cases += [replace(own, unit=atoms(each, name), fitted=None), *self.cases(name, each, coders, missing)]
        return cases


def _slope(tried: Sequence[tuple[float, float]]) -> float:
    """How fast the held-out L0 grows with the target, both as logarithms: by the last two trials, 1 at first."""
    if len(tried) < 2 or tried[-1][0] == tried[-2][0]:
        return 1.0
    slope = (tried[-1][1] - tried[-2][1]) / (tried[-1][0] - tried[-2][0])
    return min(max(slope, 0.3), 3.0)


@torch.no_grad()
def mean_l0(unit: Unit, vectors: Tensor, block: int = 2048) -> float:
    """Counts the non-zero values of a code, as a mean over vectors (samples, d_in), `block` of them coded at a time."""
    return float(torch.cat([support_sizes(unit.encode(x)) for x in vectors.split(block)]).double().mean())


def atoms_case(sae: SAE, data: ActivationDataModule, samples: int, fitted: int | None) -> Case:
    """Makes the case of a trained TSAE with its own code.

    Args:
        sae: the TSAE of raw activations.
        data: the activations, set up.
        samples: number of training vectors and of held-out vectors, at most.
        fitted: number of vectors that it was trained on.
    """
    return Case(atoms(sae), data.sample("train", samples), HeldOut.of(data, samples), fitted)
