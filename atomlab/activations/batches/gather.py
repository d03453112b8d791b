"""From batches of row numbers to batches of rows."""

from collections.abc import Callable, Iterable, Iterator
from typing import final

import torch
from torch import Tensor


@final
class Gathered:
    """Gathers batches of rows from batches of their numbers.

    Args:
        gather: gives the rows of a batch of numbers, (rows, d_in), on the CPU.
        batches: the numbers.
        pinned: whether the rows lie in pinned memory, which a GPU copies from alone.
        coordinates: maps the rows before they are given; None leaves them as they are.
    """

    def __init__(
        self,
        gather: Callable[[Tensor], Tensor],
        batches: Iterable[Tensor],
        pinned: bool = False,
        coordinates: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.gather, self.batches, self.pinned, self.coordinates = gather, batches, pinned, coordinates

    def __iter__(self) -> Iterator[Tensor]:
        for index in self.batches:
            batch = self.gather(index)
            if self.coordinates is not None:
                with torch.no_grad():
                    batch = self.coordinates(batch)
            yield batch.pin_memory() if self.pinned else batch
