"""From a trained TSAE to results.json, results.csv and report.html."""

import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.table import Protocol, measure
from atomlab.report import (
    COLUMNS,
    coherence_figure,
    render_text,
    spectrum_figure,
    thresholds_figure,
    write_csv,
    write_json,
    write_report,
)
from atomlab.sae import ThresholdSAE
from atomlab.theory import AtomicInnerProduct, per_atom_coherence, welch_bound
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
) -> tuple[list[dict[str, Any]], str]:
    """Measures atoms, neurons and random atoms with OMP codes at the atoms' mean L0; writes the files, returns the rows and the text to print.

    Args:
        sae: of raw activations.
        data: prepared and set up.
        protocol: sample sizes.
        folder: where the files go.
        shrinkage: of S.
        configuration: YAML of the run, for the report.
        seed: of the run, for the report.
    """
    reference = data.reference_moments
    metric = AtomicInnerProduct.from_second_moment(reference.second_moment, shrinkage=shrinkage, count=reference.count)
    train, test = data.sample("train", protocol.samples), data.sample("test", protocol.samples)
    trained = atoms(sae)
    rows = [measure(trained, train, test, metric, protocol)]
    k = min(max(1, round(rows[0]["l0"])), data.d_in)
    generator = torch.Generator().manual_seed(protocol.seed)
    control = random_atoms(sae.d_sae, data.moments.mean.float(), k, metric, generator)
    rows += [measure(unit, train, test, metric, protocol) for unit in (neurons(data.d_in), control)]
    provenance = describe(data, reference.count, shrinkage, seed, len(train), len(test))
    write_json(folder / "results.json", {"rows": rows, "provenance": provenance})
    write_csv(folder / "results.csv", rows, COLUMNS)
    report = folder / "report.html"
    write_report(
        report,
        title=f"Atoms of {provenance['model']}, {provenance['site']}",
        rows=rows,
        columns=COLUMNS,
        figures=_figures(trained, control, sae, data, metric, test),
        configuration=configuration,
        provenance=provenance,
        conclusion=conclude(rows),
    )
    text = f"{render_text(rows, COLUMNS)}\n\n{conclude(rows)}\n{provenance['measured on']}\nreport: {report.resolve()}"
    return rows, text


def conclude(rows: list[dict[str, Any]]) -> str:
    """What the table lets a reader say, in one or two sentences that hold whatever the numbers are."""
    trained, control = rows[0], rows[-1]
    better = trained["r2_test_s"] > control["r2_test_s"]
    certified = trained["certified_level_4"] or 0.0
    return (
        f"Held out, the atoms explain {trained['r2_test']:.1%} of the variance ({trained['r2_test_s']:.1%} in the S-norm) with {trained['l0']:.1f} of "
        f"{trained['d_sae']} latents a vector, {'more' if better else 'no more'} than random atoms with the best codes OMP finds "
        f"({control['r2_test']:.1%}, {control['r2_test_s']:.1%}). For {certified:.1%} of the vectors the code is certified as the unique non-negative "
        f"l1-minimal one (level 4); q* is an index and certifies nothing."
    )


def describe(
    data: ActivationDataModule, reference_count: int, shrinkage: float, seed: int, train: int, test: int
) -> dict[str, str]:
    """What a reader needs to repeat the numbers; no path of the machine."""
    return {
        "model": data.model.title,
        "revision": data.model.revision,
        "site": str(data.point),
        "corpus": type(data.corpus).__name__,
        "metric S": f"{type(data.reference).__name__}, {reference_count:,} vectors, shrinkage {shrinkage:g}",
        "vectors": ", ".join(f"{split} {len(rows):,}" for split, rows in data.rows.items()),
        "measured on": f"Measured on {train:,} training and {test:,} held-out vectors; held-out groups (documents, subjects or templates) share none with training.",
        "seed": str(seed),
        "commit": commit(),
        "versions": ", ".join(
            f"{name} {metadata.version(name)}"
            for name in ("torch", "lightning", "transformers", "torchmetrics", "numpy")
        ),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The source tree's commit, marked if it was changed; `unknown` outside a checkout."""
    source = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=source,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return found.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _figures(
    trained: Unit,
    control: Unit,
    sae: ThresholdSAE,
    data: ActivationDataModule,
    metric: AtomicInnerProduct,
    test: torch.Tensor,
) -> Mapping[str, Any]:
    coherence = {unit.name: per_atom_coherence(unit.dictionary, metric).numpy() for unit in (trained, control)}
    firing = (trained.encode(test) > 0).double().mean(0)
    return {
        "Per-atom coherence in the metric S, against the Welch bound": coherence_figure(
            coherence, welch_bound(sae.d_sae, sae.d_in)
        ),
        "Thresholds, and how often each latent fires on held-out vectors": thresholds_figure(
            sae.threshold.detach().numpy(), firing.numpy()
        ),
        "Spectrum of the activations' second moment": spectrum_figure(
            torch.linalg.eigvalsh(data.moments.second_moment).flip(0).numpy()
        ),
    }
