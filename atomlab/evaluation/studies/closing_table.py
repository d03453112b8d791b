"""The closing table of train.py: atoms, neurons and one control, measured in seconds, with a few figures and the report."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.controls import Case, pursuit_size
from atomlab.evaluation.provenance import describe, metric_of, trained_on
from atomlab.evaluation.rows.conclusion import conclude, with_memory
from atomlab.evaluation.rows.measure import on_validation
from atomlab.identity import Identity
from atomlab.metrics.sample_sizes import SampleSizes
from atomlab.report import (
    Page,
    Results,
    Row,
    coherence_figure,
    render_text,
    spectrum_figure,
    thresholds_figure,
    write_results,
)
from atomlab.sae import ThresholdSAE
from atomlab.theory import AtomicInnerProduct, firing_counts, per_atom_coherence, welch_bound
from atomlab.training.build import reference_metric
from atomlab.units import Unit, atoms, neurons, random_atoms


def evaluate_run(
    sae: ThresholdSAE,
    data: ActivationDataModule,
    sample_sizes: SampleSizes,
    folder: Path,
    *,
    shrinkage: float,
    configuration: str,
    identity: Identity,
) -> tuple[list[Row], str]:
    """Measures a trained TSAE beside the neurons and random atoms, and writes results, figures and report.

    The random atoms have OMP codes of as many atoms as the trained ones use on average.

    Args:
        sae: the TSAE of raw activations.
        data: its activations, set up.
        sample_sizes: how many vectors and supports are measured.
        folder: where the files go.
        shrinkage: λ of the metric S.
        configuration: the run's configuration as YAML, for the report.
        identity: the record of the run, for results.json; its `seed` is named in the report.

    Returns:
        The rows of the table, and the text to print.
    """
    metric = reference_metric(data, shrinkage)
    train, test = data.sample("train", sample_sizes.measured), data.sample("test", sample_sizes.measured)
    trained = atoms(sae)
    rows = [Case(trained, train, test, trained_on(data)).row(metric, sample_sizes)]
    k = pursuit_size(rows[0]["l0"], data.d_in)
    control = random_atoms(
        sae.d_sae, data.moments.mean.float(), k, metric, torch.Generator().manual_seed(sample_sizes.seed)
    )
    rows[0] |= on_validation(trained, data, metric, sample_sizes)
    rows += [Case(unit, train, test).row(metric, sample_sizes) for unit in (neurons(data.d_in), control)]
    rows = [row | metric_of(data, shrinkage) for row in with_memory(rows)]
    provenance = describe(data, sample_sizes, shrinkage, identity["seed"])
    write_results(
        folder,
        Results(rows, conclude(rows), provenance, identity),
        Page(f"Atoms of {provenance['model']}, {provenance['site']}", configuration),
        _figures(trained, control, sae, data, metric, test),
    )
    report = (folder / "report.html").resolve()
    return rows, f"{render_text(rows)}\n\n{conclude(rows)}\n{provenance['measured on']}\nreport: {report}"


def _figures(
    trained: Unit,
    control: Unit,
    sae: ThresholdSAE,
    data: ActivationDataModule,
    metric: AtomicInnerProduct,
    test: torch.Tensor,
) -> Mapping[str, Callable[[], Any]]:
    def coherence() -> Any:
        found = {unit.name: per_atom_coherence(unit.dictionary, metric).numpy() for unit in (trained, control)}
        return coherence_figure(found, welch_bound(sae.d_sae, sae.d_in))

    def thresholds() -> Any:
        firing = firing_counts(trained.encode(test)).double() / len(test)
        return thresholds_figure(sae.threshold.detach().numpy(), firing.numpy())

    def spectrum() -> Any:
        return spectrum_figure(torch.linalg.eigvalsh(data.moments.second_moment).flip(0).numpy())

    return {
        "Per-atom coherence in the metric S, against the Welch bound": coherence,
        "Thresholds, and how often each latent fires on held-out vectors": thresholds,
        "Spectrum of the activations' second moment": spectrum,
    }
