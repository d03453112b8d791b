"""A bounded queue between two threads, which an exception out of a signal handler cannot leave locked."""

from queue import SimpleQueue
from typing import Generic, TypeVar, final

T = TypeVar("T")


@final
class BoundedQueue(Generic[T]):
    """Hands items from one thread to another, which lags behind by `size` items at most.

    A handler of a signal may raise between any two operations of Python's main thread. `queue.Queue` is not made for that:
    an exception in its `put` loses the wake-up of the other thread, or keeps its lock, and both threads wait for ever.
    Here each wait is one call of `queue.SimpleQueue`, which is written in C and which a signal interrupts as a whole.

    Args:
        size: items that may wait, at most.
    """

    def __init__(self, size: int) -> None:
        self._items: SimpleQueue[T] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()  # one entry for each item that may still come
        for _ in range(size):
            self.make_room()

    def put(self, item: T) -> None:
        """Adds an item, as soon as there is room."""
        self._room.get()
        self._items.put(item)

    def put_now(self, item: T) -> None:
        """Adds an item, whether there is room or not: for the end of the work, which must not wait."""
        self._items.put(item)

    def get(self) -> T:
        """Takes the oldest item, as soon as there is one."""
        item = self._items.get()
        self.make_room()
        return item

    def make_room(self) -> None:
        """Allows one item more: for a consumer that takes no more, so that a `put` which waits for it ends."""
        self._room.put(None)
