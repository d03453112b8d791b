"""A scaling law on cells that follow a planted one."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from atomlab.evaluation.scaling.interval import NotEnoughCells, estimate
from atomlab.evaluation.scaling.scaling_law import Cell, Prediction, ScalingLaw, held_back, scaling_law

FLOOR, EXPONENTS = 0.15, {"atoms": 0.4, "vectors": 0.25, "l0": 0.3}
WIDTHS, VECTORS, SIZES = (500, 1000, 2000, 4000), (10_000, 30_000, 90_000), (10, 30)


def planted(atoms: float, vectors: float, l0: float) -> float:
    return FLOOR + 40 * atoms**-0.4 * vectors**-0.25 * l0**-0.3


def grid(noise: float = 0.0, seed: int = 0, law: Callable[..., float] = planted) -> list[Cell]:
    drawn = np.random.default_rng(seed)
    return [
        Cell(*factors, law(*factors) * float(np.exp(noise * drawn.standard_normal())))
        for factors in itertools.product(WIDTHS, VECTORS, SIZES)
    ]


def test_exact_cells_give_the_law_back_and_it_predicts_the_held_back_cell() -> None:
    found = held_back(grid(), draws=5)
    assert isinstance(found, Prediction)
    assert (found.cell.atoms, found.cell.vectors, found.cell.l0) == (4000, 90_000, 30)
    assert found.loss.value == pytest.approx(found.cell.loss, rel=1e-5)
    assert found.law.cells == len(grid()) - 1
    assert found.law.floor.value == pytest.approx(FLOOR, rel=1e-3)
    for name, exponent in EXPONENTS.items():
        assert found.law.exponents[name].value == pytest.approx(exponent, rel=1e-3)
    for cell in grid():
        assert found.law.loss(cell) == pytest.approx(cell.loss, rel=1e-4)


def test_the_intervals_hold_the_planted_law_under_noise() -> None:
    """2% of noise on each loss: each 95% interval holds the truth in at least 6 of 8 grids (fewer: 0.6% of the time)."""
    inside = []
    for seed in range(8):
        found = held_back(grid(0.02, seed), draws=50)
        assert isinstance(found, Prediction)
        law = found.law
        truth = {**EXPONENTS, "floor": FLOOR}
        estimates = {**law.exponents, "floor": law.floor}
        inside.append([estimates[key].low <= truth[key] <= estimates[key].high for key in truth] + [found.inside])
        assert 0.01 < law.residual < 0.04
    assert (np.sum(inside, 0) >= 6).all()


def test_a_factor_that_does_not_vary_or_goes_with_another_has_no_exponent() -> None:
    cells = [Cell(n, 5000.0, 20.0, planted(n, 5000, 20)) for n in (100, 200, 400, 800, 1600)]
    law = scaling_law(cells, draws=5)
    assert isinstance(law, ScalingLaw)
    assert set(law.exponents) == {"atoms"}
    together = [cell._replace(vectors=10 * cell.atoms, l0=20 + 0.1 * i) for i, cell in enumerate(cells)]
    law = scaling_law(together, draws=5)
    assert isinstance(law, ScalingLaw)
    assert set(law.exponents) == {"atoms"}


@pytest.mark.parametrize(
    "cells",
    [
        [],
        [Cell(100, 1000, 10, 0.5)],
        [Cell(100, 1000, 10, 0.5), Cell(200, 1000, 10, 0.4)],
        [Cell(100, 1000, 10, 0.5 + 0.01 * i) for i in range(9)],  # equal widths
    ],
)
def test_too_few_cells_have_no_law(cells: list[Cell]) -> None:
    for found in (scaling_law(cells), held_back(cells)):
        assert isinstance(found, NotEnoughCells)
        assert found.sentence.startswith("not enough cells: there are ")


def test_an_interval_of_many_degrees_of_freedom_is_that_of_percentiles() -> None:
    draws = np.random.default_rng(0).standard_normal(20_000)
    found = estimate(0.0, draws, 10**6)
    assert (found.low, found.high) == (pytest.approx(-1.96, abs=0.05), pytest.approx(1.96, abs=0.05))
    assert estimate(0.0, draws, 1).high == draws.max()
    assert estimate(9.0, draws, 10).high == 9.0
