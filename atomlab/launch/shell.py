"""The command line's outer shell: a user's mistake ends in one sentence, a bug in its stack trace."""

import contextlib
import logging
import os
import re
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.types import RunMode
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from atomlab.launch.folders import Refused
from atomlab.launch.jobs import JOB, JobFailed, one_process_per_job
from atomlab.launch.options import check_options, did_you_mean, keys_of
from atomlab.launch.ranks import first_has_ended, is_first, of_one_run
from atomlab.launch.signals import Stopped, end_with_parent, ended_by_signals

_TRACE = "HYDRA_FULL_ERROR"
_QUOTES = "\"'"
_MISTAKES = (ValueError, OSError, JobFailed, HydraException, OmegaConfBaseException, MisconfigurationException)


def launch(task: FunctionType, config_path: str, config_name: str) -> None:
    """Composes the configuration from the command line, checks it, and runs `task` on it.

    Exit codes: 2 on a user's mistake, 1 on a crash, 130 after SIGINT and 143 after SIGTERM. ValueError and OSError are
    taken for mistakes of the user (atomlab raises them with a sentence that says what to do), as are Hydra's,
    OmegaConf's and Lightning's own; with HYDRA_FULL_ERROR=1 they show their stack trace. A folder that holds more than
    Hydra's files keeps the stack trace of any failure in its log.

    Args:
        task: from a configuration to an objective or None.
        config_path: of the configuration's folder, seen from the task's file.
        config_name: of the primary configuration.
    """
    wants_trace = bool(os.environ.get(_TRACE))
    _quieten()
    folder = str(Path(task.__code__.co_filename).resolve().parent / config_path)
    mistakes: list[Exception] = []
    guarded = _guarded(one_process_per_job(task), mistakes, os.environ.get(_TRACE))
    if os.environ.get(JOB):
        end_with_parent(grace=None)
    try:
        with ended_by_signals(), of_one_run(), _environment(_TRACE, "1"):  # makes Hydra raise instead of printing
            hydra.main(config_path=folder, config_name=config_name, version_base="1.3")(guarded)()
    except Refused as refusal:
        _end(str(refusal), 2)
    except Stopped as stop:
        _end(stop.sentence or f"stopped by {stop.name} before anything was done.", stop.code)
    except _MISTAKES as error:
        if wants_trace:
            raise
        mistakes.append(error)
    except Exception as error:
        _crash(error)
    if mistakes:
        _end("\natomlab: ".join(_one_sentence(_root_cause(mistake), folder, config_name) for mistake in mistakes), 2)


_NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    "Sparse CSR tensor support is in beta",
    ".*does not have many workers",
    "`broadcast_buffers` is deprecated",  # its successor came with torch 2.12
    ".*smaller than the logging interval",
    "The dirpath has changed from",  # a resumed run writes into its own folder
    "You're resuming from a checkpoint that ended before the epoch ended",  # and the order of its batches goes on
    r"It is recommended to use `self\.log\(.*sync_dist=True",  # what is logged is the same on all processes already
)


def _quieten() -> None:
    """What Lightning and PyTorch say about themselves at every start, and nobody can act on."""
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; the outcome is said in one sentence


@contextlib.contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """A variable as it is meant to be inside, and as it was after."""
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
    task: Callable[[Any], float | None], mistakes: list[Exception], trace: str | None
) -> Callable[[Any], float | None]:
    """Checks the configuration first, and collects a task's mistakes, so that Hydra adds no words of its own and a
    sweep's other jobs go on; a run that left nothing of its own in its folder leaves no folder, unless it crashed.

    Where a launcher runs the jobs in other processes, their mistakes are raised: the list would stay behind there.
    """
    home = os.getpid()

    def run(config: Any) -> float | None:
        folder, name = Path(HydraConfig.get().runtime.output_dir), HydraConfig.get().job.name
        try:
            with _environment(_TRACE, trace):  # a sweep's jobs and further ranks see what the user set
                check_options(config, _defaults(config))
                objective = task(config)
                _remove_empty_run(folder, name)  # of a harvest or a dry run, which leave nothing of their own
                return objective
        except Stopped as stop:
            stop.sentence = stop.sentence or _how_to_go_on(stop.name, folder, name)
            _remove_empty_run(folder, name)
            raise
        except _MISTAKES as error:
            if not _remove_empty_run(folder, name):
                _write_trace(error, folder / f"{name}.log")
            if trace or os.getpid() != home:
                raise
            mistakes.append(error)
            return None
        except Exception as error:
            _write_trace(error, folder / f"{name}.log")
            error.add_note(f"atomlab: this is a fault, not a mistake of yours; it stands in {folder / name}.log too.")
            raise

    return run


def plain(config: DictConfig) -> dict[str, Any]:
    """A configuration as a dictionary, every interpolation resolved."""
    found = OmegaConf.to_container(config, resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def _defaults(config: DictConfig) -> DictConfig:
    """The primary configuration without the user's choices; the composed one if it asks for a choice."""
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


def _is_empty_run(folder: Path, name: str) -> bool:
    own = {f"{name}.log"}
    if HydraConfig.get().mode != RunMode.MULTIRUN:  # a sweep's own process leaves what the job's process wrote
        own.add(".hydra")
    return folder.is_dir() and {entry.name for entry in folder.iterdir()} <= own


def _remove_empty_run(folder: Path, name: str) -> bool:
    """Removes a folder in which there is nothing but what Hydra wrote; whether it did."""
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
    """Shows the stack trace of a fault; a further process is silent if the first one fails too."""
    if is_first() or not first_has_ended():
        traceback.print_exception(error)
    sys.exit(1)


def _end(sentence: str, code: Any) -> None:
    """Says the sentence, once for all processes of a run, and ends this one."""
    if is_first() or (code == 2 and not first_has_ended()):
        sys.stderr.write(f"atomlab: {sentence}\n")
    sys.exit(code)


def _root_cause(error: BaseException) -> BaseException:
    """Hydra wraps what a `_target_` raised, and raises some errors without a word of their own: it is inside."""
    while error.__cause__ is not None and (isinstance(error, InstantiationException) or not str(error)):
        error = error.__cause__
    return error


def _one_sentence(error: BaseException, folder: str, name: str) -> str:
    """The message on one line, without Hydra's hints for its own developers."""
    if unknown := re.match(r"Could not override '([^']+)'", str(error)):
        hint = did_you_mean(unknown[1], keys_of(_chosen(folder, name, unknown[1])))
        return f"There is no key {unknown[1]!r}: {hint}"
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        reason = str(error).partition("\n")[0]
        return f"{error.override} cannot be read ({reason}): put it into both kinds of quotes: \"{key}='{value.strip(_QUOTES)}'\""
    lines: list[str] = []
    for line in map(str.strip, str(error).splitlines()):
        if line.startswith(("Config search path", "full_key:")):
            break
        if line and "HYDRA_FULL_ERROR" not in line and not line.startswith("object_type="):
            lines.append(line)
    return " ".join(lines) or type(error).__name__


def _chosen(folder: str, name: str, unknown: str) -> DictConfig:
    """The configuration with the options that the command line chooses from groups, as far as it can be composed."""
    choices = [word for word in sys.argv[1:] if re.match(r"[\w/@]+=[\w/]+$", word) and not word.startswith(unknown)]
    with initialize_config_dir(folder, version_base="1.3"):
        try:
            return compose(name, choices)
        except HydraException:
            return compose(name)
