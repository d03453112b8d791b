"""The closing table of train.py: atoms, neurons and two controls, measured in seconds, with a few figures and the report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.controls import CONTROLS, control_cases
from atomlab.evaluation.equal_l0 import Case, EqualL0, atoms_case
from atomlab.evaluation.option_checks import check_names
from atomlab.evaluation.provenance import describe, metric_of, trained_on
from atomlab.evaluation.retraining import Retraining
from atomlab.evaluation.rows.conclusion import conclude, with_memory
from atomlab.evaluation.rows.differences import with_differences
from atomlab.evaluation.rows.firing import firing_on_training
from atomlab.evaluation.rows.headline import headline, overview_figures
from atomlab.evaluation.rows.measure import on_validation
from atomlab.evaluation.rows.vector_tables import band_tables
from atomlab.identity import Identity
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.report import (
    Page,
    Results,
    Row,
    coherence_figure,
    paragraph,
    render_text,
    spectrum_figure,
    thresholds_figure,
    write_results,
)
from atomlab.sae import SAE
from atomlab.theory import AtomicInnerProduct, firing_counts, per_atom_coherence, welch_bound
from atomlab.training.build import reference_metric
from atomlab.units import k_means, random_atoms


@final
@dataclass(frozen=True)
class RunOrigin:
    """Where a run's numbers come from, for its report.

    Attributes:
        configuration: of the run, as YAML.
        identity: the record of the run, for results.json; its `seed` is named in the report.
    """

    configuration: str
    identity: Identity


@final
@dataclass(frozen=True)
class Nulls:
    """Further controls of the closing table, such as the capacity null of a sweep: the data as dictionary, and a surrogate.

    Attributes:
        names: names of `atomlab.evaluation.controls.CONTROLS`; `gaussian` costs another training.
        retraining: how the TSAE of the Gaussian surrogate is trained; needed where there are names.

    Raises:
        ValueError: an unknown name.
    """

    names: Sequence[str] = ()
    retraining: Retraining | None = None

    def __post_init__(self) -> None:
        check_names("nulls", self.names, CONTROLS)


def evaluate_run(
    sae: SAE,
    data: ActivationDataModule,
    sample_sizes: SampleSizes,
    folder: Path,
    *,
    shrinkage: float,
    origin: RunOrigin,
    nulls: Nulls = Nulls(),
) -> tuple[list[Row], str]:
    """Measures a trained TSAE beside neurons, k-means centroids and random atoms, and writes results, figures and report.

    The atoms are coded by their own encoder and by a pursuit, centroids and random atoms by orthogonal matching pursuit, all
    with the same mean L0. Centroids are of at most `sample_sizes.controls` training vectors.

    Args:
        sae: the TSAE of raw activations.
        data: its activations, set up.
        sample_sizes: how many vectors and supports are measured.
        folder: where the files go.
        shrinkage: λ of the metric S.
        origin: configuration and record of the run, for the report and results.json.
        nulls: further controls.

    Returns:
        The rows of the table, and the text to print.
    """
    metric, missing = reference_metric(data, shrinkage), []
    trained = atoms_case(sae, data, sample_sizes.measured, trained_on(data))
    equal = EqualL0.of(trained, data, metric, sample_sizes.measured)
    mean, vectors = data.moments.mean.float(), data.sample("train", sample_sizes.controls)
    random = random_atoms(sae.d_sae, data.d_in, metric, torch.Generator().manual_seed(sample_sizes.seed))
    centroids = k_means(vectors, mean, sae.d_sae, metric, sample_sizes.seed)
    cases = equal.trained_cases(sae, {}, ["threshold_pursuit"], missing)
    cases += equal.cases("k-means", equal.encoder_of(centroids, mean), ["omp"], missing, len(vectors))
    cases += equal.cases("random", equal.encoder_of(random, mean), ["omp"], missing)
    if nulls.names and nulls.retraining is not None:
        cases += control_cases(nulls.names, ["omp"], equal, data, nulls.retraining, sample_sizes, missing)
    measured = [case.measured(metric, sample_sizes) for case in cases]
    measured[0][0].update(on_validation(trained.unit, data, metric, sample_sizes))
    measured[0][0].update(firing_on_training(trained.unit, data, sample_sizes))
    rows = [row | metric_of(data, shrinkage) for row in with_memory(with_differences(measured, trained.test.count))]
    provenance = describe(data, sample_sizes, shrinkage, origin.identity["seed"])
    overview = overview_figures(rows)
    write_results(
        folder,
        Results(rows, conclude(rows), provenance, origin.identity),
        Page(
            f"Atoms of {provenance['model']}, {provenance['site']}",
            origin.configuration,
            tables=band_tables(rows),
            facts=headline(rows),
            overview=tuple(overview),
            missing=missing,
        ),
        overview | _figures(trained, random, sae, data, metric),
    )
    report = (folder / "report.html").resolve()
    return rows, f"{render_text(rows)}\n\n{paragraph(conclude(rows))}\n{provenance['measured on']}\nreport: {report}"


def _figures(
    trained: Case, random: torch.Tensor, sae: SAE, data: ActivationDataModule, metric: AtomicInnerProduct
) -> dict[str, Callable[[], Any]]:
    def coherence() -> Any:
        dictionaries = {"atoms": trained.unit.dictionary, "random": random}
        found = {name: per_atom_coherence(rows, metric).numpy() for name, rows in dictionaries.items()}
        return coherence_figure(found, welch_bound(sae.d_sae, sae.d_in))

    def thresholds() -> Any:
        firing = firing_counts(trained.unit.encode(trained.test.vectors)).double() / len(trained.test)
        return thresholds_figure(sae.threshold.detach().numpy(), firing.numpy())

    def spectrum() -> Any:
        return spectrum_figure(torch.linalg.eigvalsh(data.moments.second_moment).flip(0).numpy())

    return {
        "Per-atom coherence in the metric S, against the Welch bound": coherence,
        "Thresholds, and how often each latent fires on held-out vectors": thresholds,
        "Spectrum of the activations' second moment": spectrum,
    }
