"""Runs each job of a sweep (`-m`) in a process of its own, once, and writes down how it ended.

So sweeps work with Lightning's launchers, nothing leaks from job to job, and every launcher of Hydra ends alike.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from atomlab.launch.bank import check_launcher, gather_job
from atomlab.launch.job_environment import environment_of_job
from atomlab.launch.run_folders import NO_CONFIGURATION
from atomlab.launch.signals import Stopped, hand_on, wait_and_forward_signals
from atomlab.launch.sweep_folder import (
    JobStatus,
    forget_interrupted,
    quoted,
    read_status,
    set_aside,
    status_file,
    statuses,
    wait_for_end,
    write_status,
)

RESULT_FILE = "objective.txt"

_LAUNCHER = ("hydra.mode", "hydra.run", "hydra.sweep", "hydra.launcher", "hydra/launcher", "hydra/sweeper")


def run_job(config: DictConfig, program: Sequence[str], mistake_in: Callable[[DictConfig], str | None]) -> float | None:
    """Runs a job of a sweep as a single run in a new process, unless it is finished already.

    Lightning starts further ranks by repeating the command line, and under `-m` each of them would run the whole sweep
    again. The job has a process group of its own, so SIGINT and SIGTERM reach it through this process only, which then waits
    for it. A job that was interrupted goes on from its last checkpoint, or in its folder if that is what its folder is for
    (`ClaimFolder.goes_on`). With `bank=true` it waits for the other jobs here (`atomlab.launch.bank`). A job that fails is
    written down as failed and fails alone, whichever launcher called this function.

    Args:
        config: of the job, as Hydra composed it.
        program: what Python is started with to run the task: the path of its script, or `-m` and its module. Under some
            launchers `sys.argv[0]` is their own worker's.
        mistake_in: returns what is wrong with a configuration, in one sentence, or None.

    Returns:
        The objective; None where the job has none, or failed.

    Raises:
        Stopped: a signal came. The job has ended, and no further job starts.
        SystemExit: the same, where the launcher's worker has requeued the job.
        ValueError: the folder of the sweep has another job of this number, or a damaged status.
    """
    hydra = HydraConfig.get()
    sweep, number, run = Path(hydra.sweep.dir), int(hydra.job.num), Path(hydra.runtime.output_dir)
    words, file = tuple(hydra.overrides.task), status_file(sweep, number)
    before = read_status(file)
    if before is not None and before.overrides != words:
        raise ValueError(
            f"{sweep} has a job {number} with {' '.join(before.overrides)}, and now it has {' '.join(words)}: give a new "
            "folder with hydra.sweep.dir=..."
        )
    if before is not None and before.state == "finished":
        return before.objective
    if mistake := mistake_in(config):
        write_status(file, JobStatus(words, "failed", 2, error=mistake))
        return None
    if config.get("bank"):
        check_launcher(hydra)
    checkpoint = None
    if before is not None:
        wait_for_end(before)
        if not (hydra.callbacks.get("folder") or {}).get("goes_on", False):  # a study goes on in its own folder
            checkpoint = set_aside(run, sweep, number)
    resume = [] if checkpoint is None or "resume" not in config else [f"resume={quoted(checkpoint)}"]
    words_of_job = [*_command_line(hydra, run), *resume]
    if config.get("bank"):  # it is trained with the others when the sweep has come to its end
        write_status(file, JobStatus(words, "waiting"))
        gather_job(sweep, number, program, words_of_job)
        return None
    with tempfile.TemporaryDirectory(prefix="atomlab-job-") as folder:
        said = Path(folder) / "sentence"
        job = subprocess.Popen(
            [sys.executable, *program, *words_of_job], env=environment_of_job(hydra, said), process_group=0
        )
        write_status(file, JobStatus(words, "running", process=job.pid))
        code, signal = wait_and_forward_signals(job)
        error = said.read_text(encoding="utf-8") if said.exists() else None
    if signal:
        write_status(file, JobStatus(words, "stopped", code))
        hand_on(signal)
        raise Stopped(signal, _what_is_left(sweep, number))
    if code:
        write_status(file, JobStatus(words, "failed", code, error=error or f"it ended with exit code {code}."))
        return None
    result = run / RESULT_FILE
    objective = float(result.read_text(encoding="utf-8")) if result.exists() else None
    write_status(file, JobStatus(words, "finished", 0, objective))
    forget_interrupted(sweep, number)
    return objective


def _command_line(hydra: HydraConf, folder: Path) -> list[str]:
    """Returns the command line of a job as a single run, with the same configuration folders and the job's own folder."""
    sources = {source.provider: source.path for source in hydra.runtime.config_sources}
    words = [f"--config-path={sources['main']}", f"--config-name={hydra.job.config_name}"]
    if "command-line" in sources:
        words.append(f"--config-dir={sources['command-line']}")
    own = [word for word in hydra.overrides.hydra if not word.lstrip("+~").startswith(_LAUNCHER)]
    words += [*hydra.overrides.task, *(word for word in own if word != NO_CONFIGURATION)]
    return [*words, f"hydra.run.dir={quoted(folder)}", "hydra.mode=RUN", "hydra/launcher=basic", "hydra/sweeper=basic"]


def _what_is_left(sweep: Path, number: int) -> str:
    complete = [str(job) for job, status in statuses(sweep).items() if status.state == "finished"]
    return (
        f"the sweep was stopped in job {number}, and no further job starts; finished in {sweep}: jobs "
        f"{', '.join(complete) or 'none'}. The same command goes on."
    )
