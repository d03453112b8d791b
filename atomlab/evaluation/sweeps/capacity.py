"""Capacity in a sweep (theory.md 10): critical numbers of atoms, heat maps, and the scaling law of the held-out loss.

The capacity null is on the same axes: the rows of a job's table that have as many atoms and vectors and no atoms to find.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from atomlab.evaluation.scaling.critical_size import critical_law, critical_size
from atomlab.evaluation.scaling.interval import NotEnoughCells
from atomlab.evaluation.scaling.scaling_law import FACTORS, Cell, Prediction, held_back
from atomlab.evaluation.sweeps.jobs import SPARSITY, Job, by_setting, keys_of
from atomlab.report import Column, Row

TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
NULLS = {  # units of a job's table by what the page calls them
    "data as dictionary": "data + OMP",
    "Gaussian surrogate": "Gaussian TSAE on its own",
}
CRITICAL_COLUMNS = (
    Column("unit", "data", "Whose R²: that of the atoms, or of a null of the same size."),
    Column("target", "R²_S in sample", "The R² in the S-norm on training vectors that is to be reached.", ".2f"),
    Column("atoms", "atoms needed", "By number of training vectors, interpolated in log(atoms) between two widths."),
    Column("coefficient", "c", "Of atoms = c · vectors^b; 95% interval by a bootstrap of seeds and residuals.", ".3g"),
    Column("exponent", "b", "The power: 1 where each vector needs an atom of its own, 0 where all share them.", ".2f"),
    Column("note", "why not", "Why there is no law."),
)
LAW_COLUMNS = (
    Column("unit", "jobs", "What these jobs share beside atoms, vectors and target L0."),
    Column("cells", "cells", "Fitted cells: the means over seeds, without the one that is held back.", "d"),
    Column("floor", "floor", "Loss that none of the factors removes; the loss is 1 − R²_S on held-out vectors."),
    Column("coefficient", "coefficient", "Loss above the floor at the geometric mean of the factors."),
    *(
        Column(f"of_{name}", f"power of {name}", f"The loss above the floor falls as {name}^−power.")
        for name in FACTORS
    ),
    Column("residual", "residual", "Root mean square of log(measured / fitted).", ".4f"),
    Column("held_back", "held back", "The cell with the most atoms, vectors and L0, which was not fitted."),
    Column("predicted", "predicted loss", "Of that cell, with the 95% interval for a new measurement."),
    Column("measured", "measured loss", "Of that cell."),
    Column("note", "why not", "Why there is no law."),
)


def rows_of(source: str, jobs: Sequence[Job]) -> list[tuple[Job, Row]]:
    """Returns the jobs with their row of the atoms or of a null (`NULLS`), as far as they have one."""
    found = [(job, job.atoms if source == "atoms" else job.row(NULLS[source])) for job in jobs]
    return [(job, row) for job, row in found if row is not None]


def sources(jobs: Sequence[Job]) -> list[str]:
    """Returns “atoms”, and the nulls that some job has measured."""
    return ["atoms", *(name for name in NULLS if rows_of(name, jobs))]


def _vectors(job: Job, row: Row) -> int:
    """The number of training vectors of a row: nulls get at most `sample_sizes.controls` of the run's."""
    return int(row.get("samples_fitted") or job.atoms["samples_fitted"])


def critical_rows(jobs: Sequence[Job]) -> list[Row]:
    """Finds the critical number of atoms for each R² target, and its law over the number of vectors.

    Args:
        jobs: of the sweep.

    Returns:
        A row for each group of jobs that differ in atoms, vectors and seeds alone, each data and each target that is crossed
        somewhere; none where the number of atoms does not vary.
    """
    found = []
    for rest, group in by_setting(jobs, (*keys_of("d_sae", jobs), *keys_of("samples_fitted", jobs))).items():
        for source in sources(group):
            cells = [
                (_vectors(job, row), int(row["d_sae"]), float(row["r2_s_train"]))
                for job, row in rows_of(source, group)
                if job.atoms.get("samples_fitted") and row.get("r2_s_train") is not None
            ]
            name = source if rest == "all jobs" else f"{source}, {rest}"
            found += [row for target in TARGETS if (row := _critical_row(name, cells, target))]
    return found


def _critical_row(name: str, cells: Sequence[tuple[int, int, float]], target: float) -> Row | None:
    curves: dict[int, dict[int, list[float]]] = {}
    for vectors, atoms, r2 in cells:
        curves.setdefault(vectors, {}).setdefault(atoms, []).append(r2)
    needed = {
        vectors: critical_size({atoms: float(np.mean(values)) for atoms, values in curve.items()}, target)
        for vectors, curve in sorted(curves.items())
    }
    crossed = {vectors: size for vectors, size in needed.items() if size is not None}
    if not crossed:
        return None
    law = critical_law(cells, target)
    row: Row = {"unit": name, "target": target}
    row["atoms"] = "; ".join(f"{size:,.0f} for {vectors:,} vectors" for vectors, size in crossed.items())
    row["critical"] = [[vectors, size] for vectors, size in crossed.items()]
    if isinstance(law, NotEnoughCells):
        return row | {"note": law.sentence}
    return row | {"coefficient": law.coefficient.row(), "exponent": law.exponent.row()}


Grid = tuple[list[int], list[int], dict[str, NDArray[np.float64]]]


def heat_maps(jobs: Sequence[Job]) -> dict[str, Grid]:
    """Makes the grids of R² in the S-norm over the numbers of atoms and of training vectors.

    Args:
        jobs: of the sweep.

    Returns:
        By what the jobs of a grid share: numbers of vectors, numbers of atoms, and R² over both (means over seeds; NaN where no
        job is), in sample and held out, of the atoms and of each null. Only where both numbers vary.
    """
    found: dict[str, Grid] = {}
    for rest, group in by_setting(jobs, (*keys_of("d_sae", jobs), *keys_of("samples_fitted", jobs))).items():
        known = [job for job in group if job.atoms.get("samples_fitted")]
        counts = sorted({int(job.atoms["samples_fitted"]) for job in known})
        sizes = sorted({int(job.atoms["d_sae"]) for job in known})
        if len(counts) < 2 or len(sizes) < 2:
            continue
        grids = {}
        for source in sources(known):
            for split, key in (("in sample", "r2_s_train"), ("held out", "r2_s")):
                values: dict[tuple[int, int], list[float]] = {}
                for job, row in rows_of(source, known):
                    if row.get(key) is not None:
                        place = int(row["d_sae"]), _vectors(job, row)
                        values.setdefault(place, []).append(row[key])
                grids[f"{source}, {split}"] = np.array(
                    [
                        [float(np.mean(values[n, count])) if (n, count) in values else math.nan for count in counts]
                        for n in sizes
                    ]
                )
        found[rest] = counts, sizes, grids
    return found


def predictions(jobs: Sequence[Job]) -> Mapping[str, tuple[list[Cell], Prediction | NotEnoughCells]]:
    """Fits the scaling law of the held-out loss to all cells but one, and predicts that one.

    Args:
        jobs: of the sweep.

    Returns:
        For each group of jobs that differ in atoms, vectors, target L0 and seeds alone: its cells, and the prediction, or why
        there is none. Only where a group has two cells or more.
    """
    axes = (*keys_of("d_sae", jobs), *keys_of("samples_fitted", jobs), *SPARSITY)
    found = {}
    for rest, group in by_setting(jobs, axes).items():
        cells = [cell for seeds in by_setting(group).values() if (cell := _cell(seeds)) is not None]
        if len(cells) > 1:
            found[rest] = cells, held_back(cells)
    return found


def _cell(seeds: Sequence[Job]) -> Cell | None:
    """The cell of some seeds; None where it has no number of vectors or no loss above 0."""
    rows = [job.atoms for job in seeds]
    if not all(row.get("samples_fitted") and row["r2_s"] < 1 and row["l0"] > 0 for row in rows):
        return None
    mean = {key: float(np.mean([row[key] for row in rows])) for key in ("d_sae", "samples_fitted", "l0", "r2_s")}
    return Cell(mean["d_sae"], mean["samples_fitted"], mean["l0"], 1 - mean["r2_s"])


def law_rows(found: Mapping[str, tuple[Sequence[Cell], Prediction | NotEnoughCells]]) -> list[Row]:
    """Makes the rows of the table of scaling laws from `predictions`."""
    rows = []
    for rest, (_, prediction) in found.items():
        if isinstance(prediction, NotEnoughCells):
            rows.append({"unit": rest, "note": prediction.sentence})
            continue
        law = prediction.law
        row: Row = {"unit": rest, "cells": law.cells, "residual": law.residual}
        row |= {"floor": law.floor.row(), "coefficient": law.coefficient.row()}
        row |= {f"of_{name}": exponent.row() for name, exponent in law.exponents.items()}
        row |= {"held_back": _named(prediction.cell), "predicted": prediction.loss.row()}
        rows.append(row | {"measured": float(prediction.cell.loss), "middle": dict(law.middle)})
    return rows


def in_words(critical: Sequence[Row], found: Mapping[str, tuple[Sequence[Cell], Prediction | NotEnoughCells]]) -> str:
    """Says in a few sentences what capacity the sweep found; empty where atoms, vectors and L0 do not vary."""
    said = []
    for row in critical:
        if "exponent" in row and row["unit"] == "atoms":
            power, needed = (
                row["exponent"],
                f"{row['coefficient']['value']:.2g} · vectors^{row['exponent']['value']:.2f}",
            )
            said.append(
                f"In sample R²_S {row['target']:g} needs {needed} atoms (95% interval of the power {power['low']:.2f} to "
                f"{power['high']:.2f})."
            )
    for rest, (_, prediction) in found.items():
        of = "" if rest == "all jobs" else f" of {rest}"
        if isinstance(prediction, NotEnoughCells):
            said.append(f"No scaling law{of}: {prediction.sentence}.")
            continue
        loss = prediction.loss
        said.append(
            f"A scaling law{of}, fitted to the held-out loss 1 − R²_S of {prediction.law.cells} cells, predicts {loss.value:.3f} "
            f"[{loss.low:.3f}, {loss.high:.3f}] for {_named(prediction.cell)}, which was held back; measured "
            f"{prediction.cell.loss:.3f}, {'inside' if prediction.inside else 'outside'} the 95% interval."
        )
    return " ".join(said)


def _named(cell: Cell) -> str:
    return f"{cell.atoms:,.0f} atoms, {cell.vectors:,.0f} vectors, L0 {cell.l0:.1f}"
