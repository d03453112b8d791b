"""The folder of a sweep: its name, and one status file for each job, from which the sweep ends and goes on.

multirun/<name>/                what the sweep varies, and a digest of all its words
    multirun.yaml               the configuration that the sweep was started with
    jobs/0.json                 status of job 0: its words, state, exit code, objective, error
    0/                          the run folder of job 0
    bank/                       the command lines of a bank's jobs, until its process has ended
    interrupted/0/              what job 0 had done when it was interrupted, until it is finished
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final, get_args

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import OmegaConf

from atomlab.files import atomic_write, regular

State = Literal["waiting", "running", "stopped", "failed", "finished"]
FOLDER = "jobs"
_INTERRUPTED = "interrupted"
_NAME_LENGTH = 60


@final
@dataclass(frozen=True)
class JobStatus:
    """What is known of a job of a sweep.

    Attributes:
        overrides: the words of its command line, without those of Hydra.
        state: `waiting` for the others of its bank, `running` (also of a job whose process was killed), `stopped` by a
            signal, `failed` or `finished`.
        exit_code: of its process; None while it runs.
        objective: what the job returned; None before its end, and for a task without an objective.
        error: the sentence with which a failed job ended.
        process: number of the process of a running job.
    """

    overrides: tuple[str, ...]
    state: State
    exit_code: int | None = None
    objective: float | None = None
    error: str | None = None
    process: int | None = None


def status_file(sweep: Path, number: int) -> Path:
    """Returns where the status of a job lies."""
    return sweep / FOLDER / f"{number}.json"


def write_status(file: Path, status: JobStatus) -> None:
    """Writes the status of a job, whole or not at all."""
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(status), indent=1) + "\n", encoding="utf-8")


def read_status(file: Path) -> JobStatus | None:
    """Reads the status of a job.

    Args:
        file: as `status_file` returns it.

    Returns:
        The status, or None where the job was never started.

    Raises:
        ValueError: the file is damaged.
    """
    if not file.exists():
        return None
    try:
        found = json.loads(regular(file).read_text(encoding="utf-8"))
        status = JobStatus(**{**found, "overrides": tuple(found["overrides"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{file} is damaged ({error}): remove it, and the job runs again.") from error
    if status.state not in get_args(State):
        raise ValueError(f"{file} has the unknown state {status.state}: remove it, and the job runs again.")
    return status


def statuses(sweep: Path) -> dict[int, JobStatus]:
    """Reads the status of every job of a sweep that was started, by its number."""
    files = [file for file in (sweep / FOLDER).glob("*.json") if file.stem.isdecimal()]
    numbers = sorted(int(file.stem) for file in files)
    found = {number: read_status(status_file(sweep, number)) for number in numbers}
    return {number: status for number, status in found.items() if status is not None}


def failures(sweep: Path) -> tuple[str, int]:
    """Says which jobs of a sweep failed.

    Args:
        sweep: its folder.

    Returns:
        A sentence that names each failed job with its words and its own error, and the exit code of the sweep: 2 if all of
        them were mistakes of the user, otherwise 1. An empty sentence and 0 if none failed.
    """
    every = statuses(sweep)
    failed = {number: status for number, status in every.items() if status.state == "failed"}
    if not failed:
        return "", 0
    said = [f"{len(failed)} of {len(every)} jobs failed; the same command runs them again and skips finished ones."]
    said += [f"job {number} ({varied(every, number)}): {status.error}" for number, status in failed.items()]
    return "\n  ".join(said), 2 if all(status.exit_code == 2 for status in failed.values()) else 1


def varied(every: dict[int, JobStatus], number: int) -> str:
    """Returns the words of a job that not all jobs of the sweep have, or all its words where it is alone."""
    shared = set.intersection(*(set(status.overrides) for status in every.values())) if len(every) > 1 else set()
    return " ".join(word for word in every[number].overrides if word not in shared)


def wait_for_end(status: JobStatus, seconds: float = 60.0) -> None:
    """Waits for the process of a job whose sweep was killed: it saves its checkpoint and ends by itself.

    Args:
        status: of the job, as the killed sweep left it.
        seconds: to wait at most; the number may be that of another machine's process, or used again.
    """
    until = time.monotonic() + seconds
    while status.state == "running" and status.process is not None and time.monotonic() < until:
        try:
            os.kill(status.process, 0)
        except OSError:
            return
        time.sleep(0.2)


def set_aside(run: Path, sweep: Path, number: int) -> Path | None:
    """Makes room for a job that was interrupted, and keeps what it had done.

    A run folder is never written into twice. With a checkpoint in it the folder is moved to `interrupted/`; without one there
    is nothing to go on from, and it is removed.

    Args:
        run: the run folder of the job.
        sweep: the folder of the sweep.
        number: of the job.

    Returns:
        The checkpoint to go on from; None where there is none.
    """
    kept = sweep / _INTERRUPTED / str(number)
    if _last(run).exists():
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        run.rename(kept)
    elif run.exists():
        shutil.rmtree(run)
    return _last(kept) if _last(kept).exists() else None


def forget_interrupted(sweep: Path, number: int) -> None:
    """Removes what an interrupted job had done, once it is finished."""
    shutil.rmtree(sweep / _INTERRUPTED / str(number), ignore_errors=True)
    with contextlib.suppress(OSError):  # another job's may still be there
        (sweep / _INTERRUPTED).rmdir()


def content_of_sweep(words: Sequence[str], params: Any) -> list[str]:
    """Returns all that a sweep was told, in an order that does not depend on how it was written.

    Args:
        words: of the command line, without those of Hydra.
        params: what the sweep varies beside them, as a preset of conf/sweep has it; a mapping, or None.

    Returns:
        `key=value` of each of `params`, and the words.
    """
    varied = [f"{key}={value}" for key, value in (params or {}).items()]
    return [*sorted(varied), *sorted(words)]


def quoted(path: Path) -> str:
    """Returns a path as a value that Hydra reads, whatever characters it has."""
    return QuotedString(str(path), Quote.single).with_quotes()


def name_of_sweep(words: Sequence[str], params: Any, job: str) -> str:
    """Names the folder of a sweep by what it is, so that the same command finds the same folder again.

    Args:
        words: of the command line, without those of Hydra.
        params: what the sweep varies beside them, as a preset of conf/sweep has it.
        job: name of the script, such as train.

    Returns:
        What is varied, shortened to a name of a folder, and 8 digits of the SHA-256 of all of it.
    """
    content = json.dumps([*content_of_sweep(words, params), job])
    shown = [word for word in words if re.match(r"[^=]+=[^\[{(\"']*,", word) or word.startswith("sweep=")] or [job]
    readable = re.sub(r"[^\w.=,+-]+", "_", " ".join(shown))[:_NAME_LENGTH]
    return f"{readable}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def register_name_of_sweep() -> None:
    """Makes `name_of_sweep` known to OmegaConf, for hydra.sweep.dir.

    The name is computed once, from the words of the sweep: Hydra hands what is cached on to the configurations of the jobs,
    whose own words would give other names.
    """
    OmegaConf.register_new_resolver("name_of_sweep", name_of_sweep, use_cache=True, replace=True)


def _last(run: Path) -> Path:
    return run / "checkpoints" / "last.ckpt"
