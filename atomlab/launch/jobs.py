"""One process per multirun job, so that `-m` works with Lightning's launchers and leaks nothing from job to job."""

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

from atomlab.launch.folders import NO_CONFIGURATION
from atomlab.launch.signals import Stopped, wait_for

RESULT_FILE = "objective.txt"
JOB = "ATOMLAB_JOB"  # set in the processes of a sweep's jobs


class JobFailed(Exception):
    """A job of a multirun ended with an error, which it has reported itself."""


_LAUNCHER = ("hydra.mode", "hydra.run", "hydra.sweep", "hydra.launcher", "hydra/launcher", "hydra/sweeper")
_DISTRIBUTED = ("LOCAL_RANK", "NODE_RANK", "RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def one_process_per_job(task: FunctionType) -> Callable[[Any], float | None]:
    """Wraps a Hydra task: a single run is called as it is; a job of a multirun becomes a single run in a fresh process.

    Lightning starts further ranks by repeating the command line; under `-m` each of them would run the sweep again. The
    job's result is read from a file that its first process wrote into its run folder. The job has a process group of its
    own: SIGINT and SIGTERM reach it through this process, which then waits for it.

    Raises:
        JobFailed: the job's process failed; its own message stands above.
        Stopped: a signal came; the job has ended, and no further one starts.
    """
    script = str(Path(task.__code__.co_filename).resolve())  # sys.argv[0] is a worker's under some launchers

    @wraps(task)
    def run(config: Any) -> float | None:
        hydra = HydraConfig.get()
        folder = Path(hydra.runtime.output_dir)
        if hydra.mode != RunMode.MULTIRUN:
            objective = task(config)
            if objective is not None:  # the first process's
                (folder / RESULT_FILE).write_text(repr(objective), encoding="utf-8")
            return objective
        job = subprocess.Popen(
            [sys.executable, script, *_words(hydra, folder)], env=_environment(hydra), process_group=0
        )
        code, number = wait_for(job)
        if number:
            raise Stopped(number, _what_is_left(Path(hydra.sweep.dir), number, hydra))
        if code:
            raise JobFailed(f"Job {hydra.job.num} ({hydra.job.override_dirname}) ended with exit code {code}.")
        result = folder / RESULT_FILE
        return float(result.read_text(encoding="utf-8")) if result.exists() else None

    return run


def _words(hydra: HydraConf, folder: Path) -> list[str]:
    """The command line of a job as a single run: from the same configuration folders, into the folder of the job."""
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
