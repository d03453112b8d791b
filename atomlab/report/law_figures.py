"""Draws what fitted laws say beside what was measured."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from atomlab.report.figures import COLOURS, legend_below


def critical_figure(
    points: Mapping[str, Sequence[tuple[float, float]]], laws: Mapping[str, tuple[float, float]]
) -> Figure:
    """Draws how many atoms each number of training vectors needs, on logarithmic axes, with fitted power laws.

    Args:
        points: (vectors, atoms) by name, such as that of an R² target.
        laws: coefficient and exponent of atoms = coefficient · vectors^exponent, for some of the names.

    Returns:
        The figure. The dotted line is one atom a vector. Of more than eight names the first eight are drawn.
    """
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    vectors = sorted({count for found in points.values() for count, _ in found})
    across = np.geomspace(vectors[0], vectors[-1], 50) if vectors else np.array([])
    for (name, found), colour in zip(points.items(), COLOURS, strict=False):
        axes.loglog(*zip(*found, strict=True), "o", color=colour, label=name)
        if name in laws:
            coefficient, exponent = laws[name]
            axes.loglog(across, coefficient * across**exponent, "-", color=colour, linewidth=1.2)
    axes.loglog(across, across, ":", color="black", linewidth=1, label="one atom a vector")
    axes.set(xlabel="training vectors", ylabel="atoms needed")
    legend_below(figure)
    return figure


def law_figure(fitted: ArrayLike, measured: ArrayLike, held_back: tuple[float, float, float, float]) -> Figure:
    """Draws what a scaling law gives for each cell against what was measured, on logarithmic axes.

    Args:
        fitted: loss that the law gives for the cells it was fitted to, (cells,).
        measured: their measured loss, (cells,).
        held_back: the cell that was held back: predicted loss, lower and upper end of its interval, measured loss.

    Returns:
        The figure; on the diagonal the law and the measurement agree.
    """
    figure = Figure(figsize=(5.4, 4.2), layout="constrained")
    axes = figure.subplots()
    value, low, high, own = held_back
    axes.loglog(fitted, measured, "o", color=COLOURS[0], label="fitted cells")
    axes.errorbar(
        [value], [own], xerr=[[value - low], [high - value]], fmt="s", color=COLOURS[1], capsize=3, label="held back"
    )
    every = np.concatenate([np.ravel(fitted), np.ravel(measured), [low, high, own]])
    ends = [every.min() * 0.98, every.max() * 1.02]
    axes.loglog(ends, ends, ":", color="black", linewidth=1)
    axes.set(xlabel="loss by the law", ylabel="measured loss")
    axes.legend(frameon=False)
    return figure
