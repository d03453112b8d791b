"""The figures of the table with controls."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from atomlab.activations.datamodule import ActivationDataModule
from atomlab.evaluation.controls import CONTROL_SOURCES
from atomlab.evaluation.equal_l0 import Case
from atomlab.evaluation.studies.representation_shift import histograms, metrics_of, observed_and_null
from atomlab.report import (
    Row,
    angles_figure,
    babel_figure,
    coherence_figure,
    isometry_figure,
    thresholds_figure,
)
from atomlab.sae import SAE
from atomlab.theory import (
    AtomicInnerProduct,
    CoherenceStatistics,
    coherence_statistics,
    firing_counts,
    welch_bound,
)

_BABEL = 256
_LINES = 8  # what a plot bears, and has colours for
_BORROWED = ("neurons", "data, nearest", "Gaussian TSAE on its own")  # no atoms, or those of another row


def table_figures(
    rows: list[Row], sae: SAE, metric: AtomicInnerProduct, cases: list[Case]
) -> dict[str, Callable[[], Any]]:
    """Prepares the figures of the table.

    They show coherence and Babel curves, isometry intervals, thresholds and firing frequencies.

    Args:
        rows: the rows of the table.
        sae: the trained TSAE of raw activations.
        metric: S.
        cases: the units that were measured.

    Returns:
        By caption, a function that draws the figure.
    """
    welch = welch_bound(sae.d_sae, sae.d_in)

    @cache
    def statistics() -> dict[str, CoherenceStatistics]:
        shown = _with_atoms(cases)
        return {case.unit.source: coherence_statistics(case.unit.dictionary, metric, k=_BABEL) for case in shown}

    def coherence() -> Any:
        return coherence_figure({name: found.per_atom.numpy() for name, found in statistics().items()}, welch)

    def babel() -> Any:
        return babel_figure({name: found.babel.numpy() for name, found in statistics().items()}, welch)

    def thresholds() -> Any:
        firing = firing_counts(cases[0].unit.encode(cases[0].test.vectors)).double() / len(cases[0].test)
        return thresholds_figure(sae.threshold.detach().numpy(), firing.numpy())

    figures: dict[str, Callable[[], Any]] = {
        "Per-atom coherence in the metric S, against the Welch bound": coherence,
        "Babel function in the metric S, against the Welch bound": babel,
        "Thresholds, and how often each latent fires on held-out vectors": thresholds,
    }
    isometry = {row["unit"]: row["isometry_curve"] for row in rows if "isometry_curve" in row}
    shown = {case.unit.source: isometry[case.unit.name] for case in _with_atoms(cases) if case.unit.name in isometry}
    if shown:
        curves = {name: (found["lower"], found["upper"]) for name, found in shown.items()}
        figures["Interval of the restricted isometry constant against K"] = partial(isometry_figure, curves)
    return figures


def _with_atoms(cases: list[Case]) -> list[Case]:
    """Returns a case for each dictionary of atoms, at most as many as a plot can show: first the trained ones, then controls."""
    of_dictionaries: dict[str, Case] = {}
    for case in cases:
        if case.unit.name not in _BORROWED:
            of_dictionaries.setdefault(case.unit.source, case)
    first, *others = of_dictionaries.values()
    return [first, *sorted(others, key=lambda case: case.unit.source not in CONTROL_SOURCES)][:_LINES]


def shift_figures(
    data: ActivationDataModule, shrinkage: float, seed: int, missing: list[str], samples: int = 2048
) -> dict[str, Callable[[], Any]]:
    """Prepares the figure of the angles between held-out vectors in every metric but the causal one, with their null.

    Args:
        data: the activations, set up.
        shrinkage: λ of S.
        seed: of the null.
        missing: gets a sentence for each geometry that these activations do not have.
        samples: number of held-out vectors, at most.

    Returns:
        By its caption, a function that measures the angles and draws the figure.
    """
    x = data.sample("test", samples)

    def angles() -> Any:
        places = metrics_of(data, x, shrinkage, None, missing)
        return angles_figure(histograms(*observed_and_null(x, places, seed)))

    return {f"Representation shift: angles between {len(x):,} held-out vectors, null dotted": angles}
