"""An iterator run ahead of its consumer in a thread, with a bounded queue between the two."""

import time
from collections.abc import Iterable, Iterator
from threading import Event, Thread
from typing import Generic, TypeVar, final

from atomlab.activations.bounded_queue import BoundedQueue

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
        queue: BoundedQueue[tuple[T] | BaseException | None] = BoundedQueue(self.ahead)
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
            queue.make_room()
            thread.join()


def _fill(source: Iterable[T], queue: BoundedQueue[tuple[T] | BaseException | None], stopped: Event) -> None:
    try:
        for item in source:
            queue.put((item,))
            if stopped.is_set():
                return
        queue.put_now(None)
    except BaseException as error:  # raised again where the items are consumed
        queue.put_now(error)
