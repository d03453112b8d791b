"""The three figures on the first screen of a report, small enough to stand side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SIZE = (4.8, 3.8)
_BELOW: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "fontsize": "x-small", "ncols": 3}
_NORMS = (("r2", "R²"), ("r2_s", "R², S-norm"))
_LOWEST = -0.25  # points below are drawn at the lower edge


def sparsity_figure(points: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws R² on held-out vectors against L0, in both norms.

    Args:
        points: of each row `unit`, `source` (its dictionary), `coder`, `l0`, `r2`, `r2_s`, and `r2_interval`, `r2_s_interval`
            with the ends `low` and `high`, or None. Colours are dictionaries, and markers are coders.

    Returns:
        The figure. R² below −0.25 is drawn there, with an arrow downwards.
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    for axes, (key, name) in zip(figure.subplots(1, 2), _NORMS, strict=True):
        for point, style in _styled(points):
            value, ends = point[key], point[f"{key}_interval"]
            if value < _LOWEST:
                axes.annotate("↓", (point["l0"], _LOWEST), color=style["color"], ha="center")
                continue
            spread = [[value - ends["low"]], [ends["high"] - value]] if ends else None
            axes.errorbar(point["l0"], value, yerr=spread, linestyle="", capsize=2, markersize=5, **style)
        sizes = [point["l0"] for point in points if point["l0"] > 0] or [1.0]
        axes.set(xlabel="L0", title=name, xscale="log", xlim=(min(sizes) / 3.2, max(sizes) * 3.2))
        axes.set_ylim(top=1.02)
        _plain_ticks(axes)
    _legend(figure, points)
    return figure


def memory_figure(points: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws R² on held-out vectors against R² on training vectors, in both norms, with the line on which they are equal.

    Args:
        points: as in `sparsity_figure`, with `r2_train` and `r2_s_train`.

    Returns:
        The figure. R² below −0.25 is left out, and so is the row then.
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    for axes, (key, name) in zip(figure.subplots(1, 2), _NORMS, strict=True):
        inside = [(p, style) for p, style in _styled(points) if min(p[key], p[f"{key}_train"]) >= _LOWEST]
        for point, style in inside:
            axes.plot(point[f"{key}_train"], point[key], linestyle="", markersize=5, **style)
        low = min([0.0, *(min(p[key], p[f"{key}_train"]) for p, _ in inside)])
        axes.plot([low, 1], [low, 1], color="black", linewidth=0.8)
        axes.set(xlabel="training vectors", ylabel="held out" if key == "r2" else "", title=name, aspect="equal")
    _legend(figure, points)
    return figure


def binned_rates_figure(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draws the share of certified codes against their size K, in bins.

    Args:
        curves: of each row by name its bins: `low` and `high`, the sizes in the bin; `samples`; `rate`; and `interval`, its
            ends.

    Returns:
        The figure; the number of vectors of each bin of the first row stands above its point.
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    for number, ((name, bins), colour) in enumerate(zip(curves.items(), COLOURS, strict=False)):
        places = [(one["low"] * one["high"]) ** 0.5 for one in bins]
        rates = [one["rate"] for one in bins]
        spread = [
            [max(0.0, one["rate"] - one["interval"][0]) for one in bins],
            [max(0.0, one["interval"][1] - one["rate"]) for one in bins],
        ]
        axes.errorbar(places, rates, yerr=spread, marker="o", markersize=4, capsize=2, color=colour, label=name)
        for place, one in zip(places, bins, strict=True) if number == 0 else ():
            axes.annotate(f"n={one['samples']}", (place, one["interval"][1]), xytext=(0, 4), textcoords="offset points",
                          ha="center", fontsize="xx-small", color=colour)  # fmt: skip
    axes.set(xlabel="K, atoms in the code", ylabel="share certified", ylim=(-0.03, 1.09), xscale="log")
    _plain_ticks(axes)
    figure.legend(**_BELOW | {"ncols": 2})
    return figure


def _styled(points: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], dict[str, str]]]:
    """Each point with the colour of its dictionary and the marker of its coder."""
    sources, coders = (list(dict.fromkeys(point[key] for point in points)) for key in ("source", "coder"))
    return [
        (
            point,
            {
                "color": COLOURS[sources.index(point["source"]) % len(COLOURS)],
                "marker": _MARKERS[coders.index(point["coder"]) % len(_MARKERS)],
            },
        )
        for point in points
    ]


def _legend(figure: Figure, points: Sequence[Mapping[str, Any]]) -> None:
    """One entry for each dictionary and one for each coder."""
    axes = figure.axes[0]
    styles = _styled(points)
    for source in dict.fromkeys(point["source"] for point in points):
        colour = next(style["color"] for point, style in styles if point["source"] == source)
        axes.plot([], [], linewidth=4, color=colour, label=source)
    for coder in dict.fromkeys(point["coder"] for point in points):
        marker = next(style["marker"] for point, style in styles if point["coder"] == coder)
        axes.plot([], [], linestyle="", marker=marker, color="#666666", label=coder)
    figure.legend(**_BELOW)


def _plain_ticks(axes: Axes) -> None:
    """Marks 1, 2, 5, 10, 20, … at a logarithmic axis, and writes 20 rather than 2 · 10¹."""
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
