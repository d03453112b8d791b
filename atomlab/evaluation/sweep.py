"""What a sweep found, from the tables of its jobs: `python -m atomlab.evaluation.sweep multirun/<name>`.

train.py calls this at the end of each sweep. It reads `jobs/<n>.json` and `<n>/results.json` of the finished jobs and writes into
the folder of the sweep

- `sweep.csv` and `sweep.parquet`: one line for each job and row of its table, with what the job varied and every number;
- `results.json`, `results.csv`, `results.md`, `report.html` and `figures/`: one row for each setting, with the mean and the range
  over seeds where there are several, and what the sweep says of capacity (`atomlab.evaluation.sweeps.capacity`).

If its jobs logged to wandb, all of it is a wandb run as well. No vector is measured here: every number is one that a job wrote
down, or one of the atoms in its checkpoint.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from atomlab.evaluation.sweeps.agreement import agreement
from atomlab.evaluation.sweeps.capacity import (
    CRITICAL_COLUMNS,
    LAW_COLUMNS,
    NULLS,
    critical_rows,
    heat_maps,
    in_words,
    law_rows,
    predictions,
    sources,
)
from atomlab.evaluation.sweeps.figures import agreement_figure, capacity_figures, number_figures
from atomlab.evaluation.sweeps.jobs import OFF_TARGET, Job, by_setting, finished_jobs
from atomlab.evaluation.sweeps.settings import COLUMNS, middle, setting_row
from atomlab.evaluation.sweeps.tidy import write_tidy
from atomlab.evaluation.sweeps.to_wandb import log_sweep, project_of
from atomlab.report import Column, Page, Results, Row, write_results


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

    Cost: seconds; and for settings with several seeds a matching of their atoms (`agreement`).
    """
    jobs = finished_jobs(folder)
    if not jobs:
        return ""
    write_tidy(folder, jobs)
    missing = _left_out(jobs)
    rows = [setting_row(name, seeds) | agreement(seeds, missing) for name, seeds in by_setting(jobs).items()]
    alike = [job for job in jobs if not job.is_off_target]
    critical, laws = critical_rows(alike), predictions(alike)
    conclusion = " ".join(part for part in (_best(rows, jobs), _off_target(jobs), in_words(critical, laws)) if part)
    identity = {"jobs": {str(job.number): dict(job.varied) for job in jobs}}
    records = {"rows": rows, "critical": critical, "law": law_rows(laws)}
    results = Results(rows, conclusion, {"sweep": folder.name}, identity, COLUMNS, records)
    tables = {
        "How many atoms an in-sample R² needs": (critical, CRITICAL_COLUMNS),
        "Scaling law of the held-out loss": (law_rows(laws), LAW_COLUMNS),
    }
    tables = {heading: _shown(*table) for heading, table in tables.items() if table[0]}
    page = Page(f"Sweep {folder.name}", _configuration(folder), tables=tables, missing=missing)
    figures = number_figures(jobs) | agreement_figure(rows, jobs) | capacity_figures(critical, heat_maps(jobs), laws)
    text = write_results(folder, results, page, figures)
    if project := project_of(jobs):
        log_sweep(folder, project, {"settings": rows, "critical": critical, "law": law_rows(laws)}, jobs)
    return text


def _best(rows: Sequence[Row], jobs: Sequence[Job]) -> str:
    best = max(rows, key=lambda row: middle(row["r2_s_validation"]))
    return (
        f"{len(jobs)} finished jobs, {len(rows)} settings. On validation vectors {best['unit']} has the largest R² in the S-norm "
        f"({middle(best['r2_s_validation']):.3f}); held out it has {middle(best['r2_s']):.3f}. Settings of different L0 or "
        "number of atoms are not alike in cost."
    )


def _off_target(jobs: Sequence[Job]) -> str:
    """Names the jobs whose held-out L0 is not what their training was to reach: they are not alike in cost to the others."""
    off = [
        f"{job.setting() or f'job {job.number}'} (L0 {job.atoms['l0']:.1f}, target {job.target_l0:g})"
        for job in jobs
        if job.is_off_target
    ]
    if not off:
        return ""
    return f"Held-out L0 is more than {OFF_TARGET:.0%} off its target in {'; '.join(off)}: left out of the laws of capacity."


def _left_out(jobs: Sequence[Job]) -> list[str]:
    """Says what of the analysis of capacity this sweep has no cells for."""
    widths = {job.atoms["d_sae"] for job in jobs}
    counts = {job.atoms.get("samples_fitted") for job in jobs} - {None}
    missing = []
    if len(widths) < 2 or len(counts) < 2:
        missing.append(
            f"The heat map of atoms against training vectors and the law of the critical number of atoms need several of both; "
            f"this sweep has numbers of atoms: {len(widths)}, of training vectors: {len(counts)}."
        )
    if len(widths) > 1 and (absent := [name for name in NULLS if name not in sources(jobs)]):
        missing.append(
            f"The capacity null ({', '.join(absent)}) was not measured: add nulls=[data,gaussian] to the sweep."
        )
    return missing


def _shown(rows: Sequence[Row], columns: Sequence[Column]) -> tuple[Sequence[Row], Sequence[Column]]:
    """A table without the columns that no row has a value of."""
    return rows, [column for column in columns if any(row.get(column.key) is not None for row in rows)]


def _configuration(folder: Path) -> str:
    """The configuration that the sweep began with, without Hydra's part, which names folders of this machine."""
    file = folder / "multirun.yaml"
    kept, own = [], True
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        if line and not line[0].isspace():
            own = not line.startswith("hydra:")
        if own:
            kept.append(line)
    return "\n".join(kept)


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
