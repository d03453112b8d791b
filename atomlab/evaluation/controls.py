"""The control rows of a table: what the atoms of a run must beat (theory.md 9).

Each control has as many atoms as the run, the same training vectors, the same mean L0, and where it is trained the same
training code. Another control is a name and its description in `CONTROLS`, the names of its rows in `CONTROL_ROWS`, and
its dictionary in `control_cases`; a dictionary that no TSAE learned belongs in `atomlab.units.dictionaries`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.retraining import Retraining
from atomlab.evaluation.rows.measure import measure
from atomlab.evaluation.surrogates import VectorsDataModule, gaussian_vectors
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.report import Row
from atomlab.theory import AtomicInnerProduct
from atomlab.units import Unit, atoms, data_dictionary, data_nearest, k_means, random_atoms, with_pursuit

CONTROLS = {
    "data": (
        "Training vectors as atoms (a random d_sae of them where there are more), centred: memory and nothing "
        "else. “data, nearest” codes by the nearest atom alone (cos_S), “data + OMP” with the atoms' mean L0."
    ),
    "k_means": ("Centroids by minibatch k-means in the metric S, with OMP codes at the atoms' mean L0."),
    "random": (
        "Independent random atoms, uniform on the S-unit sphere, with OMP codes at the atoms' mean L0: no "
        "knowledge of the data but S."
    ),
    "gaussian": (
        "A TSAE trained by the same code on Gaussian vectors with the data's mean and covariance: measured on "
        "the data, and ('on its own') on its own training vectors and fresh ones, which have no structure "
        "beyond their covariance."
    ),
}
CONTROL_ROWS = (
    "data, nearest",
    "data + OMP",
    "k-means + OMP",
    "random + OMP",
    "Gaussian TSAE",
    "Gaussian TSAE on its own",
)
_SEEDS = 1_000_003  # so that the data dictionary is not drawn by the same permutation as the measured sample


@final
@dataclass(frozen=True)
class Case:
    """A unit and the vectors that it is measured on.

    Attributes:
        unit: a dictionary and its codes.
        train: (samples, d_in) training vectors, in random order.
        test: (samples, d_in) held-out vectors, in random order.
        fitted: number of training vectors that the unit was fitted to; None if it was fitted to none, or nobody knows.
    """

    unit: Unit
    train: Tensor
    test: Tensor
    fitted: int | None = None

    def row(self, metric: AtomicInnerProduct, sample_sizes: SampleSizes) -> Row:
        """Measures the row of the unit in a table.

        Args:
            metric: S.
            sample_sizes: sample sizes, and the seed of random atoms and supports.

        Returns:
            The row of `measure`, with `samples_fitted`, the number of vectors that the unit was fitted to.
        """
        return measure(self.unit, self.train, self.test, metric, sample_sizes) | {"samples_fitted": self.fitted}


def check_controls(names: Sequence[str]) -> None:
    """Raises ValueError unless `names` is a list of names of `CONTROLS`."""
    if isinstance(names, str):
        raise ValueError(f"study.controls={names} is one word: expected a list, study.controls=[{names}].")
    if unknown := [name for name in names if name not in CONTROLS]:
        raise ValueError(f"study.controls names {', '.join(unknown)}: choose from {', '.join(CONTROLS)}.")


def control_cases(
    names: Sequence[str],
    k: int,
    atoms_case: Case,
    data: ActivationDataModule,
    metric: AtomicInnerProduct,
    retraining: Retraining,
    sample_sizes: SampleSizes,
) -> list[Case]:
    """Makes the named controls, ready to be measured.

    Args:
        names: names of `CONTROLS`.
        k: number of atoms in an OMP code.
        atoms_case: the trained atoms. Controls have as many atoms, and are measured on the same vectors.
        data: the activations, set up.
        metric: S.
        retraining: how the TSAE of the Gaussian surrogate is trained.
        sample_sizes: number of training vectors that a control gets, and the seed.

    Returns:
        One or two cases for each name, in the order of `CONTROL_ROWS`.

    Raises:
        ValueError: an unknown name.
    """
    check_controls(names)
    d_sae = atoms_case.unit.d_sae
    mean, generator = data.moments.mean.float(), torch.Generator().manual_seed(_SEEDS + sample_sizes.seed)
    train, test = atoms_case.train, atoms_case.test
    vectors = data.sample("train", sample_sizes.controls)
    fitted: list[Unit] = []
    unfitted: list[Unit] = []
    if "data" in names:
        dictionary = data_dictionary(vectors, mean, d_sae, generator)
        fitted += [
            data_nearest(dictionary, mean, metric),
            with_pursuit("data + OMP", dictionary, mean, min(k, len(dictionary)), metric),
        ]
    if "k_means" in names:
        centroids = k_means(vectors, mean, d_sae, metric, sample_sizes.seed)
        fitted.append(with_pursuit("k-means + OMP", centroids, mean, min(k, len(centroids)), metric))
    if "random" in names:
        unfitted.append(random_atoms(d_sae, mean, k, metric, generator))
    cases = [Case(unit, train, test, len(vectors)) for unit in fitted] + [Case(unit, train, test) for unit in unfitted]
    return cases + (
        _gaussian(d_sae, data, len(vectors), train, test, retraining, sample_sizes) if "gaussian" in names else []
    )


def _gaussian(
    d_sae: int,
    data: ActivationDataModule,
    count: int,
    train: Tensor,
    test: Tensor,
    retraining: Retraining,
    sample_sizes: SampleSizes,
) -> list[Case]:
    generator = torch.Generator().manual_seed(_SEEDS + sample_sizes.seed)
    vectors = gaussian_vectors(data.moments, count, generator)
    surrogate = VectorsDataModule(
        vectors,
        data.reference_moments,
        batch_size=retraining.batch_size,
        steps=retraining.steps,
        seed=sample_sizes.seed,
    )
    sae = retraining.train(surrogate, seed=sample_sizes.seed, expansion=d_sae / data.d_in)
    fresh = gaussian_vectors(data.moments, len(test), generator)
    return [
        Case(atoms(sae, "Gaussian TSAE"), train, test, count),
        Case(atoms(sae, "Gaussian TSAE on its own"), vectors[: sample_sizes.measured], fresh, count),
    ]


def pursuit_size(l0: float, d_in: int) -> int:
    """Chooses K for the OMP codes of the controls.

    Args:
        l0: mean L0 of the trained atoms.
        d_in: width of the activations.

    Returns:
        K: `l0` rounded to a whole number, but at least 1 and at most `d_in`.
    """
    return min(max(1, round(l0)), d_in)
