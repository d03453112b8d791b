"""What a table lets a reader conclude: memory is the excess of a gap, and a verdict needs an interval."""

import pytest
import torch

from atomlab.evaluation.rows.conclusion import conclude, with_memory
from atomlab.evaluation.rows.differences import with_differences
from atomlab.report import COLUMNS, Row, cell


def row(unit: str, train: float, test: float, train_s: float, test_s: float) -> dict:
    found = {"unit": unit, "r2_train": train, "r2": test, "r2_s_train": train_s, "r2_s": test_s}
    return found | {"l0": 49.8, "d_sae": 2304, "certified_level_4": 0.856, "samples_documents": 9}


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


GROUPS = 50


def measured(unit: str, coder: str, r2: float, noise: float = 0.0, *, shared: float = 0.0) -> tuple[Row, dict]:
    """A row with replicates that scatter by `noise` of their own, and by `shared` that all rows have in common."""
    generator = torch.Generator().manual_seed(sum(map(ord, unit)))
    common = shared * torch.randn(4000, generator=torch.Generator().manual_seed(0))
    replicates = {
        norm: r2 + common + noise * torch.randn(4000, generator=generator, dtype=torch.float64)
        for norm in ("r2", "r2_s")
    }
    made = row(unit, 0.9, r2, 0.9, r2) | {"coder": coder, "signed": coder == "OMP"}
    return made | {"r2_interval": {"low": r2 - 0.01, "high": r2 + 0.01}}, replicates


def table(*rows: tuple[Row, dict]) -> dict[str, Row]:
    return {found["unit"]: found for found in with_differences(rows, GROUPS)}


def test_controls_are_compared_like_with_like() -> None:
    found = table(
        measured("atoms", "one-step", 0.5),
        measured("neurons", "identity", 1.0),
        measured("atoms + pursuit", "pursuit", 0.6),
        measured("atoms + OMP", "OMP", 0.7),
        measured("data, nearest", "nearest", 0.1),
        measured("data + one-step", "one-step", 0.2),
        measured("data + pursuit", "pursuit", 0.3),
        measured("data + refit", "refit", 0.25),
        measured("data + OMP", "OMP", 0.65),
        measured("Gaussian TSAE on its own", "one-step", 0.9),
    )
    against = {name: line.get("against") for name, line in found.items()}
    assert against == {
        "atoms": None,
        "neurons": None,
        "atoms + pursuit": None,
        "atoms + OMP": None,
        "data, nearest": "atoms",
        "data + one-step": "atoms",
        "data + pursuit": "atoms + pursuit",
        "data + refit": "atoms + pursuit",
        "data + OMP": "atoms + pursuit",  # the best non-negative codes, not the signed ones
        "Gaussian TSAE on its own": None,
    }
    assert found["data + OMP"]["r2_difference"]["value"] == pytest.approx(-0.05)


def test_signed_controls_meet_the_best_non_negative_codes_that_there_are() -> None:
    """The order of the coders decides, and not their numbers, which would be a choice on held-out vectors."""
    rows = [
        measured("atoms", "one-step", 0.9),
        measured("atoms + stepwise pursuit", "stepwise pursuit", 0.5),
        measured("atoms + pursuit", "pursuit", 0.6),
        measured("data + stepwise pursuit", "stepwise pursuit", 0.4),
        measured("data + pursuit", "pursuit", 0.3),
        measured("data + OMP", "OMP", 0.65),
    ]
    found = table(*rows)
    assert found["data + OMP"]["against"] == "atoms + stepwise pursuit"
    assert found["data + stepwise pursuit"]["against"] == "atoms + stepwise pursuit"
    assert found["data + pursuit"]["against"] == "atoms + pursuit"
    without = table(*(row for row in rows if row[0]["unit"] != "atoms + stepwise pursuit"))
    assert without["data + OMP"]["against"] == without["data + stepwise pursuit"]["against"] == "atoms + pursuit"


def test_a_difference_is_surer_than_the_two_numbers_since_the_documents_are_the_same() -> None:
    """Both numbers scatter by .1 together and by .002 on their own."""
    atoms, control = (
        measured("atoms", "one-step", 0.5, 0.002, shared=0.1),
        measured("k", "one-step", 0.48, 0.002, shared=0.1),
    )
    ends = table(atoms, control)["k"]["r2_difference"]
    assert ends["value"] == pytest.approx(0.02)
    # Normal differences of standard deviation .002·√2, and Student's factor of 50 groups.
    assert (ends["low"], ends["high"]) == pytest.approx((0.02 - 0.0058, 0.02 + 0.0058), abs=0.0006)


def test_the_conclusion_names_every_control_as_beaten_ahead_or_undecided() -> None:
    found = table(
        measured("atoms", "one-step", 0.5),
        measured("neurons", "identity", 1.0),
        measured("atoms + pursuit", "pursuit", 0.6),
        measured("a + one-step", "one-step", 0.4),
        measured("b + one-step", "one-step", 0.499, 0.01),
        measured("c + OMP", "OMP", 0.7),
        measured("d + pursuit", "pursuit", 0.3),
        measured("e on its own", "one-step", 0.9),
    )
    text = conclude(list(found.values()))
    one_step, pursuit = text.split("With pursuit codes")
    assert "the atoms explain 50.0% [49.0%, 51.0%] of the variance (50.0% in the S-norm)" in one_step
    undecided = "explain more than a + one-step and are not told apart from b + one-step"
    assert f"With these one-step codes, in both norms they {undecided}." in one_step
    assert "explain more than d + pursuit and explain less than c + OMP (signed)" in pursuit
    found["b + one-step"]["r2_s_difference"] = {"value": 0.2, "low": 0.1, "high": 0.3}
    differing = f"in the Euclidean norm they {undecided}; in the S-norm they explain more than every control."
    assert f"With these one-step codes, {differing}" in conclude(list(found.values()))
    assert "neurons" not in text
    assert "on its own" not in text
    assert "9 of them" in text
    assert "No control was measured" in conclude([found["atoms"], found["neurons"]])
    two = table(measured("atoms", "one-step", 0.5), measured("a", "one-step", 0.4), measured("b", "one-step", 0.3))
    assert "explain more than every control" in conclude(list(two.values()))


def test_one_document_decides_nothing() -> None:
    rows = [measured("atoms", "one-step", 0.5), measured("a", "one-step", 0.1)]
    (_, control) = with_differences(rows, 1)
    assert control["r2_difference"] == {"value": 0.4, "low": None, "high": None}
    assert "not told apart from a" in conclude(with_differences(rows, 1))
