"""Critical capacity (theory.md 10): how many atoms reach an R², and how that number grows with the number of vectors."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atomlab.evaluation.scaling.interval import Estimate, NotEnoughCells, estimate, spread

_NEEDED = 3  # numbers of vectors: a line through two of them has no residual, so nothing says how sure it is


class PowerLaw(NamedTuple):
    """The law |D|* = coefficient · |M|^exponent of the critical number of atoms |D|* over the number of vectors |M|.

    It is the least-squares line through the logarithms of some measured points.

    Attributes:
        coefficient: factor of the law, with its 95% interval.
        exponent: power of |M|, with its 95% interval.
        points: the points (|M|, |D|*) that the line was fitted to.
    """

    coefficient: Estimate
    exponent: Estimate
    points: tuple[tuple[float, float], ...]


def critical_size(r2: Mapping[int, float], target: float) -> float | None:
    """Returns the number of atoms at which R² first reaches a target, interpolated linearly in log(atoms).

    Args:
        r2: R² by number of atoms.
        target: the R² to reach.

    Returns:
        The number of atoms; None if the smallest number is above the target already, or none reaches it.

    >>> round(critical_size({100: 0.5, 400: 0.9}, 0.7), 9)
    200.0
    """
    sizes = sorted(r2)
    for low, high in itertools.pairwise(sizes):
        if r2[low] < target <= r2[high]:
            share = (target - r2[low]) / (r2[high] - r2[low])
            return low * (high / low) ** share
    return None


def critical_law(
    cells: Sequence[tuple[int, int, float]], target: float, *, draws: int = 1000, seed: int = 0
) -> PowerLaw | NotEnoughCells:
    """Fits the law of the critical number of atoms over numbers of vectors.

    The interval is that of a bootstrap: in each draw the runs of a cell (its seeds) are drawn again with replacement, the
    residuals of the line are drawn again and added, and the line is fitted anew. It says how far the law is known where it
    was measured, not whether it goes on beyond.

    Args:
        cells: number of vectors, number of atoms, and in-sample R², of each run; several of the same cell are averaged.
        target: the R² to reach.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The law, or why there is none: the critical number is needed for three numbers of vectors.

    Cost: `draws` interpolations of each number of vectors where a cell has several runs.
    """
    runs: dict[int, dict[int, list[float]]] = {}
    for vectors, size, r2 in cells:
        runs.setdefault(vectors, {}).setdefault(size, []).append(r2)
    found = _critical(runs, target, None)
    if len(found) < _NEEDED:
        return NotEnoughCells(
            f"not enough cells: R² {target:g} is crossed between two widths for {len(found)} of {len(runs)} numbers of "
            f"training vectors, and {_NEEDED} are needed"
        )
    x, y = np.log(list(found)), np.log(list(found.values()))
    exponent, offset = _line(x, y)
    generator = np.random.default_rng(seed)
    several = any(len(values) > 1 for curve in runs.values() for values in curve.values())
    drawn = [_drawn(runs, target, several, (x, y), generator) for _ in range(draws)]
    slopes, offsets = np.array(drawn).T
    freedom = len(found) - 2
    return PowerLaw(
        Estimate(*map(math.exp, estimate(offset, offsets, freedom))),
        estimate(exponent, slopes, freedom),
        tuple(found.items()),
    )


def _critical(
    runs: Mapping[int, Mapping[int, Sequence[float]]], target: float, generator: np.random.Generator | None
) -> dict[int, float]:
    """The critical number of atoms of each number of vectors, of the mean of all runs or of runs drawn again."""
    found = {}
    for vectors, curve in sorted(runs.items()):
        means = {
            size: float(np.mean(values if generator is None else generator.choice(values, len(values))))
            for size, values in curve.items()
        }
        if (size := critical_size(means, target)) is not None:
            found[vectors] = size
    return found


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and offset of the least-squares line."""
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    return slope, float(y.mean() - slope * x.mean())


def _drawn(
    runs: Mapping[int, Mapping[int, Sequence[float]]],
    target: float,
    several: bool,
    points: tuple[NDArray[np.float64], NDArray[np.float64]],
    generator: np.random.Generator,
) -> tuple[float, float]:
    """The line of one draw; NaN where the drawn runs cross the target for too few numbers of vectors."""
    x, y = points
    if several:
        found = _critical(runs, target, generator)
        if len(found) < _NEEDED:
            return math.nan, math.nan
        x, y = np.log(list(found)), np.log(list(found.values()))
    slope, offset = _line(x, y)
    line = slope * x + offset
    residuals = spread(y - line, len(x) - 2)
    return _line(x, line + generator.choice(residuals, len(x)))
