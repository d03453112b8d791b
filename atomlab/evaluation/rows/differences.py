"""How much more the atoms explain than each control, and whether held-out documents are enough to say so."""

from collections.abc import Sequence

from atomlab.evaluation.rows.measure import Replicates, interval
from atomlab.report import Row
from atomlab.units import source_of

NORMS = {"r2": "Euclidean norm", "r2_s": "S-norm"}
_NO_GAP_OF_ITS_OWN = ("neurons",)  # exact by construction, on any vectors
_OWN_VECTORS = "on its own"  # ends the name of a row that is measured on other vectors than the rest
_BEST = ("stepwise pursuit", "pursuit", "refit", "one-step")  # codes of the atoms, the best first


def competes(unit: str) -> bool:
    """Says whether the unit of this name is a control of the atoms: not neurons, and not one on vectors of its own."""
    return unit not in _NO_GAP_OF_ITS_OWN and not unit.endswith(_OWN_VECTORS)


def is_atoms(row: Row) -> bool:
    """Says whether a row is of the trained atoms, with whatever coder."""
    return source_of(row["unit"]) == "atoms"


def with_differences(measured: Sequence[tuple[Row, Replicates]], groups: int) -> list[Row]:
    """Adds to each control the difference between the atoms and it, like with like.

    A control is compared with the atoms that have the same coder. Where there are none, and for signed codes (OMP)
    always, it is compared with the best non-negative codes of the atoms: those of a stepwise pursuit, else of a pursuit of
    four stages, else refitted ones, else the one-step codes.

    Args:
        measured: rows and their replicates of `r2` and `r2_s`, the atoms' row first. All are of the same held-out vectors,
            but for units on vectors of their own.
        groups: number of groups of the held-out vectors that were resampled.

    Returns:
        Copies of the rows. Controls have `against`, the name of the atoms' row; and `r2_difference` and
        `r2_s_difference`, the atoms' R² less theirs (`value`) with its 95% interval over other documents (`low`, `high`;
        None where there is no interval).
    """
    own = {row["coder"]: (row, replicates) for row, replicates in measured if is_atoms(row)}
    best = next(own[coder] for coder in _BEST if coder in own)
    found = []
    for row, replicates in measured:
        if is_atoms(row) or not competes(row["unit"]):
            found.append(row)
            continue
        atoms, samples = best if row["signed"] else own.get(row["coder"], best)
        if row["coder"] == "nearest":
            atoms, samples = measured[0]
        differences = {}
        for norm in NORMS:
            value = atoms[norm] - row[norm]
            ends = interval(samples[norm] - replicates[norm], value, groups) or {"low": None, "high": None}
            differences[f"{norm}_difference"] = {"value": value} | ends
        found.append(row | {"against": atoms["unit"]} | differences)
    return found
