"""Arrays to figures; colours that colour-blind readers tell apart (Okabe–Ito), no global matplotlib state."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def coherence_figure(per_atom: Mapping[str, NDArray], welch: float) -> Figure:
    """Distribution of μ_i = max_j |cos_S(d_i, d_j)| for each set of units, with the Welch bound below which no μ can lie."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for (name, values), colour in zip(per_atom.items(), _COLOURS, strict=False):
        axes.hist(values, bins=np.linspace(0, 1, 81).tolist(), histtype="step", color=colour, label=name, linewidth=1.6)
    axes.axvline(welch, color="black", linestyle=":", label=f"Welch bound {welch:.3f}")
    axes.set(xlabel="per-atom coherence", ylabel="atoms", xlim=(0, 1))
    axes.legend(frameon=False)
    return figure


def thresholds_figure(thresholds: NDArray, firing_rates: NDArray) -> Figure:
    """Histograms of thresholds θ and of how often latents fire (those that never do are counted in the title)."""
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.hist(thresholds, bins=60, color=_COLOURS[0])
    left.set(xlabel="threshold θ", ylabel="latents")
    alive = firing_rates[firing_rates > 0]
    right.hist(np.log10(alive) if len(alive) else [], bins=60, color=_COLOURS[1])
    right.set(xlabel="log10 firing frequency", ylabel="latents", title=f"{len(firing_rates) - len(alive)} never fire")
    return figure


def spectrum_figure(eigenvalues: NDArray) -> Figure:
    """Eigenvalues of the second moment, largest first, on a logarithmic axis."""
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(np.arange(1, len(eigenvalues) + 1), np.clip(eigenvalues, 1e-12, None), color=_COLOURS[0])
    axes.set(xlabel="rank", ylabel="eigenvalue")
    return figure
