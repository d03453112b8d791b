"""Starts a task from the command line: a mistake of the user ends in one sentence, a fault of the program in its stack trace."""

import contextlib
import logging
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import hydra
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from atomlab.launch.bank import VARIABLE, Runner, compose_members, run_members
from atomlab.launch.error_sentences import full_disk, one_sentence
from atomlab.launch.help import help_text, program_name
from atomlab.launch.job_environment import JOB, python_path
from atomlab.launch.options import check_options
from atomlab.launch.own_options import with_own_options
from atomlab.launch.ranks import first_process_ends, folder_of_further_process, is_first_process
from atomlab.launch.run_folders import FolderRefused, SweepEnded, resumed_sweep
from atomlab.launch.signals import Stopped, end_with_parent, ended_by_signals
from atomlab.launch.sweep_folder import register_name_of_sweep
from atomlab.launch.sweep_jobs import RESULT_FILE, run_job
from atomlab.progress import shows_progress

_TRACE = "HYDRA_FULL_ERROR"


def _mistakes() -> tuple[type[Exception], ...]:
    """The types of errors that users cause. That of Lightning is among them once a task has imported it, which takes seconds."""
    of_lightning = sys.modules.get("lightning.fabric.utilities.exceptions")
    own = () if of_lightning is None else (of_lightning.MisconfigurationException,)
    return (ValueError, OSError, HydraException, OmegaConfBaseException, *own)


def launch(
    task: FunctionType,
    config_path: str,
    config_name: str,
    *,
    module: str | None = None,
    after_sweep: Callable[[Path], str] | None = None,
    together: Runner | None = None,
) -> None:
    """Composes the configuration from the command line, checks it, and runs a task on it.

    The exit code is 2 after a mistake of the user, 1 after a fault of the program, 130 after SIGINT, 143 after SIGTERM,
    138 after SIGUSR1 and 140 after SIGUSR2.
    ValueError and OSError count as mistakes of the user, since atomlab raises them with a sentence that says what to do.
    So do the errors of Hydra and OmegaConf, and Lightning's own exception for a wrong configuration. With
    HYDRA_FULL_ERROR=1 they show their stack trace. The log in the run folder keeps the stack trace of every failure,
    unless the folder has nothing but Hydra's files and is removed.

    Args:
        task: maps a configuration to an objective, or to None.
        config_path: path of the configuration's folder, whole or relative to the file of the task.
        config_name: name of the primary configuration.
        module: that runs the task as `python -m`, for the jobs of a sweep; None runs the file of the task.
        after_sweep: called with the folder of a sweep when all its jobs have ended; returns text to print.
        together: runs the jobs of a sweep with `bank=true` in turns. The task gets what they share as a second argument.
    """
    wants_trace = bool(os.environ.get(_TRACE))
    _quieten()
    folder = str(Path(task.__code__.co_filename).resolve().parent / config_path)
    mistakes: list[Exception] = []
    # The file of the task, as seen from here: a launcher's worker may run in another folder.
    program = ["-m", module] if module else [str(Path(task.__code__.co_filename).resolve())]
    guarded = _guarded(task, mistakes, folder, program)
    register_name_of_sweep()
    if {"--help", "-h"} & {*sys.argv[1:]}:
        sys.stdout.write(help_text(Path(folder), config_name, program_name(config_name)))
        return
    if os.environ.get(JOB):
        end_with_parent(grace=None)
    try:
        sys.argv = [*sys.argv[:1], *with_own_options(resumed_sweep(sys.argv[1:]), Path(folder))]
        # Hydra raises, prints nothing; launchers' workers find a checkout.
        traced, found = _environment(_TRACE, "1"), _environment("PYTHONPATH", python_path() or None)
        with ended_by_signals(), folder_of_further_process(), traced, found:
            if together is not None and (sweep := os.environ.get(VARIABLE)):
                members = compose_members(Path(sweep), folder, config_name)
                sys.exit(run_members(members, Path(sweep), together, _in_bank(task, folder)))
            hydra.main(config_path=folder, config_name=config_name, version_base="1.3")(guarded)()
    except FolderRefused as refusal:
        _end(str(refusal), 2)
    except SweepEnded as end:
        _after(end, after_sweep)
    except Stopped as stop:
        _end(stop.sentence or f"stopped by {stop.name} before anything was done.", stop.code)
    except _mistakes() as error:
        if wants_trace:
            raise
        mistakes.append(error)
    except Exception as error:
        _crash(error)
    if mistakes:
        _end("\natomlab: ".join(one_sentence(mistake, folder, config_name) for mistake in mistakes), 2)


def _after(end: SweepEnded, after_sweep: Callable[[Path], str] | None) -> None:
    """Prints what a sweep found and which of its jobs failed; ends this process where some did."""
    if after_sweep is not None:
        try:
            if text := after_sweep(end.folder):
                sys.stdout.write(f"{text}\n")
        except (ValueError, OSError) as error:  # the jobs are done, and each has its own table
            sys.stderr.write(f"atomlab: the tables of the sweep could not be put together: {error}\n")
    if end.sentence:
        _end(end.sentence, end.code)


_NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    "Sparse CSR tensor support is in beta",
    ".*does not have many workers",
    "`broadcast_buffers` is deprecated",  # the option that replaces it came with torch 2.12
    ".*smaller than the logging interval",
    "The dirpath has changed from",  # a resumed run writes into its own folder
    "You're resuming from a checkpoint that ended before the epoch ended",  # the order of the batches is resumed too
    r"It is recommended to use `self\.log\(.*sync_dist=True",  # what is logged is already the same on all processes
)


def _quieten() -> None:
    """Silences what Lightning, PyTorch and the hub's client say at every start and no user can act on."""
    logging.raiseExceptions = False  # a log file on a full disk is no reason for a stack trace
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    if not shows_progress():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # its bars go into log files too
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; an error is reported in one sentence


@contextlib.contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """Sets an environment variable inside the block (None removes it), and restores it afterwards."""
    before = os.environ.get(name)
    _set(name, value)
    try:
        yield
    finally:
        _set(name, before)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _guarded(
    task: FunctionType, mistakes: list[Exception], folder: str, program: list[str]
) -> Callable[[Any], float | None]:
    """Wraps a task so that the configuration is checked first and mistakes of the user are collected.

    Collected mistakes are not raised, so Hydra adds no words of its own. A run that left nothing of its own in its folder
    leaves no folder, unless the program was at fault. A job of a sweep becomes a single run in a new process (`run_job`).
    """
    trace = os.environ.get(_TRACE)

    def mistake_in(config: Any) -> str | None:
        try:
            check_options(config, _defaults(config))
        except _mistakes() as error:
            return one_sentence(error, folder, str(HydraConfig.get().job.config_name))
        return None

    def single(config: Any) -> float | None:
        run, name = Path(HydraConfig.get().runtime.output_dir), HydraConfig.get().job.name
        try:
            with _environment(_TRACE, trace):  # further ranks get what the user set
                check_options(config, _defaults(config))
                objective = task(config)
                if objective is not None:  # of the first process; the others return None
                    (run / RESULT_FILE).write_text(repr(objective), encoding="utf-8")
                _remove_empty_run(run, name)  # a harvest or a dry run leaves nothing of its own in it
                return objective
        except Stopped as stop:
            stop.sentence = stop.sentence or _how_to_go_on(stop.name, run, name)
            _remove_empty_run(run, name)
            raise
        except _mistakes() as error:
            if not _remove_empty_run(run, name):
                _write_trace(error, run / f"{name}.log")
            if trace:
                raise
            mistakes.append(_about_run(error, run))
            return None
        except Exception as error:
            _write_trace(error, run / f"{name}.log")
            error.add_note(f"atomlab: this is a fault, not a mistake of yours; it stands in {run / name}.log too.")
            raise

    def run(config: Any) -> float | None:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            return single(config)
        job, name = Path(HydraConfig.get().runtime.output_dir), HydraConfig.get().job.name
        try:
            with _environment(_TRACE, trace):  # jobs of a sweep get what the user set
                return run_job(config, program, mistake_in)
        finally:
            _remove_empty_run(job, name)

    return run


def _in_bank(task: FunctionType, folder: str) -> Callable[[DictConfig, Any], tuple[float | None, int, str]]:
    """Wraps a task so that a failure in a bank becomes an exit code and a sentence, and the other jobs go on."""

    def single(config: DictConfig, shared: Any) -> tuple[float | None, int, str]:
        run, name = Path(HydraConfig.get().runtime.output_dir), HydraConfig.get().job.name
        config_name = str(HydraConfig.get().job.config_name)
        try:
            objective = task(config, shared)
            if objective is not None:
                (run / RESULT_FILE).write_text(repr(objective), encoding="utf-8")
            _remove_empty_run(run, name)
            return objective, 0, ""
        except _mistakes() as error:
            if not _remove_empty_run(run, name):
                _write_trace(error, run / f"{name}.log")
            return None, 2, one_sentence(_about_run(error, run), folder, config_name)
        except Exception as error:
            _write_trace(error, run / f"{name}.log")
            traceback.print_exception(error)
            return None, 1, "".join(traceback.format_exception_only(error)).strip()

    return single


def plain(config: DictConfig) -> dict[str, Any]:
    """Converts a configuration into plain dictionaries and lists, with every interpolation resolved."""
    found = OmegaConf.to_container(config, resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def _defaults(config: DictConfig) -> DictConfig:
    """Composes the primary configuration without the user's overrides; returns the user's if that needs a choice."""
    try:
        return compose(HydraConfig.get().job.config_name)
    except HydraException:
        return config


def _how_to_go_on(signal: str, folder: Path, name: str) -> str:
    last = folder / "checkpoints" / "last.ckpt"
    if last.exists():
        return f"stopped by {signal}; go on with resume={last}"
    if _is_empty_run(folder, name):
        return (
            f"stopped by {signal} before anything was trained; complete files of the harvest stay in the cache, and the "
            "same command goes on from there."
        )
    return f"stopped by {signal}; what is complete stays in {folder}."


def _about_run(error: Exception, folder: Path) -> Exception:
    """Puts the error of a full disk into words that name the checkpoint to go on from, if there is one."""
    last = folder / "checkpoints" / "last.ckpt"
    sentence = full_disk(error, f"go on with resume={last}") if last.exists() else None
    return error if sentence is None else OSError(sentence)


def _is_empty_run(folder: Path, name: str) -> bool:
    own = {f"{name}.log"}
    if HydraConfig.get().mode != RunMode.MULTIRUN:  # in a sweep `.hydra` is what the job's own process wrote
        own.add(".hydra")
    return folder.is_dir() and {entry.name for entry in folder.iterdir()} <= own


def _remove_empty_run(folder: Path, name: str) -> bool:
    """Removes a folder that holds nothing but Hydra's files, and the empty folders above it; returns whether it did."""
    if not _is_empty_run(folder, name):
        return False
    shutil.rmtree(folder)
    above = folder.parent
    while above != Path.cwd() and above.is_dir() and not any(above.iterdir()):
        above.rmdir()
        above = above.parent
    return True


def _write_trace(error: Exception, log: Path) -> None:
    with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as stream:
        traceback.print_exception(error, file=stream)


def _crash(error: Exception) -> None:
    """Shows the stack trace of a fault; a further process stays silent if the first one ends too."""
    _tell_the_sweep("".join(traceback.format_exception_only(error)).strip())
    if is_first_process() or not first_process_ends():
        traceback.print_exception(error)
    sys.exit(1)


def _end(sentence: str, code: Any) -> None:
    """Prints the sentence once for all processes of a run, and ends this process."""
    _tell_the_sweep(sentence)
    if is_first_process() or (code == 2 and not first_process_ends()):
        sys.stderr.write(f"atomlab: {sentence}\n")
    sys.exit(code)


def _tell_the_sweep(sentence: str) -> None:
    """Hands the closing sentence of a job's first process to the sweep that started it."""
    if (file := os.environ.get(JOB)) and is_first_process():
        with contextlib.suppress(OSError):
            Path(file).write_text(sentence, encoding="utf-8")
