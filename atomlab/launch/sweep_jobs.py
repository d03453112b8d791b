"""Runs each job of a sweep (`-m`) in a process of its own.

So sweeps work with Lightning's launchers, and nothing leaks from job to job.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import FunctionType
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import RunMode

from atomlab.launch.run_folders import NO_CONFIGURATION
from atomlab.launch.signals import Stopped, wait_and_forward_signals

RESULT_FILE = "objective.txt"
JOB = "ATOMLAB_JOB"  # environment variable that is set in the process of a job


class JobFailed(Exception):
    """A job of a sweep ended with an error, which it has reported itself."""


_LAUNCHER = ("hydra.mode", "hydra.run", "hydra.sweep", "hydra.launcher", "hydra/launcher", "hydra/sweeper")
_DISTRIBUTED = ("LOCAL_RANK", "NODE_RANK", "RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def one_process_per_job(task: FunctionType) -> Callable[[Any], float | None]:
    """Wraps a task of Hydra so that a job of a sweep becomes a single run in a new process.

    Lightning starts further ranks by repeating the command line, and under `-m` each of them would run the whole sweep
    again. The objective of the job is read from a file that its first process wrote into its run folder. The job has a
    process group of its own, so SIGINT and SIGTERM reach it through this process only, which then waits for it.

    Args:
        task: maps a configuration to an objective, or to None. A single run calls it directly.

    Returns:
        The wrapped task. It raises JobFailed if the process of the job failed, and Stopped if a signal came: then the job
        has ended, and no further job starts.
    """
    script = str(
        Path(task.__code__.co_filename).resolve()
    )  # under some launchers sys.argv[0] is their own worker's script

    @wraps(task)
    def run(config: Any) -> float | None:
        hydra = HydraConfig.get()
        folder = Path(hydra.runtime.output_dir)
        if hydra.mode != RunMode.MULTIRUN:
            objective = task(config)
            if objective is not None:  # of the first process; the others return None
                (folder / RESULT_FILE).write_text(repr(objective), encoding="utf-8")
            return objective
        job = subprocess.Popen(
            [sys.executable, script, *_command_line(hydra, folder)], env=_environment(hydra), process_group=0
        )
        code, number = wait_and_forward_signals(job)
        if number:
            raise Stopped(number, _what_is_left(Path(hydra.sweep.dir), number, hydra))
        if code:
            raise JobFailed(f"Job {hydra.job.num} ({hydra.job.override_dirname}) ended with exit code {code}.")
        result = folder / RESULT_FILE
        return float(result.read_text(encoding="utf-8")) if result.exists() else None

    return run


def _command_line(hydra: HydraConf, folder: Path) -> list[str]:
    """Returns the command line of a job as a single run, with the same configuration folders and the job's own folder."""
    sources = {source.provider: source.path for source in hydra.runtime.config_sources}
    words = [f"--config-path={sources['main']}", f"--config-name={hydra.job.config_name}"]
    if "command-line" in sources:
        words.append(f"--config-dir={sources['command-line']}")
    own = [word for word in hydra.overrides.hydra if not word.lstrip("+~").startswith(_LAUNCHER)]
    words += [*hydra.overrides.task, *(word for word in own if word != NO_CONFIGURATION)]
    quoted = QuotedString(str(folder), Quote.single).with_quotes()
    return [*words, f"hydra.run.dir={quoted}", "hydra.mode=RUN", "hydra/launcher=basic", "hydra/sweeper=basic"]


def _environment(hydra: HydraConf) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _DISTRIBUTED and not name.startswith("TORCHELASTIC_")
    }
    kept.setdefault("WANDB_RUN_GROUP", "-".join(Path(hydra.sweep.dir).parts[-2:]))
    return kept | {JOB: "1"}


def _what_is_left(sweep: Path, number: int, hydra: HydraConf) -> str:
    complete = sorted(str(result.parent.relative_to(sweep)) for result in sweep.rglob(RESULT_FILE))
    return (
        f"the sweep was stopped in job {hydra.job.num}, and no further job starts; complete in {sweep}: "
        f"{', '.join(complete) or 'none'}."
    )
