"""Memory is the excess of a gap over that of a unit that cannot remember."""

import pytest

from atomlab.evaluation.rows.conclusion import conclude, with_memory
from atomlab.report import COLUMNS, cell


def row(unit: str, train: float, test: float, train_s: float, test_s: float) -> dict:
    found = {"unit": unit, "r2_train": train, "r2": test, "r2_s_train": train_s, "r2_s": test_s}
    return found | {"l0": 49.8, "d_sae": 2304, "certified_level_4": 0.856}


# The table of README (natural text): R² train and held out, Euclidean and in the S-norm.
TEXT = [
    row("atoms", 0.883, 0.830, 0.681, 0.586),
    row("neurons", 1.0, 1.0, 1.0, 1.0),
    row("k-means + OMP", 0.866, 0.825, 0.707, 0.655),
    row("random + OMP", 0.381, 0.317, 0.532, 0.530),
    row("Gaussian TSAE on its own", 0.429, 0.326, 0.423, 0.322),
]


def test_the_gap_that_every_unit_has_is_no_memory() -> None:
    """faults.md D5: the Euclidean gap of the atoms, .053, is below that of random atoms, .064, which remember nothing; in
    the S-norm it is .095 against .002.
    """
    found = {line["unit"]: line for line in with_memory(TEXT)}
    assert found["atoms"]["memory"] == pytest.approx(0.053 - 0.064)
    assert found["atoms"]["memory_s"] == pytest.approx(0.095 - 0.002)
    assert found["k-means + OMP"]["memory"] == pytest.approx(0.041 - 0.064)
    assert (found["random + OMP"]["memory"], found["random + OMP"]["memory_s"]) == (0, 0)
    for unit in ("neurons", "Gaussian TSAE on its own"):  # exact; and measured on other vectors
        assert "memory" not in found[unit]
    column = next(column for column in COLUMNS if column.key == "memory")
    assert [cell(line, column) for line in found.values()] == ["-0.011", "–", "-0.023", "0.000", "–"]


def test_the_conclusion_says_how_much_is_memory_and_without_random_atoms_that_nobody_knows() -> None:
    said = conclude(with_memory(TEXT))
    assert "random + OMP, which cannot remember" in said
    assert "-1.1% of the variance (9.3%)" in said
    alone = conclude(with_memory(TEXT[:3]))
    assert "how much of the difference is memory is not known" in alone
    for text in (said, alone):
        assert "the difference is memory." not in text
