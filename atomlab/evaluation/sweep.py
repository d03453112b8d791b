"""What a sweep found, from the tables of its jobs: `python -m atomlab.evaluation.sweep multirun/<name>`.

train.py calls this at the end of each sweep. It reads `jobs/<n>.json` and `<n>/results.json` of the finished jobs and writes into
the folder of the sweep

- `sweep.csv` and `sweep.parquet`: one line for each job and row of its table, with what the job varied and every number;
- `results.json`, `results.csv`, `results.md`, `report.html` and `figures/`: one row for each setting, with the mean and the range
  over seeds where there are several.

Nothing is measured here: every number is one that a job wrote down.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from atomlab.files import atomic_write, regular
from atomlab.report import UNIT, Column, Page, Results, Row, series_figure, write_csv, write_results

_SEEDS = ("seed", "activations.batches.seed")
_OWN = ("d_sae", "r2_train", "r2", "r2_s_train", "r2_s", "r2_s_validation", "l0_train", "l0", "coherence", "dead_train")
_OWN += ("stability_pairwise", "stability_pairwise_random", "certified_level_4", "certified_level_4_signed")
_CONTROL = "k-means + OMP"
_COLUMNS = (
    Column("unit", "setting", "What the jobs of this row varied, without the seed.", closing=True),
    Column("seeds", "seeds", "How many finished jobs have this setting and differ in their seed.", "d", closing=True),
    Column("d_sae", "atoms", "Number of atoms.", ".0f", closing=True),
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
    Column(
        "dead_train", "dead", "Share of atoms that fire on none of the measured training vectors.", ".1%", closing=True
    ),
    Column("stability_pairwise", "q* pairs", "Stability index over pairs, an index and no certificate.", ".1%"),
    Column("stability_pairwise_random", "q* pairs, random", "The same of random atoms at this L0.", ".1%"),
    Column(
        "certified_level_4", "cert. 4", "Share of held-out codes that are certified at level 4.", ".1%", closing=True
    ),
    Column("certified_level_4_signed", "4 ±", "The same among codes of any sign.", ".1%"),
    Column("control_r2", _CONTROL, "R² of k-means centroids with OMP codes at the atoms' L0.", closing=True),
    Column("control_r2_s", f"{_CONTROL}, R²_S", "R² in the S-norm of the same.", closing=True),
)


def summarise_sweep(folder: Path) -> str:
    """Writes the tables, figures and page of a sweep.

    Args:
        folder: of the sweep, as train.py -m made it.

    Returns:
        The text to print: the table, a conclusion and the place of the page. Empty where no finished job has a table, as after
        harvest_only.

    Raises:
        FileNotFoundError: the folder holds no sweep.
        ValueError: a file of it is damaged.
    """
    jobs = finished_jobs(folder)
    if not jobs:
        return ""
    lines = [{"job": number, **varied, **row} for number, varied, rows in jobs for row in rows]
    _write_lines(folder, lines)
    rows = [_setting(name, members) for name, members in _by_setting(jobs).items()]
    best = max(rows, key=lambda row: _number(row["r2_s_validation"]))
    conclusion = (
        f"{len(jobs)} finished jobs, {len(rows)} settings. On validation vectors {best['unit']} has the largest R² in the S-norm "
        f"({_number(best['r2_s_validation']):.3f}); held out it has {_number(best['r2_s']):.3f}. Settings of different L0 or "
        "number of atoms are not alike in cost."
    )
    identity = {"jobs": {str(number): dict(varied) for number, varied, _ in jobs}}
    results = Results(rows, conclusion, {"sweep": folder.name}, identity, _COLUMNS)
    settings = [varied for _, varied, _ in jobs]
    numeric = [key for key in settings[0] if key not in _SEEDS and all(_is_number(varied[key]) for varied in settings)]
    figures = {f"R² in the S-norm against {key}": _figure_of(key, jobs) for key in numeric}
    page = Page(f"Sweep {folder.name}", _configuration(folder))
    return write_results(folder, results, page, figures)


Jobs = Sequence[tuple[int, Mapping[str, Any], Sequence[Row]]]


def finished_jobs(folder: Path) -> Jobs:
    """Reads the finished jobs of a sweep.

    Args:
        folder: of the sweep.

    Returns:
        Number, what it varies by its key, and the rows of its table, of each finished job that has a table. A value is a
        number where it reads as one, otherwise text. Keys that all jobs share the value of are left out, unless there
        is one job alone.

    Raises:
        FileNotFoundError: the folder has no `jobs/`.
        ValueError: a file is damaged.
    """
    files = sorted((folder / "jobs").glob("*.json"), key=lambda file: int(file.stem))
    if not files:
        raise FileNotFoundError(
            f"{folder} is no folder of a sweep: it has no jobs/. Give the folder that train.py -m made."
        )
    words: dict[int, dict[str, str]] = {}
    for file in files:
        status = _read(file)
        if status.get("state") == "finished" and (folder / file.stem / "results.json").is_file():
            words[int(file.stem)] = dict(word.lstrip("+").split("=", 1) for word in status["overrides"] if "=" in word)
    keys = list(dict.fromkeys(key for own in words.values() for key in own))
    varied = [key for key in keys if len(words) == 1 or len({own.get(key) for own in words.values()}) > 1]
    return [
        (number, {key: _value(own.get(key)) for key in varied}, _read(folder / str(number) / "results.json")["rows"])
        for number, own in words.items()
    ]


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(regular(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): run the sweep again, which repeats that job.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} is damaged: expected a mapping. Run the sweep again, which repeats that job.")
    return found


def _value(word: str | None) -> float | str:
    try:
        return float(str(word))
    except ValueError:
        return "default" if word in (None, "null") else str(word)


def _is_number(value: object) -> bool:
    return isinstance(value, float)


def _number(value: Any) -> float:
    """Returns a number, or the middle one of a number with its range."""
    return float(value["value"]) if isinstance(value, Mapping) else float(value)


def _name(varied: Mapping[str, Any]) -> str:
    shown = [
        f"{key}={value:g}" if _is_number(value) else f"{key}={value}"
        for key, value in varied.items()
        if key not in _SEEDS
    ]
    return ", ".join(shown) or "all jobs"


def _by_setting(jobs: Jobs) -> dict[str, list[Sequence[Row]]]:
    """Gathers the tables of the jobs that differ in their seed alone."""
    found: dict[str, list[Sequence[Row]]] = {}
    for _, varied, rows in jobs:
        found.setdefault(_name(varied), []).append(rows)
    return found


def _setting(name: str, tables: Sequence[Sequence[Row]]) -> Row:
    """Makes the row of a setting from the tables of its seeds: numbers, or their mean and range."""
    own = [rows[0] for rows in tables]
    row: Row = {"unit": name, "seeds": len(tables)}
    row |= {key: _over_seeds([one.get(key) for one in own]) for key in _OWN}
    row["gap"] = _over_seeds([one["r2_s_train"] - one["r2_s"] for one in own])
    controls = [next((one for one in rows if one[UNIT.key] == _CONTROL), {}) for rows in tables]
    return row | {f"control_{key}": _over_seeds([one.get(key) for one in controls]) for key in ("r2", "r2_s")}


def _over_seeds(values: Sequence[Any]) -> Any:
    """Returns the number of one seed, or mean, smallest and largest one of several; None where a seed has no number."""
    if not all(isinstance(value, int | float) for value in values):
        return None
    if len(values) == 1:
        return values[0]
    return {"value": sum(values) / len(values), "low": min(values), "high": max(values)}


def _figure_of(key: str, jobs: Jobs) -> Any:
    """Returns a function that draws R² in the S-norm against one numeric option, one line for the rest of a setting."""

    def draw() -> Any:
        lines: dict[str, list[tuple[float, float]]] = {}
        for _, varied, rows in jobs:
            rest = _name({name: value for name, value in varied.items() if name != key})
            for split, number in (("held out", "r2_s"), ("training", "r2_s_train")):
                label = split if rest == "all jobs" else f"{rest}, {split}"
                lines.setdefault(label, []).append((varied[key], rows[0][number]))
        return series_figure({label: sorted(points) for label, points in lines.items()}, key, "R² in the S-norm")

    return draw


def _configuration(folder: Path) -> str:
    file = folder / "multirun.yaml"
    return file.read_text(encoding="utf-8").split("\nhydra:")[0] if file.is_file() else ""


def _write_lines(folder: Path, lines: Sequence[Row]) -> None:
    """Writes all rows of all jobs: sweep.csv with every value, sweep.parquet with numbers and words."""
    write_csv(folder / "sweep.csv", lines)
    keys = list(dict.fromkeys(key for line in lines for key in line))
    columns: dict[str, list[Any]] = {}
    for key in keys:
        values = [line.get(key) for line in lines]
        kinds = {type(value) for value in values if value is not None}
        if kinds <= {int, float}:
            columns[key] = [None if value is None else float(value) for value in values]
        elif kinds <= {str, float, int, bool}:
            columns[key] = [None if value is None else str(value) for value in values]
    with atomic_write(folder / "sweep.parquet") as temporary:
        pq.write_table(pa.table(columns), temporary)


def main(words: Sequence[str]) -> int:
    """Runs `summarise_sweep` on the folder that the command line names; returns the exit code."""
    if len(words) != 1:
        sys.stderr.write("atomlab: give the folder of one sweep: python -m atomlab.evaluation.sweep multirun/<name>\n")
        return 2
    try:
        text = summarise_sweep(Path(words[0]))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"atomlab: {error}\n")
        return 2
    sys.stdout.write(f"{text or 'No finished job has a table yet.'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
