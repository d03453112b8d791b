"""SIGINT and SIGTERM: the first one ends a run in order, a second one at once; a child process ends with its parent."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, final

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN = 1.0  # seconds: a terminal, a scheduler and a parent may each send the same signal


@final
class Stopped(SystemExit):
    """A signal ends the process with exit code 128 + its number, as a shell reports it (130 or 143).

    Args:
        number: of the signal.
        sentence: what is complete and how to go on, if that is known where this is raised.
    """

    def __init__(self, number: int, sentence: str = "") -> None:
        super().__init__(128 + number)
        self.name, self.sentence = signal.Signals(number).name, sentence


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raises `Stopped` at the first SIGINT or SIGTERM; a second one, a second or more later, kills the process.

    Code that must finish something first (a training step) sets handlers of its own while it runs.
    """
    first: list[float] = []

    def end(number: int, frame: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            raise Stopped(number)
        if time.monotonic() - first[0] > _AGAIN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    with _handled_by(end):
        yield


@contextlib.contextmanager
def _handled_by(handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers in the main thread only
        yield
        return
    previous = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def wait_for(job: "subprocess.Popen[bytes]") -> tuple[int, int]:
    """Waits for a child process and hands it the signals that come meanwhile; the third one kills it.

    Returns:
        Its exit code, and the number of the first signal (0: none came).
    """
    came: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 2:
            job.kill()
        else:
            job.terminate()

    with _handled_by(hand_on):
        code = job.wait()
    return code, came[0] if came else 0


def end_with_parent(grace: float | None) -> None:
    """From now on this process gets SIGTERM when its parent is gone, whatever ended the parent.

    Args:
        grace: seconds until the process is killed, for one that hangs without its parent (None: it may take its time).
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
