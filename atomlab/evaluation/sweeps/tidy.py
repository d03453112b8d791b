"""The tidy table of a sweep: one line for each job and row of its table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from atomlab.evaluation.sweeps.jobs import Job
from atomlab.files import atomic_write
from atomlab.report import Row, write_csv


def write_tidy(folder: Path, jobs: Sequence[Job]) -> None:
    """Writes all rows of all jobs: sweep.csv with every value, sweep.parquet with numbers and words.

    Args:
        folder: of the sweep.
        jobs: of it.

    Raises:
        OSError: the folder cannot be written.
    """
    lines: list[Row] = [{"job": job.number, **job.varied, **row} for job in jobs for row in job.rows]
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
