"""The analysis of a sweep as a run of wandb: tables, plots and figures, offline as well."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atomlab.evaluation.sweeps.jobs import Job
from atomlab.evaluation.sweeps.settings import middle
from atomlab.report import Row
from atomlab.training.loggers import offline_without_key, project_of_run

_PLOTS = {  # what stands against what in the plots: title, x, y, of the table of jobs
    "frontier": ("Held-out R²_S against L0", "l0", "r2_s"),
    "stability": ("q* over pairs against atoms", "d_sae", "stability_pairwise"),
    "capacity": ("Held-out R²_S against atoms", "d_sae", "r2_s"),
    "memory": ("In-sample R²_S against atoms", "d_sae", "r2_s_train"),
}


def project_of(jobs: Sequence[Job]) -> str | None:
    """Returns the wandb project that the jobs of a sweep logged to; None where none of them used wandb."""
    return next((project for job in jobs if (project := project_of_run(job.folder))), None)


def log_sweep(folder: Path, project: str, tables: Mapping[str, Sequence[Row]], jobs: Sequence[Job]) -> None:
    """Sends the analysis as one run of the sweep's group: tables, plots of them, and the figures of the page.

    The id of the run follows from the folder, so that a repeated analysis goes on in the same run.

    Args:
        folder: of the sweep, with its figures.
        project: of wandb.
        tables: rows by the name of their table; empty ones are left out.
        jobs: of the sweep; their atoms' rows are a table as well, which the plots are of.
    """
    import wandb  # here, since it takes a second that no other analysis should wait for

    offline_without_key(str(folder))
    rows = [{"job": job.number, **job.varied, **job.atoms} for job in jobs]
    run = wandb.init(
        project=project,
        dir=str(folder),
        id=f"sweep-{hashlib.sha256(folder.name.encode()).hexdigest()[:8]}",
        name=folder.name,
        group=folder.name,
        job_type="sweep",
        config={"sweep": folder.name, "jobs": len(jobs)},
        resume="allow",
        reinit="create_new",
    )
    with run:
        sent: dict[str, Any] = {f"sweep/{name}": _table(found) for name, found in tables.items() if found}
        sent["sweep/jobs"] = _table(rows)
        for name, (title, x, y) in _PLOTS.items():
            points = _table([{key: row[key] for key in (x, y)} for row in rows if row.get(y) is not None])
            if points.data:
                sent[f"sweep/{name}"] = wandb.plot.scatter(points, x, y, title=title)
        for file in sorted((folder / "figures").glob("*.png")):
            sent[f"sweep/figures/{file.stem}"] = wandb.Image(str(file), caption=file.stem.replace("-", " "))
        run.log(sent)


def _table(rows: Sequence[Row]) -> Any:
    """A table of the numbers and words of rows; a number with its range has its middle there, and columns of both ends."""
    import wandb

    flat = [_flat(row) for row in rows]
    columns: list[Any] = list(dict.fromkeys(name for row in flat for name in row))
    return wandb.Table(columns=columns, data=[[row.get(name) for name in columns] for row in flat])


def _flat(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping) and "value" in value:
            found[name] = middle(value)  # the Babel function has a value and its k, and no range
            found |= {f"{name}_{end}": value[end] for end in ("low", "high") if end in value}
        elif isinstance(value, int | float | str):
            found[name] = value
    return found
