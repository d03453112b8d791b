"""The command line's outer shell: a user's mistake ends in one sentence and leaves nothing behind, a bug in its stack trace."""

import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from atomlab.sweep import one_process_per_job

_TRACE = "HYDRA_FULL_ERROR"


def launch(task: Callable[[Any], float | None], config_path: str, config_name: str) -> None:
    """Composes the configuration from the command line and runs `task` on it.

    ValueError and OSError are taken for mistakes of the user (atomlab raises them with a sentence that says what to do), as are
    Hydra's and OmegaConf's own; with HYDRA_FULL_ERROR=1 they show their stack trace.
    """
    wants_trace = bool(os.environ.get(_TRACE))
    os.environ[_TRACE] = "1"  # makes Hydra raise instead of printing
    logging.getLogger("hydra").setLevel(logging.WARNING)
    job = hydra.main(config_path=config_path, config_name=config_name, version_base="1.3")(_tidy(one_process_per_job(task)))
    try:
        job()
    except (ValueError, OSError, RuntimeError, HydraException, OmegaConfBaseException) as error:
        cause = _root_cause(error)
        if wants_trace or not _is_mistake(cause):
            raise
        print(f"atomlab: {_one_sentence(cause)}", file=sys.stderr)  # noqa: T201  # the command line's own voice
        sys.exit(2)


def _tidy(task: Callable[[Any], float | None]) -> Callable[[Any], float | None]:
    """Removes the run folder that Hydra made if a failed run left nothing of its own in it."""

    def run(config: Any) -> float | None:
        try:
            return task(config)
        except Exception:
            folder = Path(HydraConfig.get().runtime.output_dir)
            name = f"{HydraConfig.get().job.name}.log"
            logging.shutdown()
            if folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {".hydra", name}:
                shutil.rmtree(folder)
                _remove_empty(folder.parent)
            raise

    run.__module__ = task.__module__
    return run


def _remove_empty(folder: Path) -> None:
    while folder != Path.cwd() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _root_cause(error: BaseException) -> BaseException:
    """Hydra wraps what a `_target_` raised; the user's sentence is inside."""
    while isinstance(error, HydraException) and isinstance(error.__cause__, ValueError | OSError | RuntimeError):
        error = error.__cause__
    return error


def _is_mistake(error: BaseException) -> bool:
    return isinstance(error, ValueError | OSError | HydraException | OmegaConfBaseException) or "ended with exit code" in str(error)


def _one_sentence(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "HYDRA_FULL_ERROR" not in line]
    lines = [line for line in lines if not line.startswith(("full_key:", "object_type=", "To append"))]
    return " ".join(lines) or type(error).__name__
