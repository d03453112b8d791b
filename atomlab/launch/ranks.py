"""The processes of one run, whoever started them: Lightning, torchrun or srun. Only the first has a run folder."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator

from atomlab.launch.signals import end_with_parent

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
_OWN = ("hydra.run.dir=", "hydra.output_subdir=", "hydra.job.name=")


def is_first() -> bool:
    """Whether this is the first process of its run, by the variables that Lightning reads."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


@contextlib.contextmanager
def of_one_run() -> Iterator[None]:
    """Gives a further process a folder that is gone when it ends, and ends it when the process that started it ends."""
    if is_first():
        yield
        return
    end_with_parent(grace=5.0)
    words = sys.argv
    with tempfile.TemporaryDirectory(prefix="atomlab-rank-", ignore_cleanup_errors=True) as folder:
        kept = [word for word in words if not word.startswith(_OWN)]
        sys.argv = [*kept, f"hydra.run.dir='{folder}'", "hydra.output_subdir=null"]
        try:
            yield
        finally:
            sys.argv = words


def first_has_ended(within: float = 10.0) -> bool:
    """Whether the process that started this further one ends soon: then it has said itself what went wrong."""
    parent, until = os.getppid(), time.monotonic() + within
    while os.getppid() == parent and time.monotonic() < until:
        time.sleep(0.1)
    return os.getppid() != parent
