"""Handles SIGINT, SIGTERM and a scheduler's signals: the first ends a run in order, the same one again ends it at once."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, final

from atomlab.repeated_signals import RepeatedSignals

SIGNALS = (signal.SIGINT, signal.SIGTERM)
OF_SCHEDULER = (signal.SIGUSR1, signal.SIGUSR2)  # Slurm's, before a job's time is over, and submitit's


@final
class Stopped(SystemExit):
    """Ends the process after a signal, with the exit code that a shell reports: 128 + the number of the signal.

    Args:
        number: of the signal.
        sentence: says what is complete and how to go on; empty if that is not known where this is raised.
    """

    def __init__(self, number: int, sentence: str = "") -> None:
        super().__init__(128 + number)
        self.name, self.sentence = signal.Signals(number).name, sentence


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raises `Stopped` inside the block at the first SIGINT, SIGTERM, SIGUSR1 or SIGUSR2.

    The same signal again, more than a second later, kills the process. Code that must first finish something, such as a training
    step, sets handlers of its own while it runs.

    Yields:
        Nothing. The handlers that were set before come back at the end of the block; outside of the main thread none
        are set.

    Raises:
        Stopped: a signal came.
    """
    came = RepeatedSignals()

    def end(number: int, frame: FrameType | None) -> None:
        meaning = came.meaning(number)
        if meaning == "first":
            raise Stopped(number)
        if meaning == "again":
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    with _signal_handler(end, (*SIGNALS, *OF_SCHEDULER)):
        yield


@contextlib.contextmanager
def _signal_handler(handler: Any, signals: Sequence[signal.Signals]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers in the main thread only
        yield
        return
    previous = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def wait_and_forward_signals(job: "subprocess.Popen[bytes]") -> tuple[int, int]:
    """Waits for a child process and forwards signals to it as SIGTERM, those of a scheduler too; the third one kills it.

    Returns:
        The exit code of the process, and the number of the first signal; 0 if none came.
    """
    came: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 2:
            job.kill()
        else:
            job.terminate()

    with _signal_handler(forward, (*SIGNALS, *OF_SCHEDULER)):
        code = job.wait()
    return code, came[0] if came else 0


def hand_on(number: int) -> None:
    """Calls the handler that a launcher's worker has set for a scheduler's signal, if it has one.

    That of submitit requeues the job and ends the process, and with it everything that still runs in the job. So it has to wait
    until the training has saved.

    Args:
        number: of the signal that came.

    Raises:
        SystemExit: as the handler does; not `Stopped`, which our own raises.
    """
    handler = signal.getsignal(number)
    if number in OF_SCHEDULER and callable(handler):
        with contextlib.suppress(Stopped):
            handler(number, None)


def end_with_parent(grace: float | None) -> None:
    """Sends this process SIGTERM when its parent has ended, whatever ended the parent. A thread watches for that.

    Args:
        grace: seconds after the SIGTERM until the process is killed, since it may hang without its parent. None: never.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        if grace is not None:
            time.sleep(grace)
            sys.stderr.flush()
            os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()
