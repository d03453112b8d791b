"""Tells a signal that is sent again from one that reaches a process by several ways at once."""

import time
from typing import Literal, final

_REPEATED = 1.0  # seconds: within them a signal is the same one, sent by a terminal, a scheduler or a parent too
_TOGETHER = 0.2  # seconds to wait for it, since Python sees it only after the operation that runs next


@final
class RepeatedSignals:
    """The signals that came to a process, and what one more of them means."""

    def __init__(self) -> None:
        self._first: dict[int, float] = {}  # when each signal came first

    def meaning(self, number: int) -> Literal["first", "together", "again"]:
        """Notes a signal.

        The first one of all waits a fifth of a second, so that those that come with it are handled while it waits.

        Args:
            number: of the signal.

        Returns:
            Whether it is the first signal of all, belongs to those that came, or is one that came more than a second ago
            and was sent again.
        """
        is_first, since = not self._first, self._first.setdefault(number, time.monotonic())
        if is_first:
            time.sleep(_TOGETHER)
            return "first"
        return "again" if time.monotonic() - since > _REPEATED else "together"
