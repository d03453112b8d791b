"""Keeps SIGINT, SIGTERM and a scheduler's signals while steps of a training are under way, so that each can be finished."""

import os
import signal
import threading
from types import FrameType
from typing import Any, final

from atomlab.repeated_signals import RepeatedSignals

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@final
class StopSignals:
    """The number of the first SIGINT, SIGTERM, SIGUSR1 or SIGUSR2 that came while trainings of this process were under way.

    Several trainings of one process share one of these. The same signal again, more than a second later, does what it did
    before the first of them began. Outside of the main thread nothing is handled, since Python allows handlers there only.

    Attributes:
        asked: number of the first signal; 0 if none came.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.came = RepeatedSignals()
        self.previous: dict[int, Any] = {}
        self.trainings: set[int] = set()

    def enter(self, training: object) -> None:
        """Notes that a training begins. With the first one, the handlers that are set now are remembered."""
        if not self.trainings:
            self.previous = {number: signal.getsignal(number) for number in _SIGNALS}
        self.trainings.add(id(training))

    def listen(self) -> None:
        """Sets the handlers."""
        _handle(dict.fromkeys(self.previous, self._ask))

    def leave(self, training: object) -> None:
        """Notes that a training is over, as often as it is called. After the last one the handlers before come back."""
        self.trainings.discard(id(training))
        if self.trainings:
            self.listen()  # Lightning has set others at the end of this training
        else:
            _handle(self.previous)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        meaning = self.came.meaning(number)
        if meaning == "first":
            self.asked = number
        elif meaning == "again":
            signal.signal(number, self.previous[number])
            os.kill(os.getpid(), number)


def _handle(handlers: dict[int, Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)
