"""Several real processes that train together, forked from the server of `tests.processes`, so that they start at once."""

import os
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.processes import _server


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _work(rank: int, work: Callable[..., None], folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    try:
        work(rank, folder, *arguments)
    except BaseException:
        (folder / f"failed-{rank}").write_text(traceback.format_exc())
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def together(work: Callable[..., None], count: int, folder: Path, *arguments: Any, timeout: float = 240) -> None:
    """Runs `work(rank, folder, *arguments)` in processes that Lightning and gloo take for the ranks of one run.

    Raises:
        AssertionError: one of them failed or did not end, with the stack traces.
    """
    processes = [_server.Process(target=_work, args=(rank, work, folder, arguments)) for rank in range(count)]
    for process in processes:
        process.start()
    until = time.monotonic() + timeout
    while any(process.is_alive() for process in processes) and time.monotonic() < until:
        time.sleep(0.05)
        if any(process.exitcode for process in processes):  # the others would wait for it
            until = min(until, time.monotonic() + 2)
    late = [process for process in processes if process.is_alive()]
    for process in late:
        process.kill()
    for process in processes:
        process.join()
    failed = "\n".join(file.read_text() for file in sorted(folder.glob("failed-*")))
    codes = [process.exitcode for process in processes]
    assert not late, f"{len(late)} did not end\n{failed}"
    assert not any(codes), f"{codes}\n{failed}"
