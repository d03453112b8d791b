"""Draws arrays as matplotlib figures.

The colours are those of Okabe and Ito, which colour-blind readers can tell apart. No function changes matplotlib's global
state.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from atomlab.report.overview_figures import COLOURS

_CHARACTERS = 12  # of a small font, that an inch has room for
_MARK = 8  # characters that the line before a name takes


def legend_below(figure: Figure) -> None:
    """Gives a figure a legend that covers no data, in as many columns as its width has room for, up to four.

    Args:
        figure: whose lines have their names already. It grows by the lines of the legend beyond the second.
    """
    names = [name for axes in figure.axes for name in axes.get_legend_handles_labels()[1]]
    room = int(figure.get_figwidth() * _CHARACTERS)
    columns = min(4, max(1, room // (max(map(len, names), default=0) + _MARK)))
    figure.set_figheight(figure.get_figheight() + 0.17 * max(0, -(-len(names) // columns) - 2))
    figure.legend(loc="outside lower center", frameon=False, fontsize="small", ncols=columns)


def coherence_figure(per_atom: Mapping[str, NDArray], welch: float) -> Figure:
    """Draws histograms of the per-atom coherence μ_i = max_{j ≠ i} |cos_S(d_i, d_j)|.

    Args:
        per_atom: μ_i, (d_sae,), of each set of units by name.
        welch: the Welch bound; no dictionary of this size has a smaller mutual coherence max_i μ_i.

    Returns:
        The figure; of more than eight sets the first eight are drawn.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for (name, values), colour in zip(per_atom.items(), COLOURS, strict=False):
        axes.hist(values, bins=np.linspace(0, 1, 81).tolist(), histtype="step", color=colour, label=name, linewidth=1.6)
    axes.axvline(welch, color="black", linestyle=":", label=f"Welch bound {welch:.3f}")
    axes.set(xlabel="per-atom coherence", ylabel="atoms", xlim=(0, 1))
    legend_below(figure)
    return figure


def babel_figure(curves: Mapping[str, ArrayLike], welch: float) -> Figure:
    """Draws the Babel function μ₁(k) against k on logarithmic axes.

    Args:
        curves: μ₁(1), μ₁(2), ..., (k,), of each set of units by name.
        welch: the Welch bound; no dictionary of this size has a smaller μ₁(1).

    Returns:
        The figure; of more than eight sets the first eight are drawn.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for (name, values), colour in zip(curves.items(), COLOURS, strict=False):
        k = np.arange(1, len(np.asarray(values)) + 1)
        axes.loglog(k, values, color=colour, label=name, linewidth=1.6)
    axes.axhline(1, color="black", linewidth=0.8, label="limit of level 2a at k = 2K − 1")
    axes.plot([1], [welch], "k^", label=f"Welch bound {welch:.3f}")
    axes.set(xlabel="k", ylabel="Babel function μ₁(k)")
    legend_below(figure)
    return figure


def isometry_figure(curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Figure:
    """Draws the interval that contains the restricted isometry constant δ_K, against K.

    Lines mark the values 1/√2 and 1. If δ_2K is below them, ℓ1 minimisation recovers codes of K atoms exactly, and such
    codes are the unique sparsest ones.

    Args:
        curves: lower and upper ends of the interval, (K + 1,) each and by number of atoms from 0, of each set of units by
            name.

    Returns:
        The figure; of more than eight sets the first eight are drawn.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for (name, (lower, upper)), colour in zip(curves.items(), COLOURS, strict=False):
        lower, upper = np.asarray(lower)[1:], np.asarray(upper)[1:]
        axes.fill_between(np.arange(1, len(lower) + 1), lower, upper, color=colour, alpha=0.25, label=name, step="mid")
        axes.plot(np.arange(1, len(lower) + 1), lower, color=colour, linewidth=1)
    for limit, text in ((1, "1: unique sparsest, at 2K"), (0.5**0.5, "1/√2: ℓ1 exact, at 2K")):
        axes.axhline(limit, color="black", linewidth=0.8, linestyle=":" if limit < 1 else "-", label=text)
    axes.set(xlabel="K", ylabel="δ_K", xscale="log", ylim=(0, 2.5))
    legend_below(figure)
    return figure


def thresholds_figure(thresholds: NDArray, firing_rates: NDArray) -> Figure:
    """Draws histograms of the thresholds θ and of the firing rates.

    Args:
        thresholds: (d_sae,).
        firing_rates: (d_sae,), share of the vectors on which each latent fires. Latents that never fire have no place on
            the logarithmic axis; the title says how many they are.

    Returns:
        The figure, with the thresholds on the left and the firing rates on the right.
    """
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.hist(thresholds, bins=60, color=COLOURS[0])
    left.set(xlabel="threshold θ", ylabel="latents")
    alive = firing_rates[firing_rates > 0]
    right.hist(np.log10(alive) if len(alive) else [], bins=60, color=COLOURS[1])
    right.set(xlabel="log10 firing frequency", ylabel="latents", title=f"{len(firing_rates) - len(alive)} never fire")
    return figure


def spectrum_figure(eigenvalues: NDArray) -> Figure:
    """Draws the eigenvalues of the second moment on a logarithmic axis.

    Args:
        eigenvalues: (d_in,), largest first; values below 1e-12 are drawn there.

    Returns:
        The figure, with the eigenvalues against their rank from 1.
    """
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(np.arange(1, len(eigenvalues) + 1), np.clip(eigenvalues, 1e-12, None), color=COLOURS[0])
    axes.set(xlabel="rank", ylabel="eigenvalue")
    return figure


def layers_figure(layers: Sequence[int], series: Mapping[str, ArrayLike], ylabel: str) -> Figure:
    """Draws one number for each layer.

    Args:
        layers: the layers, counted from 0.
        series: the numbers, one a layer, by name. A name that contains "null" is drawn as crosses on a dotted line.
        ylabel: what the numbers are.

    Returns:
        The figure, with one line for each name; of more than 24 names the first 24 are drawn.
    """
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    for (name, values), colour in zip(series.items(), COLOURS * 3, strict=False):
        axes.plot(layers, values, "o-" if "null" not in name else "x:", color=colour, label=name, markersize=4)
    axes.set(xlabel="layer, from 0", ylabel=ylabel)
    legend_below(figure)
    return figure


def series_figure(series: Mapping[str, Sequence[tuple[float, float]]], xlabel: str, ylabel: str) -> Figure:
    """Draws one number against an option of a sweep, on a logarithmic axis where the option is positive.

    Args:
        series: (option, number) of each run, by what else was varied. Runs of one option, such as seeds, are drawn at one place.
        xlabel: the option.
        ylabel: what the number is.

    Returns:
        The figure, with one line for each name through the means; of more than 24 names the first 24 are drawn.
    """
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    for (name, points), colour in zip(series.items(), COLOURS * 3, strict=False):
        options = sorted({option for option, _ in points})
        means = [float(np.mean([number for other, number in points if other == option])) for option in options]
        axes.plot(options, means, "--" if name.endswith("training") else "-", color=colour, label=name, linewidth=1.6)
        axes.plot(*zip(*points, strict=True), "o", color=colour, markersize=4)
    if all(option > 0 for points in series.values() for option, _ in points):
        axes.set_xscale("log", base=2)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    legend_below(figure)
    return figure


def angles_figure(histograms: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Figure:
    """Draws histograms of angles on a logarithmic axis, the observed ones as a line and those of the null dotted.

    Args:
        histograms: counts over equal bins of [0°, 180°], observed and of the null, by the name of the geometry.

    Returns:
        The figure, with the share of the pairs in each bin; of more than eight geometries the first eight are drawn.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for (name, pair), colour in zip(histograms.items(), COLOURS, strict=False):
        for counts, style, label in zip(map(np.asarray, pair), ("-", ":"), (name, None), strict=True):
            edges = np.linspace(0, 180, len(counts) + 1)
            axes.stairs(counts / counts.sum(), edges, color=colour, linestyle=style, label=label)
    axes.axvline(90, color="black", linewidth=0.6)
    axes.set(xlabel="angle, degrees", ylabel="share of pairs a bin", yscale="log", ylim=(1e-6, None))
    legend_below(figure)
    return figure


def capacity_figure(vectors: Sequence[int], atoms: Sequence[int], grids: Mapping[str, NDArray]) -> Figure:
    """Draws heat maps of R² over the number of training vectors (across) and of atoms (upwards).

    Args:
        vectors: numbers of training vectors.
        atoms: numbers of atoms.
        grids: R², (len(atoms), len(vectors)), one heat map for each name; NaN where it was not measured.

    Returns:
        The figure, with two heat maps a line. Colours run from R² = 0 to 1, and each measured cell says its number.
    """
    lines = -(-len(grids) // 2)
    figure = Figure(figsize=(8, 3 * lines), layout="constrained")
    places = figure.subplots(lines, 2, squeeze=False).ravel()
    for axes, (name, grid) in zip(places, grids.items(), strict=False):
        axes.imshow(grid, vmin=0, vmax=1, origin="lower", cmap="viridis", aspect="auto")
        axes.set(title=name, xlabel="training vectors", ylabel="atoms")
        axes.set_xticks(range(len(vectors)), [f"{count:,}" for count in vectors])
        axes.set_yticks(range(len(atoms)), [f"{count:,}" for count in atoms])
        for i, j in np.argwhere(np.isfinite(grid)):
            value = grid[i, j]
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black")
    figure.colorbar(places[0].images[0], ax=figure.axes, label="R²")
    return figure
