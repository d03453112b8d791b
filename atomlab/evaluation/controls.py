"""The control rows of a table: what the atoms of a run must beat (theory.md 9).

Each control has as many atoms as the run, the same training vectors, the same mean L0, the same choice of coders, and
where it is trained the same training code. Another control is a name and its description in `CONTROLS`, the name of its
dictionary in `CONTROL_SOURCES`, and its cases in `control_cases`; a dictionary that no TSAE learned belongs in
`atomlab.units.dictionaries`.
"""

from collections.abc import Sequence

import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.equal_l0 import Case, EqualL0
from atomlab.evaluation.retraining import Retraining
from atomlab.evaluation.rows.held_out import HeldOut
from atomlab.evaluation.surrogates import gaussian_vectors
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.training.vectors import VectorsDataModule
from atomlab.units import atoms, data_dictionary, data_nearest, k_means, random_atoms

CONTROLS = {
    "data": (
        "Training vectors as atoms (a random d_sae of them where there are more), centred: memory and nothing "
        "else. “data, nearest” codes by the nearest atom alone (cos_S), the other rows with the atoms' mean L0."
    ),
    "k_means": "Centroids by minibatch k-means in the metric S.",
    "random": "Independent random atoms, uniform on the S-unit sphere: no knowledge of the data but S.",
    "gaussian": (
        "A TSAE trained by the same code on Gaussian vectors with the data's mean and covariance: measured on "
        "the data, and ('on its own') on its own training vectors and fresh ones, which have no structure "
        "beyond their covariance."
    ),
}
CONTROL_SOURCES = ("data", "k-means", "random", "Gaussian TSAE")  # their dictionaries, as the names of rows begin
_SEEDS = 1_000_003  # so that the data dictionary is not drawn by the same permutation as the measured sample


def control_cases(
    names: Sequence[str],
    coders: Sequence[str],
    equal: EqualL0,
    data: ActivationDataModule,
    retraining: Retraining,
    sample_sizes: SampleSizes,
    missing: list[str],
) -> list[Case]:
    """Makes the named controls, ready to be measured.

    Args:
        names: names of `CONTROLS`.
        coders: names of `atomlab.units.CODERS`; each control is coded by each of them.
        equal: the atoms. Controls have as many atoms and the same L0, and are measured on the same vectors.
        data: the activations, set up.
        retraining: how the TSAE of the Gaussian surrogate is trained.
        sample_sizes: number of training vectors that a control gets, and the seed.
        missing: gets a sentence for each coder that does not reach the L0 of the atoms, whose case is left out.

    Returns:
        The cases, control by control.
    """
    d_sae, metric = equal.case.unit.d_sae, equal.metric
    mean, generator = data.moments.mean.float(), torch.Generator().manual_seed(_SEEDS + sample_sizes.seed)
    vectors = data.sample("train", sample_sizes.controls)
    cases: list[Case] = []
    if "data" in names:
        dictionary = data_dictionary(vectors, mean, d_sae, generator)
        nearest = data_nearest(dictionary, mean, metric)
        cases.append(Case(nearest, equal.case.train, equal.case.test, len(vectors)))
        cases += equal.cases("data", equal.encoder_of(dictionary, mean), coders, missing, len(vectors))
    if "k_means" in names:
        centroids = k_means(vectors, mean, d_sae, metric, sample_sizes.seed)
        cases += equal.cases("k-means", equal.encoder_of(centroids, mean), coders, missing, len(vectors))
    if "random" in names:
        dictionary = random_atoms(d_sae, data.d_in, metric, generator)
        cases += equal.cases("random", equal.encoder_of(dictionary, mean), coders, missing)
    if "gaussian" in names:
        cases += _gaussian(coders, equal, data, len(vectors), retraining, sample_sizes, missing)
    return cases


def _gaussian(
    coders: Sequence[str],
    equal: EqualL0,
    data: ActivationDataModule,
    count: int,
    retraining: Retraining,
    sample_sizes: SampleSizes,
    missing: list[str],
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
    sae = retraining.train(surrogate, seed=sample_sizes.seed, expansion=equal.case.unit.d_sae / data.d_in)
    fresh = HeldOut.independent(gaussian_vectors(data.moments, len(equal.case.test), generator))
    own = Case(atoms(sae, "Gaussian TSAE on its own"), vectors[: sample_sizes.measured], fresh, count)
    return [*equal.cases("Gaussian TSAE", sae, coders, missing, count), own]
