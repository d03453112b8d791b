"""A sweep with `bank=true`: its jobs are gathered, and one process trains them all.

The sweep's own process writes the command line of each job into `bank/` of its folder (`gather_job`), and starts one process for
all of them when the sweeper has gone through them (`run_gathered`). That process composes each job from its command
line (`run_members`), and writes down how each of them ended as soon as it has.
"""

import copy
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from atomlab.files import atomic_write
from atomlab.launch.job_environment import environment_of_job
from atomlab.launch.signals import Stopped, wait_and_forward_signals
from atomlab.launch.sweep_folder import forget_interrupted, read_status, status_file, statuses, write_status

FOLDER = "bank"
VARIABLE = "ATOMLAB_BANK"  # of the process that trains a bank: the folder of the sweep
Runner = Callable[[Sequence[Callable[[Any], None]]], None]  # runs tasks in turns; each gets what they share


def check_launcher(config: HydraConf) -> None:
    """Refuses a launcher or sweeper that would run jobs elsewhere, or waits for the result of each job.

    Raises:
        ValueError: it is not Hydra's basic one.
    """
    for group, chosen in (("launcher", config.launcher), ("sweeper", config.sweeper)):
        target = str(chosen.get("_target_", ""))
        if "Basic" not in target:
            raise ValueError(
                f"bank=true trains all jobs of a sweep in one process of this machine, and hydra/{group} is {target}: leave out "
                f"hydra/{group}, or bank."
            )


def gather_job(sweep: Path, number: int, program: Sequence[str], words: Sequence[str]) -> None:
    """Keeps the command line of a job until the whole bank is started: what Python is started with, and the words."""
    with atomic_write(sweep / FOLDER / f"{number}.json") as temporary:
        temporary.write_text(json.dumps({"program": list(program), "words": list(words)}), encoding="utf-8")


def run_gathered(sweep: Path, hydra: HydraConf) -> None:
    """Trains the jobs that were gathered, if any, in one new process, and waits for its end.

    Args:
        sweep: folder of the sweep.
        hydra: Hydra's configuration of the sweep.

    Raises:
        Stopped: a signal came.
    """
    gathered = _commands(sweep)
    if not gathered:
        return
    with tempfile.TemporaryDirectory(prefix="atomlab-bank-") as folder:
        said = Path(folder) / "sentence"
        environment = environment_of_job(hydra, said) | {VARIABLE: str(sweep)}
        program = next(iter(gathered.values()))["program"]
        process = subprocess.Popen([sys.executable, *program], env=environment, process_group=0)
        for number in gathered:
            _change(sweep, number, state="running", process=process.pid)
        code, signal = wait_and_forward_signals(process)
        error = said.read_text(encoding="utf-8") if said.exists() else f"its bank ended with exit code {code}."
    for number, status in statuses(sweep).items():
        if number in gathered and status.state == "running":
            if signal:
                _change(sweep, number, state="stopped", exit_code=code, process=None)
            else:
                _change(sweep, number, state="failed", exit_code=code or 1, error=error, process=None)
    shutil.rmtree(sweep / FOLDER, ignore_errors=True)
    if signal:
        raise Stopped(signal, f"the bank was stopped in {sweep}, and the same command goes on.")


def _commands(sweep: Path) -> dict[int, dict[str, list[str]]]:
    files = sorted((sweep / FOLDER).glob("*.json"), key=lambda file: int(file.stem))
    return {int(file.stem): json.loads(file.read_text(encoding="utf-8")) for file in files}


def _change(sweep: Path, number: int, **changes: Any) -> None:
    file = status_file(sweep, number)
    before = read_status(file)
    assert before is not None
    write_status(file, replace(before, **changes))


@final
class Member:
    """A job of a bank, composed as a run of its own.

    Args:
        number: of the job.
        config: its configuration.
    """

    def __init__(self, number: int, config: DictConfig) -> None:
        self.number, self.config = number, config
        self.hydra = copy.deepcopy(HydraConfig.instance().cfg)
        self.folder = Path(HydraConfig.get().runtime.output_dir)


def compose_members(sweep: Path, folder: str, config_name: str) -> list[Member]:
    """Composes the jobs that were gathered, each as Hydra composes a run: it claims its folder and writes `.hydra`.

    Args:
        sweep: folder of the sweep.
        folder: of the configuration.
        config_name: name of the primary configuration.

    Returns:
        The jobs, by their numbers. The log of each gets the lines of all of them.
    """
    members: list[Member] = []
    for number, command in _commands(sweep).items():

        def keep(config: DictConfig, number: int = number) -> None:
            members.append(Member(number, config))

        sys.argv = [command["program"][-1], *command["words"]]
        hydra.main(config_path=folder, config_name=config_name, version_base="1.3")(keep)()
    for member in members[:-1]:  # Hydra has left the log of the last one
        handler = logging.FileHandler(member.folder / f"{HydraConfig.get().job.name}.log")
        logging.getLogger().addHandler(handler)
    return members


def run_members(
    members: Sequence[Member], sweep: Path, together: Runner, single: Callable[[DictConfig, Any], tuple[Any, int, str]]
) -> int:
    """Runs the jobs of a bank in turns, and writes down how each of them ended.

    Args:
        members: as `compose_members` returns them.
        sweep: folder of the sweep.
        together: runs the jobs.
        single: runs one job with what all share; returns its objective, its exit code and the sentence of its error.

    Returns:
        The exit code of the process: that of a signal, otherwise 0, since each job has its own.
    """
    stopped: list[int] = []

    def task(member: Member) -> Callable[[Any], None]:
        def run(shared: Any) -> None:
            HydraConfig.instance().cfg = member.hydra
            try:
                objective, code, sentence = single(member.config, shared)
            except SystemExit as stop:
                stopped.append(stop.code if isinstance(stop.code, int) else 1)
                raise
            if code:
                _change(sweep, member.number, state="failed", exit_code=code, error=sentence, process=None)
                return
            _change(sweep, member.number, state="finished", exit_code=0, objective=objective, process=None)
            forget_interrupted(sweep, member.number)

        return run

    together([task(member) for member in members])
    return stopped[0] if stopped else 0
