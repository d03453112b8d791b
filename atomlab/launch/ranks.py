"""Tells the processes of one distributed run apart, whether Lightning, torchrun or srun started them.

Only the first process has a run folder that stays.
"""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from omegaconf import OmegaConf

from atomlab.launch.signals import Stopped, end_with_parent

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
_FOLDER = "hydra.run.dir="
_FIRST = "ATOMLAB_FIRST_FOLDER"  # environment variable of a further process: the run folder of the first one
_FIRST_ONLY = ("hydra.run.dir=", "hydra.output_subdir=", "hydra.job.name=")


def is_first_process() -> bool:
    """Returns whether this is the first process of its run, by the environment variables that Lightning reads."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


@contextlib.contextmanager
def folder_of_further_process() -> Iterator[None]:
    """Gives a process that is not the first one a temporary run folder, by changing its command line inside the block.

    The process also ends when the process that started it ends. After a SystemExit that no signal caused it ends at
    once: others may wait for it, and Python itself takes seconds to end on a busy machine. The first process is left as it is.
    """
    if is_first_process():
        yield
        return
    end_with_parent(grace=5.0)
    words = sys.argv
    try:
        with tempfile.TemporaryDirectory(prefix="atomlab-rank-", ignore_cleanup_errors=True) as folder:
            kept = [word for word in words if not word.startswith(_FIRST_ONLY)]
            for word in words:
                if word.startswith(_FOLDER):  # may refer to a variable of the environment, such as the number of a job
                    os.environ[_FIRST] = OmegaConf.create({"dir": word.removeprefix(_FOLDER).strip("'\"")}).dir
            sys.argv = [*kept, f"hydra.run.dir='{folder}'", "hydra.output_subdir=null"]
            yield
    except SystemExit as end:
        if isinstance(end, Stopped):
            raise
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
    finally:
        sys.argv = words


def folder_of_first_process(own: Path) -> Path:
    """Returns the run folder of the first process, which has the checkpoints.

    Args:
        own: run folder of this process.

    Returns:
        `own` in the first process, and in a further one where the command line names no folder.
    """
    return own if is_first_process() else Path(os.environ.get(_FIRST) or own)


def first_process_ends(within: float = 10.0) -> bool:
    """Waits for the end of the process that started this one, which then has reported the error itself.

    Args:
        within: seconds to wait at most.

    Returns:
        Whether it ended in this time.
    """
    parent, until = os.getppid(), time.monotonic() + within
    while os.getppid() == parent and time.monotonic() < until:
        time.sleep(0.1)
    return os.getppid() != parent
