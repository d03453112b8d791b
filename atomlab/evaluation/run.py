"""What train.py measures at its end, in seconds: the closing table, a few figures, and the report."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.controls import Case
from atomlab.evaluation.memory import memory_in_words, with_memory
from atomlab.evaluation.protocol import Protocol
from atomlab.evaluation.provenance import describe, metric_of, trained_on
from atomlab.evaluation.table import Row, on_validation
from atomlab.identity import Identity
from atomlab.report import coherence_figure, render_text, spectrum_figure, thresholds_figure, write_results
from atomlab.sae import ThresholdSAE
from atomlab.theory import AtomicInnerProduct, firing_counts, per_atom_coherence, welch_bound
from atomlab.units import Unit, atoms, neurons, random_atoms


def evaluate_run(
    sae: ThresholdSAE,
    data: ActivationDataModule,
    protocol: Protocol,
    folder: Path,
    *,
    shrinkage: float,
    configuration: str,
    seed: int,
    identity: Identity,
) -> tuple[list[Row], str]:
    """Measures atoms, neurons and random atoms (OMP at the atoms' mean L0), writes the files; returns rows and text.

    Args:
        sae: of raw activations.
        data: prepared and set up.
        protocol: sample sizes.
        folder: where the files go.
        shrinkage: of S.
        configuration: YAML of the run, for the report.
        seed: of the run, for the report.
        identity: of the run, for results.json.
    """
    metric = reference_metric(data, shrinkage)
    train, test = data.sample("train", protocol.samples), data.sample("test", protocol.samples)
    trained = atoms(sae)
    rows = [Case(trained, train, test, trained_on(data)).row(metric, protocol)]
    k = pursuit_size(rows[0]["l0"], data.d_in)
    control = random_atoms(
        sae.d_sae, data.moments.mean.float(), k, metric, torch.Generator().manual_seed(protocol.seed)
    )
    rows[0] |= on_validation(trained, data, metric, protocol)
    rows += [Case(unit, train, test).row(metric, protocol) for unit in (neurons(data.d_in), control)]
    rows = [row | metric_of(data, shrinkage) for row in with_memory(rows)]
    provenance = describe(data, protocol, shrinkage, seed)
    write_results(
        folder,
        title=f"Atoms of {provenance['model']}, {provenance['site']}",
        rows=rows,
        figures=_figures(trained, control, sae, data, metric, test),
        configuration=configuration,
        provenance=provenance,
        identity=identity,
        conclusion=conclude(rows),
    )
    report = (folder / "report.html").resolve()
    return rows, f"{render_text(rows)}\n\n{conclude(rows)}\n{provenance['measured on']}\nreport: {report}"


def reference_metric(data: ActivationDataModule, shrinkage: float) -> AtomicInnerProduct:
    """S of the reference corpus."""
    reference = data.reference_moments
    return AtomicInnerProduct.from_second_moment(reference.second_moment, shrinkage=shrinkage, count=reference.count)


def pursuit_size(l0: float, d_in: int) -> int:
    """K of a control's OMP codes: the atoms' mean L0, at least 1 and at most d_in."""
    return min(max(1, round(l0)), d_in)


def conclude(rows: list[Row]) -> str:
    """What the table lets a reader say, whatever the numbers are: each control that the atoms do not beat is named.

    Neurons (R² = 1 by construction) and surrogates measured on their own vectors are no competitors.
    """
    trained = rows[0]
    controls = [row for row in rows[1:] if row["unit"] != "neurons" and not row["unit"].endswith("on its own")]
    certified = trained["certified_level_4"] or 0.0
    lost = {
        norm: [row["unit"] for row in controls if row.get(f"r2_test{norm}", 0.0) >= trained[f"r2_test{norm}"]]
        for norm in ("", "_s")
    }
    verdicts = [
        f"{name} they do not explain more than {', '.join(better)}"
        if better
        else f"{name} they explain more than every control"
        for name, better in (("in the Euclidean norm", lost[""]), ("in the S-norm", lost["_s"]))
    ]
    against = ", ".join(verdicts) if controls else "no control was measured beside them"
    return _doubt(trained) + (
        f"Held out, the atoms explain {trained['r2_test']:.1%} of the variance ({trained['r2_test_s']:.1%} in the S-norm) "
        f"with {trained['l0']:.1f} of {trained['d_sae']} latents a vector; {against}. On training vectors it is "
        f"{trained['r2_train']:.1%} ({trained['r2_train_s']:.1%}); {memory_in_words(trained)} For {certified:.1%} of the "
        "vectors the code is certified as the unique non-negative ℓ1-minimal one (level 4); q* is an index and certifies "
        "nothing."
    )


def _doubt(trained: Row) -> str:
    """A first sentence about atoms that reconstruct the vectors they were trained on worse than their mean does."""
    if trained["r2_train"] > -0.01:  # where no latent fires it is 0, up to rounding
        return ""
    return (
        f"The atoms reconstruct worse than the mean vector alone would (R² {trained['r2_train']:,.3g} on training vectors): "
        "the training diverged, or was too short; lower sae.learning_rate or raise steps. "
    )


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
