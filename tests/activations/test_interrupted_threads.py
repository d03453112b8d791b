"""A signal's handler may raise between any two operations of Python; no thread waits for ever after that.

`sys.settrace` raises before one operation of the interrupted code, and each test does so before every one of them in turn.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

import torch

from atomlab.activations.batches.background import Background
from atomlab.activations.bounded_queue import BoundedQueue
from atomlab.activations.harvest.harvester import ShardWriter
from atomlab.activations.harvest.shards import Shard
from atomlab.activations.model.sites import HookPoint

WITHIN = 10.0  # seconds: a thread that takes longer waits for ever


class Interrupted(BaseException):
    """What the handler of a signal raises."""


def interrupted_at(number: int, work: Callable[[], Any]) -> bool:
    """Raises before the given operation of `work`, counted from 0; returns whether it has so many."""
    left = [number]

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode":
            if left[0] == 0:
                sys.settrace(None)
                frame.f_trace = None
                left[0] = -1
                raise Interrupted
            left[0] -= 1
        return trace if left[0] >= 0 else None

    sys.settrace(trace)
    try:
        work()
    except Interrupted:
        return True
    finally:
        sys.settrace(None)
    return False


def ends(work: Callable[[], Any]) -> Any:
    """What `work` returns, in a thread of its own, so that a test which would wait for ever fails."""
    found: list[Any] = []
    thread = Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(WITHIN)
    assert not thread.is_alive(), "waits for ever"
    return found[0]


def every_operation(attempt: Callable[[int], bool]) -> int:
    """Attempts it at each operation in turn; returns how many there are."""
    number = 0
    while ends(partial(attempt, number)):
        number += 1
    return number


def test_a_writer_ends_wherever_its_producer_was_interrupted(tmp_path: Path) -> None:
    """Reported by CI: after SIGTERM at the start of a harvest the process did not end (4 of 80 attempts)."""
    point = HookPoint(0, "resid_post")
    shard = Shard("shard.safetensors", "train", ((0, 1),), 4)
    (tmp_path / str(point)).mkdir()

    def attempt(number: int) -> bool:
        writer = ShardWriter(tmp_path, {}, lambda name, entry: None)
        interrupted = interrupted_at(number, lambda: writer.put(shard, {point: torch.zeros(1, 2)}))
        writer.close()
        return interrupted

    assert every_operation(attempt) > 10


def test_a_reader_ends_wherever_its_consumer_was_interrupted() -> None:
    def attempt(number: int) -> bool:
        batches = iter(Background(range(100), ahead=1))
        next(batches)
        interrupted = interrupted_at(number, lambda: next(batches))
        batches.close()  # type: ignore[attr-defined]
        return interrupted

    assert every_operation(attempt) > 10


def test_the_queue_holds_as_many_items_as_were_allowed_and_gives_them_in_order() -> None:
    queue: BoundedQueue[int] = BoundedQueue(3)
    put: list[int] = []

    def fill() -> None:
        for number in range(50):
            queue.put(number)
            put.append(number)

    thread = Thread(target=fill, daemon=True)
    thread.start()
    for number in range(50):
        assert ends(queue.get) == number
        assert len(put) <= number + 4
    thread.join(WITHIN)
    assert len(put) == 50
