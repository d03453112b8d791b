"""One process per multirun job, so that `-m` works with Lightning's launchers and leaks nothing from job to job."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

RESULT_FILE = "objective.txt"


class JobFailed(Exception):
    """A job of a multirun ended with an error, which it has reported itself."""


_LAUNCHER = ("hydra.mode", "hydra.run", "hydra.sweep", "hydra.launcher", "hydra/launcher", "hydra/sweeper")
_DISTRIBUTED = {"LOCAL_RANK", "NODE_RANK", "RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def one_process_per_job(task: Callable[[Any], float | None]) -> Callable[[Any], float | None]:
    """Wraps a Hydra task: a single run is called as it is; a job of a multirun becomes a single run in a fresh process.

    Lightning starts further ranks by repeating the command line; under `-m` each of them would run the sweep again. The
    job's result is read from a file that its first process wrote into its run folder.

    Raises:
        JobFailed: the job's process failed; its own message stands above.
    """

    @wraps(task)
    def run(config: Any) -> float | None:
        hydra = HydraConfig.get()
        if hydra.mode != RunMode.MULTIRUN:
            objective = task(config)
            if objective is not None:  # the first process's
                (Path(hydra.runtime.output_dir) / RESULT_FILE).write_text(repr(objective), encoding="utf-8")
            return objective
        folder = Path(hydra.runtime.output_dir)
        kept = [word for word in hydra.overrides.hydra if not word.lstrip("+~").startswith(_LAUNCHER)]
        command = [sys.executable, sys.argv[0], f"--config-name={hydra.job.config_name}", *hydra.overrides.task, *kept]
        command += [f"hydra.run.dir={folder}", "hydra.mode=RUN", "hydra/launcher=basic", "hydra/sweeper=basic"]
        environment = {name: value for name, value in os.environ.items() if name not in _DISTRIBUTED}
        environment.setdefault("WANDB_RUN_GROUP", "-".join(Path(hydra.sweep.dir).parts[-2:]))
        finished = subprocess.run(command, env=environment, check=False)
        if finished.returncode:
            raise JobFailed(
                f"Job {hydra.job.num} ({hydra.job.override_dirname}) ended with exit code {finished.returncode}."
            )
        result = folder / RESULT_FILE
        return float(result.read_text(encoding="utf-8")) if result.exists() else None

    return run
