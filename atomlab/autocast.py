"""Autocast is PyTorch's rounding of products to 16 bits while a network trains: what code that must be exact does about
it.

Autocast is a state of the thread, and whoever calls this package may have it on: Lightning runs validation and test
steps inside it when training is in mixed precision.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_KINDS = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia")  # of devices that have an autocast


@contextmanager
def no_autocast() -> Iterator[None]:
    """Products keep the dtype of their operands inside, on every kind of device. Also a decorator: `@no_autocast()`.

    >>> x = torch.eye(2)
    >>> with torch.autocast("cpu", torch.bfloat16), no_autocast():
    ...     (x @ x).dtype
    torch.float32
    """
    with ExitStack() as stack:
        for kind in _KINDS:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype that products on this device are rounded to at the moment; None if they are not.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     autocast_dtype(torch.device("cpu"))
    torch.bfloat16
    """
    kind = device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else None
