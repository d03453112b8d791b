"""Lets several trainings of one process take their steps in turns, on batches that are read once."""

import contextvars
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, final

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor

_END = -1  # what a training asks for when it has taken all its steps


@final
class Lockstep:
    """Runs several tasks in one thread, each of which trains on the same numbered batches.

    Each task is a greenlet: it runs until it asks for a batch (`batches`), and then the next one runs. A batch is handed to
    all tasks that wait for it, in their order, before the next one is read. Tasks may begin at different batches, as trainings
    do that go on from different steps: those that are ahead wait for the others. `wait_for_all` lets a task wait until the
    others have taken all their steps too.

    Each task has a state of PyTorch's global random numbers (on the CPU) of its own, so it draws what it would draw alone.
    """

    def __init__(self) -> None:
        self._turns: list[greenlet] = []
        self._asked: dict[int, int] = {}  # number of the batch that each waiting task wants
        self._random: list[Tensor] = []
        self._read: Callable[[int], Iterable[Tensor]] | None = None
        self._stream: Iterator[Tensor] | None = None
        self._next = 0

    def run(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Runs the tasks to their ends.

        Args:
            tasks: none of them raises an error.
        """
        self._turns = [greenlet(partial(_begin, task)) for task in tasks]
        for turn in self._turns:
            turn.gr_context = contextvars.copy_context()
        self._random = [torch.get_rng_state() for _ in tasks]
        for number in range(len(tasks)):
            self._resume(number, None)
        try:
            while wanted := [batch for batch in self._asked.values() if batch != _END]:
                self._hand_out(min(wanted))
        finally:
            self._close()
        for number in sorted(self._asked):
            self._resume(number, None)

    def batches(self, read: Callable[[int], Iterable[Tensor]], start: int, count: int) -> "TurnsOfTask":
        """Returns the batches of the task that calls this, as a loader.

        Args:
            read: reads the batches from a number on. It is the same for all tasks, and that of the first one is used.
            start: number of the first batch.
            count: number of batches of the whole run.
        """
        self._read = self._read or read
        return TurnsOfTask(self, start, count)

    def wait_for_all(self) -> None:
        """Lets the task that calls this wait until no other one trains any more."""
        self.ask(_END)

    def ask(self, batch: int) -> Any:
        """Waits for a batch by its number, in the task that calls this."""
        task = getcurrent()
        self._asked[self._turns.index(task)] = batch
        assert task.parent is not None
        return task.parent.switch()

    def _hand_out(self, number: int) -> None:
        """Gives a batch to every task that waits for it. Where none has waited for the one before, reading begins anew."""
        assert self._read is not None
        if self._stream is None or self._next != number:
            self._close()
            self._stream, self._next = iter(self._read(number)), number
        try:
            found: Tensor | BaseException | None = next(self._stream, None)
        except Exception as error:  # of every task that reads it
            found = error
        self._next += 1
        for task in sorted(task for task, batch in self._asked.items() if batch == number):
            self._resume(task, found)

    def _resume(self, task: int, value: Any) -> None:
        """Lets a task run until it asks for the next batch or ends, with its own random numbers."""
        outside = torch.get_rng_state()
        torch.set_rng_state(self._random[task])
        self._asked.pop(task, None)
        try:
            self._turns[task].switch(value)
        finally:
            self._random[task] = torch.get_rng_state()
            torch.set_rng_state(outside)

    def _close(self) -> None:
        """Ends the thread that reads ahead."""
        stream, self._stream = self._stream, None
        if stream is not None and hasattr(stream, "close"):
            stream.close()  # type: ignore[attr-defined]


def _begin(task: Callable[[], None], _: object) -> None:
    task()


@final
class TurnsOfTask:
    """The batches of one task of a `Lockstep`, as a loader.

    Args:
        lockstep: hands them out.
        start: number of the first one.
        count: number of batches of the whole run.
    """

    def __init__(self, lockstep: Lockstep, start: int, count: int) -> None:
        self.lockstep, self.start, self.count = lockstep, start, count

    def __len__(self) -> int:
        return self.count  # the whole run, also when resumed

    def __iter__(self) -> Iterator[Tensor]:
        for number in range(self.start, self.count):
            found = self.lockstep.ask(number)
            if isinstance(found, BaseException):
                raise found
            if found is None:
                return
            yield found
