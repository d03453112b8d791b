"""The command line's outer shell: a user's mistake ends in one sentence, a bug in its stack trace."""

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from atomlab.sweep import JobFailed, one_process_per_job

_TRACE = "HYDRA_FULL_ERROR"
_MISTAKES = (ValueError, OSError, JobFailed, HydraException, OmegaConfBaseException, MisconfigurationException)


def launch(task: FunctionType, config_path: str, config_name: str) -> None:
    """Composes the configuration from the command line and runs `task` on it; exit code 2 on a user's mistake.

    ValueError and OSError are taken for mistakes of the user (atomlab raises them with a sentence that says what to
    do), as are Hydra's, OmegaConf's and Lightning's own; with HYDRA_FULL_ERROR=1 they show their stack trace. Interrupted: 130.

    Args:
        task: from a configuration to an objective or None.
        config_path: of the configuration's folder, seen from the task's file.
        config_name: of the primary configuration.
    """
    wants_trace = bool(os.environ.get(_TRACE))
    os.environ[_TRACE] = "1"  # makes Hydra raise instead of printing
    _quieten()
    folder = str(Path(task.__code__.co_filename).resolve().parent / config_path)
    mistakes: list[Exception] = []
    guarded = _guarded(one_process_per_job(task), mistakes, wants_trace)
    try:
        hydra.main(config_path=folder, config_name=config_name, version_base="1.3")(guarded)()
    except _MISTAKES as error:
        if wants_trace:
            raise
        mistakes.append(error)
    except KeyboardInterrupt:
        _say("interrupted; what is complete is kept, the same command goes on from there.")
        sys.exit(130)
    for mistake in mistakes:
        _say(_one_sentence(_root_cause(mistake)))
    if mistakes:
        sys.exit(2)


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


def _guarded(
    task: Callable[[Any], float | None], mistakes: list[Exception], wants_trace: bool
) -> Callable[[Any], float | None]:
    """Collects a task's mistakes, so that Hydra adds no words of its own and a sweep's other jobs go on; a failed run
    that left nothing of its own in its folder leaves no folder.
    """

    def run(config: Any) -> float | None:
        try:
            return task(config)
        except Exception as error:
            folder = Path(HydraConfig.get().runtime.output_dir)
            if folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {
                ".hydra",
                f"{HydraConfig.get().job.name}.log",
            }:
                discard(folder)
            if wants_trace or not isinstance(error, _MISTAKES):
                raise
            mistakes.append(error)
            return None

    return run


def plain(config: DictConfig) -> dict[str, Any]:
    """A configuration as a dictionary, every interpolation resolved."""
    found = OmegaConf.to_container(config, resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def discard(folder: Path) -> None:
    """Removes the folder of a run that was not meant to leave anything, with the parents that are empty then."""
    shutil.rmtree(folder, ignore_errors=True)
    _remove_empty(folder.parent)


def _say(sentence: str) -> None:
    sys.stderr.write(f"atomlab: {sentence}\n")


def _remove_empty(folder: Path) -> None:
    while folder != Path.cwd() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _root_cause(error: BaseException) -> BaseException:
    """Hydra wraps what a `_target_` raised, and raises some errors without a word of their own: it is inside."""
    while error.__cause__ is not None and (isinstance(error, InstantiationException) or not str(error)):
        error = error.__cause__
    return error


def _one_sentence(error: BaseException) -> str:
    """The message on one line, without Hydra's hints for its own developers."""
    lines: list[str] = []
    for line in map(str.strip, str(error).splitlines()):
        if line.startswith(("Config search path", "full_key:")):
            break
        if line and "HYDRA_FULL_ERROR" not in line and not line.startswith("object_type="):
            lines.append(line)
    text = " ".join(lines) or type(error).__name__
    return (
        f"{text} See the keys in conf/train.yaml, or run with --help."
        if text.startswith("Could not override")
        else text
    )
