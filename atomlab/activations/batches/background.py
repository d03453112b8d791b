"""An iterator run ahead of its consumer in a thread, with a bounded queue between the two."""

import time
from collections.abc import Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar, final

T = TypeVar("T")


@final
class Background(Generic[T]):
    """Runs an iterable in a thread, ahead of its consumer.

    The thread waits while `ahead` items are ready and not taken yet. An error of the iterable is raised where its items
    are taken.

    Args:
        source: the iterable.
        length: number of items, for `len`; None if it is not known.
        ahead: number of items that are made in advance, at most.

    Attributes:
        waited: seconds that the consumer has waited for items, over all iterations.
    """

    def __init__(self, source: Iterable[T], length: int | None = None, ahead: int = 2) -> None:
        self.source, self.length, self.ahead = source, length, ahead
        self.waited = 0.0

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("This iterator has no end.")
        return self.length

    def __iter__(self) -> Iterator[T]:
        queue: Queue[tuple[T] | BaseException | None] = Queue(maxsize=self.ahead)
        stopped = Event()
        thread = Thread(target=_fill, args=(self.source, queue, stopped), name="read ahead", daemon=True)
        thread.start()
        try:
            while True:
                since = time.perf_counter()
                item = queue.get()
                self.waited += time.perf_counter() - since
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item[0]
        finally:
            stopped.set()
            thread.join()


def _fill(source: Iterable[T], queue: "Queue[tuple[T] | BaseException | None]", stopped: Event) -> None:
    def put(item: tuple[T] | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                queue.put(item, timeout=0.1)
                return True
            except Full:
                continue
        return False

    try:
        for item in source:
            if not put((item,)):
                return
        put(None)
    except BaseException as error:  # raised again where the items are consumed
        put(error)
