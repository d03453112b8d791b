"""How many atoms an in-sample R² needs, against the number of vectors (theory.md 10)."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class PowerLaw(NamedTuple):
    """|D|* = coefficient · |M|^exponent, a least-squares line through the logarithms of `points` (|M|, |D|*)."""

    coefficient: float
    exponent: float
    points: int


def critical_size(r2: Mapping[int, float], target: float) -> float | None:
    """The number of atoms at which R² first reaches the target, between measured numbers linear in log(atoms); None if
    the target is passed by the smallest number already, or by none.

    >>> round(critical_size({100: 0.5, 400: 0.9}, 0.7), 9)
    200.0
    """
    sizes = sorted(r2)
    for low, high in itertools.pairwise(sizes):
        if r2[low] < target <= r2[high]:
            share = (target - r2[low]) / (r2[high] - r2[low])
            return low * (high / low) ** share
    return None


def critical_law(cells: Sequence[tuple[int, int, float]], target: float) -> PowerLaw | None:
    """The law of the critical size over numbers of vectors; None unless it is known for two of them.

    Args:
        cells: number of vectors, number of atoms, in-sample R².
        target: of R².
    """
    curves: dict[int, dict[int, float]] = {}
    for vectors, atoms, r2 in cells:
        curves.setdefault(vectors, {})[atoms] = r2
    found = {vectors: size for vectors, curve in curves.items() if (size := critical_size(curve, target)) is not None}
    if len(found) < 2:
        return None
    exponent, offset = np.polyfit(np.log(list(found)), np.log(list(found.values())), 1)
    return PowerLaw(math.exp(offset), float(exponent), len(found))
