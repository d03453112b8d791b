"""The figures of a sweep's page, by caption; each is drawn when it is called."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from atomlab.evaluation.scaling.interval import NotEnoughCells
from atomlab.evaluation.scaling.scaling_law import Cell, Prediction
from atomlab.evaluation.sweeps.capacity import NULLS, Grid
from atomlab.evaluation.sweeps.jobs import Job, by_setting, keys_of, numeric_keys
from atomlab.evaluation.sweeps.settings import CONTROL, middle
from atomlab.report import Row, capacity_figure, critical_figure, law_figure, series_figure

Figures = dict[str, Callable[[], Any]]
_R2 = "R² in the S-norm"
_AGAINST_ATOMS = {  # caption: what is drawn of the atoms' row, by the name of its line
    "R² in the S-norm against atoms": {"held out": "r2_s", "training": "r2_s_train"},
    "R² against atoms": {"held out": "r2", "training": "r2_train"},
    "Stability index q* over pairs against atoms": {
        "atoms": "stability_pairwise",
        "random atoms": "stability_pairwise_random",
    },
    "Certified held-out codes against atoms": {
        "level 1": "certified_level_1",
        "level 4": "certified_level_4",
        "level 4, any sign": "certified_level_4_signed",
    },
    "L0 against atoms": {"held out": "l0", "training": "l0_train"},
}


def number_figures(jobs: Sequence[Job]) -> Figures:
    """Chooses the figures of the atoms' numbers.

    Args:
        jobs: of the sweep.

    Returns:
        Where the number of atoms varies: R², q*, certified rates and L0 against it, with the controls and nulls that the
        tables have. Where L0 or the number of atoms varies: R² in the S-norm against L0, one line for each number of atoms.
        And R² in the S-norm against each other numeric option.
    """
    widths, found = keys_of("d_sae", jobs), {}
    if widths:
        for caption, numbers in _AGAINST_ATOMS.items():
            others = _OTHERS if numbers.get("held out") in ("r2", "r2_s") else {}
            found[caption] = partial(
                _against_atoms, jobs, widths, numbers, others, caption.removesuffix(" against atoms")
            )
    if len(jobs) > 1:
        found["R² in the S-norm against L0"] = partial(_against_l0, jobs)
    for key in numeric_keys(jobs):
        if key not in widths:
            found[f"R² in the S-norm against {key}"] = partial(_against_option, jobs, key)
    return found


_OTHERS = {CONTROL: CONTROL, **NULLS}


def agreement_figure(rows: Sequence[Row], jobs: Sequence[Job]) -> Figures:
    """Makes the figure of seed agreement against the number of atoms.

    Args:
        rows: of the settings, as `setting_row` and `agreement` make them.
        jobs: of the sweep.

    Returns:
        The figure; nothing where fewer than two settings have the number.
    """
    known = [row for row in rows if row.get("agreement")]
    widths = keys_of("d_sae", jobs)
    if len(known) < 2 or not widths:
        return {}
    rests = {job.setting() or "all jobs": job.setting(widths) for job in jobs}

    def draw() -> Any:
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in known:
            for name, key in (("seeds", "agreement"), ("random atoms", "agreement_random")):
                label = ", ".join(part for part in (rests[row["unit"]], name) if part)
                lines.setdefault(label, []).append((middle(row["d_sae"]), middle(row[key])))
        return series_figure(_sorted(lines), "atoms", "mean matched cosine")

    return {"Seed agreement against atoms": draw}


def capacity_figures(
    critical: Sequence[Row],
    maps: Mapping[str, Grid],
    laws: Mapping[str, tuple[Sequence[Cell], Prediction | NotEnoughCells]],
) -> Figures:
    """Makes the figures of what `atomlab.evaluation.sweeps.capacity` found."""
    found: Figures = {}
    for rest, grid in maps.items():
        found[f"R² in the S-norm over atoms and training vectors{_of(rest)}"] = partial(capacity_figure, *grid)
    crossed = [row for row in critical if len(row["critical"]) > 1]
    if crossed:
        names = {id(row): f"{row['unit']}, R² {row['target']:g}" for row in crossed}
        points = {names[id(row)]: row["critical"] for row in crossed}
        lines = {
            names[id(row)]: (row["coefficient"]["value"], row["exponent"]["value"])
            for row in crossed
            if "exponent" in row
        }
        found["Atoms that an in-sample R² in the S-norm needs, against training vectors"] = partial(
            critical_figure, points, lines
        )
    for rest, (cells, prediction) in laws.items():
        if isinstance(prediction, Prediction):
            found[f"The scaling law of the held-out loss{_of(rest)}"] = partial(_law, cells, prediction)
    return found


def _of(rest: str) -> str:
    return "" if rest == "all jobs" else f", {rest}"


def _law(cells: Sequence[Cell], prediction: Prediction) -> Any:
    fitted = [cell for cell in cells if cell is not prediction.cell]
    loss = prediction.loss
    return law_figure(
        [prediction.law.loss(cell) for cell in fitted],
        [cell.loss for cell in fitted],
        (loss.value, loss.low, loss.high, prediction.cell.loss),
    )


def _against_atoms(
    jobs: Sequence[Job], widths: Sequence[str], numbers: Mapping[str, str], others: Mapping[str, str], ylabel: str
) -> Any:
    lines: dict[str, list[tuple[float, float]]] = {}
    for job in jobs:
        rest = job.setting(widths)
        rows = {"": job.atoms} | {name: row for name, unit in others.items() if (row := job.row(unit)) is not None}
        for source, row in rows.items():
            for name, key in numbers.items():
                if isinstance(row.get(key), int | float):
                    label = ", ".join(part for part in (rest, source, name) if part)
                    lines.setdefault(label, []).append((float(row["d_sae"]), float(row[key])))
    return series_figure(_sorted(lines), "atoms", ylabel)


def _against_l0(jobs: Sequence[Job]) -> Any:
    without = (*keys_of("d_sae", jobs), *keys_of("l0", jobs))
    lines: dict[str, list[tuple[float, float]]] = {}
    for name, group in by_setting(jobs, without).items():
        for job in group:
            label = f"{int(job.atoms['d_sae']):,} atoms{_of(name)}"
            lines.setdefault(label, []).append((job.atoms["l0"], job.atoms["r2_s"]))
    return series_figure(_sorted(lines), "L0, held out", f"{_R2}, held out")


def _against_option(jobs: Sequence[Job], key: str) -> Any:
    lines: dict[str, list[tuple[float, float]]] = {}
    for job in jobs:
        for split, number in (("held out", "r2_s"), ("training", "r2_s_train")):
            label = ", ".join(part for part in (job.setting((key,)), split) if part)
            lines.setdefault(label, []).append((float(job.varied[key]), job.atoms[number]))
    return series_figure(_sorted(lines), key, _R2)


def _sorted(lines: Mapping[str, list[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    """The points of each line in order. Its name has the options without their groups, unless two names would be one."""
    short = {label: re.sub(r"[\w.]+\.(\w+=)", r"\1", label) for label in lines}
    names = short if len({*short.values()}) == len(lines) else {label: label for label in lines}
    return {names[label]: sorted(points) for label, points in lines.items()}
