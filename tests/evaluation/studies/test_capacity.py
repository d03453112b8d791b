"""The critical number of atoms on grids that follow a known law."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomlab.evaluation.studies.capacity import critical_law, critical_size


@settings(deadline=None)
@given(st.floats(0.3, 0.9), st.floats(1, 5), st.floats(0.55, 0.85))
def test_a_grid_with_a_power_law_gives_it_back(exponent: float, coefficient: float, target: float) -> None:
    """R² = ½ + ¼ log(atoms / (c·vectors^b)) is linear in log(atoms), so the interpolation is exact and the law at R² =
    target has the coefficient c·e^{4(target − ½)}.
    """
    cells = [
        (vectors, atoms, 0.5 + 0.25 * math.log(atoms / (coefficient * vectors**exponent)))
        for vectors in (1000, 3000, 9000)
        for atoms in (1, 10, 100, 1000, 10_000, 10**6)
    ]
    law = critical_law(cells, target)
    assert law is not None
    assert law.points == 3
    assert law.exponent == pytest.approx(exponent)
    assert law.coefficient == pytest.approx(coefficient * math.exp(4 * (target - 0.5)))


def test_a_target_beyond_the_grid_is_unknown() -> None:
    assert critical_size({10: 0.2, 20: 0.4}, 0.5) is None
    assert critical_size({10: 0.6, 20: 0.7}, 0.5) is None
    assert critical_size({20: 0.5, 10: 0.2}, 0.5) == pytest.approx(20)
    assert critical_law([(1, 10, 0.2), (1, 20, 0.6), (2, 10, 0.2), (2, 20, 0.3)], 0.5) is None
