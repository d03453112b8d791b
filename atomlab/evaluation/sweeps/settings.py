"""The rows of a sweep's page: one for each setting, with the mean and the range over its seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from atomlab.evaluation.sweeps.agreement import AGREEMENT
from atomlab.evaluation.sweeps.jobs import Job
from atomlab.report import Column, Row, mean_and_range

CONTROL = "k-means + OMP"
_OWN = ("d_sae", "samples_fitted", "r2_train", "r2", "r2_s_train", "r2_s", "r2_s_validation", "l0_train", "l0")
_OWN += ("coherence", "dead", "stability_pairwise", "stability_pairwise_random", "certified_level_1")
_OWN += ("certified_level_4", "certified_level_4_signed")
COLUMNS = (
    Column("unit", "setting", "What the jobs of this row varied, without the seed.", closing=True),
    Column("seeds", "seeds", "How many finished jobs have this setting and differ in their seed.", "d", closing=True),
    Column("d_sae", "atoms", "Number of atoms.", ".0f", closing=True),
    Column("samples_fitted", "vectors", "Number of training vectors.", ",.0f"),
    Column("r2_train", "R² train", "Euclidean, on training vectors; mean and range over seeds."),
    Column("r2", "R²", "Euclidean, on held-out vectors; mean and range over seeds.", closing=True),
    Column("r2_s_train", "R²_S train", "In the S-norm, on training vectors."),
    Column("r2_s", "R²_S", "In the S-norm, on held-out vectors.", closing=True),
    Column("r2_s_validation", "R²_S validation", "In the S-norm, on validation vectors, which choices go by."),
    Column(
        "gap", "gap", "R²_S on training vectors less that on held-out ones, and harder held-out text is part of it."
    ),
    Column("l0_train", "L0 train", "Mean number of atoms of a training vector.", ".1f"),
    Column("l0", "L0", "Mean number of atoms of a held-out vector.", ".1f", closing=True),
    Column("coherence", "μ", "Largest |cos_S| of two atoms.", closing=True),
    Column("dead", "dead", "Share of atoms that fire on none of many training vectors.", ".1%", closing=True),
    Column("stability_pairwise", "q* pairs", "Stability index over pairs, an index and no certificate.", ".1%"),
    Column("stability_pairwise_random", "q* pairs, random", "The same of random atoms at this L0.", ".1%"),
    Column("certified_level_1", "cert. 1", "Share of held-out codes that are certified at level 1.", ".1%"),
    Column(
        "certified_level_4", "cert. 4", "Share of held-out codes that are certified at level 4.", ".1%", closing=True
    ),
    Column("certified_level_4_signed", "4 ±", "The same among codes of any sign.", ".1%"),
    *AGREEMENT,
    Column("control_r2", CONTROL, "R² of k-means centroids with OMP codes at the atoms' L0.", closing=True),
    Column("control_r2_s", f"{CONTROL}, R²_S", "R² in the S-norm of the same.", closing=True),
)


def setting_row(name: str, jobs: Sequence[Job]) -> Row:
    """Makes the row of a setting from the tables of its seeds.

    Args:
        name: of the setting.
        jobs: its seeds.

    Returns:
        The row. A number of one seed stays a number, and so does a count that is the
        same in all; of several it is their mean (`value`), smallest (`low`) and largest
        (`high`) one. None where a seed has no number.
    """
    own = [job.atoms for job in jobs]
    row: Row = {"unit": name, "seeds": len(jobs)}
    row |= {key: _over_seeds([one.get(key) for one in own]) for key in _OWN}
    row["gap"] = _over_seeds([one["r2_s_train"] - one["r2_s"] for one in own])
    controls = [job.row(CONTROL) or {} for job in jobs]
    return row | {f"control_{key}": _over_seeds([one.get(key) for one in controls]) for key in ("r2", "r2_s")}


def middle(value: Any) -> float:
    """Returns a number, or the middle one of a number with its range."""
    return float(value["value"]) if isinstance(value, Mapping) else float(value)


def _over_seeds(values: Sequence[Any]) -> Any:
    if not all(isinstance(value, int | float) for value in values):
        return None
    if len(values) == 1 or (isinstance(values[0], int) and len(set(values)) == 1):
        return values[0]
    return mean_and_range(values)
