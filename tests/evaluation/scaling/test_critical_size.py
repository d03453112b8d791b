"""The critical number of atoms on grids that follow a known law."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab.evaluation.scaling.critical_size import PowerLaw, critical_law, critical_size
from atomlab.evaluation.scaling.interval import NotEnoughCells

WIDTHS = (1, 10, 100, 1000, 10_000, 10**6)


def r2(vectors: int, atoms: int, coefficient: float, exponent: float) -> float:
    """½ + ¼ log(atoms / (c·vectors^b)): linear in log(atoms), so the interpolation is exact and the law at R² = target has
    the coefficient c·e^{4(target − ½)}.
    """
    return 0.5 + 0.25 * math.log(atoms / (coefficient * vectors**exponent))


@settings(deadline=None)
@given(st.floats(0.3, 0.9), st.floats(1, 5), st.floats(0.55, 0.85))
def test_a_grid_with_a_power_law_gives_it_back(exponent: float, coefficient: float, target: float) -> None:
    cells = [(v, n, r2(v, n, coefficient, exponent)) for v in (1000, 3000, 9000) for n in WIDTHS]
    law = critical_law(cells, target, draws=20)
    assert isinstance(law, PowerLaw)
    assert [vectors for vectors, _ in law.points] == [1000, 3000, 9000]
    wanted = coefficient * math.exp(4 * (target - 0.5))
    for found, true in ((law.exponent, exponent), (law.coefficient, wanted)):
        assert tuple(found) == (pytest.approx(true), pytest.approx(true), pytest.approx(true))


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_interval_holds_the_planted_law_under_noise(seeds: int) -> None:
    """Noise of each cell; 95% intervals that hold the truth in at least 16 of 20 grids (fewer: 0.3% of the time)."""
    inside = []
    for number in range(20):
        noise = np.random.default_rng(number)
        cells = [
            (vectors, atoms, r2(vectors, atoms, 0.7, 0.9) + 0.02 * noise.standard_normal())
            for vectors in (1000, 2000, 4000, 8000, 16_000)
            for atoms in (10, 100, 1000, 10_000, 200_000)
            for _ in range(seeds)
        ]
        law = critical_law(cells, 0.7, draws=60)
        assert isinstance(law, PowerLaw)
        assert law.exponent.low < law.exponent.value < law.exponent.high
        inside.append(law.exponent.low <= 0.9 <= law.exponent.high)
    assert sum(inside) >= 16


def test_a_target_beyond_the_grid_is_unknown() -> None:
    assert critical_size({10: 0.2, 20: 0.4}, 0.5) is None
    assert critical_size({10: 0.6, 20: 0.7}, 0.5) is None
    assert critical_size({20: 0.5, 10: 0.2}, 0.5) == pytest.approx(20)


@pytest.mark.parametrize(
    "cells",
    [
        [],
        [(1, 10, 0.2), (1, 20, 0.6), (2, 10, 0.2), (2, 20, 0.6)],  # two numbers of vectors
        [(vectors, 10, 0.5) for vectors in (1, 2, 3, 4)],  # equal widths
        [(1, 10, 0.2), (1, 20, 0.6), (2, 10, 0.2), (2, 20, 0.3), (3, 10, 0.2), (3, 20, 0.4)],  # reached once
    ],
)
def test_too_few_cells_have_no_law(cells: list[tuple[int, int, float]]) -> None:
    found = critical_law(cells, 0.5)
    assert isinstance(found, NotEnoughCells)
    assert found.sentence.startswith("not enough cells: R² 0.5 is crossed between two widths for ")
