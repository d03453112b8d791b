"""The finished jobs of a sweep: what each of them varied, and the table that it wrote."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from atomlab.files import regular
from atomlab.report import Row

SEEDS = ("seed", "activations.batches.seed")
SPARSITY = ("training.sparsity.target",)
_DRIVES = 1.25  # least ratio of the largest and the smallest number that an option is said to set
OFF_TARGET = 0.25  # of the target L0: held-out vectors of another text have some 7% more than validation vectors


@final
@dataclass(frozen=True)
class Job:
    """A finished job of a sweep.

    Attributes:
        number: of the job.
        varied: what the jobs of the sweep differ in, by its key; a number where it reads as one, otherwise text.
        rows: of the table of the job, the row of its atoms first.
        folder: of its run.
        target_l0: the mean L0 that the training was to reach; None where it had no such target.
    """

    number: int
    varied: Mapping[str, float | str]
    rows: Sequence[Row]
    folder: Path
    target_l0: float | None = None

    @property
    def atoms(self) -> Row:
        """The row of the trained atoms."""
        return self.rows[0]

    @property
    def is_off_target(self) -> bool:
        """Whether the held-out L0 is more than `OFF_TARGET` off the target: its codes cost unlike those of the other jobs."""
        return bool(self.target_l0) and abs(self.atoms["l0"] / self.target_l0 - 1) > OFF_TARGET

    def row(self, unit: str) -> Row | None:
        """Returns the row of another unit; None where the table has none."""
        return next((row for row in self.rows if row["unit"] == unit), None)

    def setting(self, without: Sequence[str] = ()) -> str:
        """Names what the job varied.

        Args:
            without: keys that are left out beside the seeds.

        Returns:
            The keys with their values; empty where nothing is left.
        """
        return ", ".join(
            f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in self.varied.items()
            if key not in SEEDS and key not in without
        )


def finished_jobs(folder: Path) -> list[Job]:
    """Reads the finished jobs of a sweep.

    Args:
        folder: of the sweep.

    Returns:
        Each finished job that has a table. Keys that all jobs share the value of are left out of `varied`, unless there is
        one job alone.

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
        _job(number, {key: _value(own.get(key)) for key in varied}, folder / str(number))
        for number, own in words.items()
    ]


def _job(number: int, varied: Mapping[str, float | str], folder: Path) -> Job:
    results = _read(folder / "results.json")
    training = results.get("identity", {}).get("training", {})
    return Job(number, varied, results["rows"], folder, training.get("sparsity", {}).get("target"))


def by_setting(jobs: Sequence[Job], without: Sequence[str] = ()) -> dict[str, list[Job]]:
    """Gathers the jobs that differ in their seed alone, or in their seed and some further keys.

    Args:
        jobs: of the sweep.
        without: the further keys.

    Returns:
        The jobs of each setting by its name, “all jobs” where nothing else was varied.
    """
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(job.setting(without) or "all jobs", []).append(job)
    return found


def keys_of(number: str, jobs: Sequence[Job]) -> tuple[str, ...]:
    """Finds the options that set a number of the atoms' row, such as the number of atoms.

    Args:
        number: its key in the row.
        jobs: of the sweep.

    Returns:
        The numeric options whose larger values always go with larger numbers, by a quarter or more from the smallest to the
        largest.
    """
    return tuple(key for key in numeric_keys(jobs) if _sets(key, number, jobs))


def numeric_keys(jobs: Sequence[Job]) -> list[str]:
    """Returns the varied options, without seeds, that are a number in every job."""
    return [
        key
        for key in (jobs[0].varied if jobs else ())
        if key not in SEEDS and all(isinstance(job.varied[key], float) for job in jobs)
    ]


def _sets(key: str, number: str, jobs: Sequence[Job]) -> bool:
    numbers: dict[float, list[float]] = {}
    for job in jobs:
        value = job.atoms.get(number)
        if value is None:
            return False
        numbers.setdefault(float(job.varied[key]), []).append(float(value))
    found = [numbers[option] for option in sorted(numbers)]
    rising = all(max(low) < min(high) for low, high in itertools.pairwise(found))
    return len(found) > 1 and rising and max(found[-1]) >= _DRIVES * min(found[0])


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
