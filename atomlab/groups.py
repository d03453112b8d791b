"""Which processes of a run see other data, and which hold other latents: the one place that knows.

Processes stand in a grid of D rows and N columns. Those of one row see the same vectors and hold different latents; those of
one column hold the same latents and see different vectors. Plain data parallelism has N = 1, one process D = N = 1.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

_NAMES = ("data", "latents")


@final
@dataclass(frozen=True)
class Axis:
    """Processes that share something, as this process sees them.

    Attributes:
        rank: number of this process among them, from 0.
        size: how many they are.
        group: their process group; None means all processes of the run.
    """

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None

    def sum(self, values: Tensor) -> Tensor:
        """Adds the values of all processes; no gradient flows through it.

        Args:
            values: of the same shape and dtype in all processes.

        Returns:
            The sum, the same in all of them; `values` itself where this process is alone.

        Communication: `values`, once.
        """
        if self.size == 1:
            return values
        total = values.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=self.group)
        return total

    def gather(self, values: Tensor) -> list[Tensor]:
        """Returns the values of all processes, by rank; only the length of the first dimension may differ.

        Communication: the longest of them, once, and one number.
        """
        if self.size == 1:
            return [values]
        sizes = [torch.zeros(1, dtype=torch.int64, device=values.device) for _ in range(self.size)]
        dist.all_gather(sizes, sizes[0].new_tensor([len(values)]), group=self.group)
        longest = max(int(size) for size in sizes)
        padded = values.new_zeros(longest, *values.shape[1:])
        padded[: len(values)] = values.detach()
        gathered = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(gathered, padded, group=self.group)
        return [part[: int(size)] for part, size in zip(gathered, sizes, strict=True)]

    def gather_objects(self, value: Any) -> list[Any]:
        """Returns a value of each process, by rank. Processes of one run trust each other: values travel pickled."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    @contextmanager
    def fails_together(self) -> Iterator[None]:
        """Makes an OSError of one process an error of all of them, which leave the block together.

        Only the process that writes sees a full disk, and the others must know of it before they go on. A process that fails
        leaves the block early, so it must not owe the others any communication of the block.

        Yields:
            Nothing.

        Raises:
            OSError: the block raised one in this process or in another one.

        Communication: one short text.
        """
        error = None
        try:
            yield
        except OSError as found:
            error = found
        for reason in self.gather_objects(None if error is None else str(error)):
            if reason is not None:
                raise OSError(reason) from error


@final
@dataclass(frozen=True)
class Groups:
    """The processes of a run, as this process sees them.

    Attributes:
        data: those that hold the same latents and see other vectors.
        latents: those that see the same vectors and hold other latents.
        mesh: the grid of all processes, with the dimensions `data` and `latents`; None before `connected`.
    """

    data: Axis = Axis()
    latents: Axis = Axis()
    mesh: DeviceMesh | None = None

    def __deepcopy__(self, _: Any) -> "Groups":
        """Returns the groups themselves: a copy of a TSAE is held by the same processes, and process groups have no copies."""
        return self

    @classmethod
    def of_ranks(cls, rank: int, world_size: int, latents: int = 1) -> "Groups":
        """Arranges the processes of a run; they need not be connected yet.

        Args:
            rank: number of this process in the run, from 0.
            world_size: number of processes.
            latents: N, how many processes share one dictionary; neighbours in number do.

        Returns:
            The groups. Where N is 1 they can communicate as soon as the processes are connected, otherwise after
            `connected`.

        Raises:
            ValueError: N is below 1 or does not divide the number of processes.
        """
        if latents < 1 or world_size % latents:
            raise ValueError(
                f"trainer.strategy.latents={latents} should divide the number of processes, trainer.devices times "
                f"trainer.num_nodes, which is {world_size}: choose one of its divisors."
            )
        return cls(Axis(rank // latents, world_size // latents), Axis(rank % latents, latents))

    @classmethod
    def of(cls, trainer: Any) -> "Groups":
        """Returns the groups of a trainer's strategy; all its processes are of different data if it has none.

        Args:
            trainer: a `lightning.Trainer`, or None for a process on its own.
        """
        if trainer is None:
            return ALONE
        known = getattr(trainer.strategy, "groups", None)
        return known if isinstance(known, Groups) else cls.of_ranks(trainer.global_rank, trainer.world_size)

    def connected(self, device_type: str) -> "Groups":
        """Makes the process groups; all processes of the run call it together, once they are connected.

        Args:
            device_type: of the tensors that travel, `cpu` or `cuda`.
        """
        mesh = init_device_mesh(device_type, (self.data.size, self.latents.size), mesh_dim_names=_NAMES)
        data, latents = (
            Axis(axis.rank, axis.size, mesh.get_group(name))
            for name, axis in zip(_NAMES, (self.data, self.latents), strict=True)
        )
        return Groups(data, latents, mesh)

    @property
    def everyone(self) -> Axis:
        """All processes of the run."""
        n = self.latents.size
        return Axis(self.data.rank * n + self.latents.rank, self.data.size * n)


ALONE = Groups()
