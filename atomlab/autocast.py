"""Keeps code that must be exact out of autocast, PyTorch's rounding of matrix products to 16 bits.

Autocast is a state of the thread, and the caller of this package may have switched it on. Lightning runs validation and
test steps inside autocast when the training is in mixed precision.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_KINDS = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia")  # kinds of devices that have an autocast


@contextmanager
def no_autocast() -> Iterator[None]:
    """Switches autocast off inside the block, on every kind of device, so that products keep the dtype of their operands.

    It is also a decorator: `@no_autocast()`.

    Yields:
        None, to the block.

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
    """Finds the dtype that products on a device are rounded to at the moment.

    Args:
        device: the device; only its kind matters.

    Returns:
        The dtype that autocast has on this kind of device; None if autocast is off there.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     autocast_dtype(torch.device("cpu"))
    torch.bfloat16
    """
    kind = device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else None
