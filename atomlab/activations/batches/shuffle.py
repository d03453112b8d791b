"""The order of rows: in training a block shuffle, in validation a permutation, each a function of the seed only."""

import hashlib
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor
from torch.utils.data import Sampler


def generator(*key: int | str, device: torch.device | None = None) -> torch.Generator:
    """Returns random numbers that a key alone determines, so that nobody has to keep the state of a generator.

    Args:
        key: whose numbers they are.
        device: where they are drawn; None means the CPU. Each kind of device draws other numbers.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator(device or "cpu").manual_seed(int.from_bytes(digest, "big") >> 1)


def neighbour_correlation(rows: Tensor) -> float:
    """Measures how well rows are mixed, by the correlation of neighbours.

    It is Σ ⟨x_i − m, x_{i+1} − m⟩ / Σ ‖x_i − m‖², where m is the mean. After a full shuffle its expectation is −1/n,
    whatever the rows are.

    Args:
        rows: (n, d) vectors in their order.

    Returns:
        The correlation in [−1, 1], computed in float64.

    >>> neighbour_correlation(torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]))
    0.25
    """
    x = rows.double() - rows.double().mean(0)
    return float((x[:-1] * x[1:]).sum() / x.square().sum())


def check_batch(rows: int, batch_size: int, world_size: int) -> None:
    """Checks that the processes can share a batch evenly, and that it is not larger than the set of rows.

    Args:
        rows: number of training vectors.
        batch_size: rows of a batch, over all processes.
        world_size: number of processes.

    Raises:
        ValueError: `batch_size` is no multiple of `world_size`, or more than `rows`.
    """
    if batch_size % world_size:
        raise ValueError(
            f"activations.batch_size={batch_size} is the global batch and should be a multiple of the "
            f"{world_size} processes."
        )
    if rows < batch_size:
        raise ValueError(
            f"activations.batch_size={batch_size} is more than the {rows} training vectors: lower it or harvest "
            f"more tokens."
        )


@final
class ShuffledBatches(Sampler[Tensor]):
    """Gives the row numbers of each training step, without replacement within an epoch.

    Each epoch puts blocks of `block_rows` neighbouring rows in random order, and then shuffles the rows within each window
    of `window_rows`. If all rows fit into one window, this is a full shuffle. In larger sets the next row is of the same
    block with probability (block_rows − 1) / (window_rows − 1), so neighbours correlate by that times the mean correlation
    within a block (`neighbour_correlation`; measured in docs/activations.md). Disks are read a block at a time.

    A step has the same rows on any number of processes, and depends on the seed and its number only. So a run that is
    resumed goes on exactly. Memory: 24 bytes for each row of a window, and 8 for each block.

    Args:
        rows: number of rows.
        batch_size: rows of a batch, over all processes.
        steps: number of batches in the whole run.
        start: number of the batch to begin with.
        seed: of the order.
        rank: number of this process, from 0.
        world_size: number of processes.
        block_rows: neighbouring rows that stay together when blocks are shuffled.
        window_rows: rows within which single rows are shuffled.
        rising: whether the rows of a batch rise, over all processes, as they lie on disk. So do those of a process then.

    Raises:
        ValueError: a batch that the processes cannot share evenly, or that is larger than the set of rows.
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        steps: int,
        *,
        start: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        block_rows: int = 64,
        window_rows: int = 262_144,
        rising: bool = False,
    ) -> None:
        check_batch(rows, batch_size, world_size)
        self.rows, self.batch_size, self.steps, self.start, self.seed = rows, batch_size, steps, start, seed
        self.rank, self.world_size, self.rising = rank, world_size, rising
        self.block_rows, self.window_blocks = block_rows, max(1, window_rows // block_rows)

    def __len__(self) -> int:
        return self.steps  # the whole run, also when resumed: Lightning counts the steps done before as fetched

    def __iter__(self) -> Iterator[Tensor]:
        per_epoch = self.rows // self.batch_size
        step = self.start
        while step < self.steps:
            done = step % per_epoch
            for batch in self._epoch(step // per_epoch, done, min(per_epoch, done + self.steps - step)):
                yield (batch.sort().values if self.rising else batch)[self.rank :: self.world_size]
                step += 1

    def _epoch(self, epoch: int, first: int, last: int) -> Iterator[Tensor]:
        """Yields the batches [first, last) of an epoch, over all processes."""
        pending = torch.empty(0, dtype=torch.int64)
        for window in self._windows(epoch, first * self.batch_size):
            pending = torch.cat([pending, window])
            while len(pending) >= self.batch_size:
                if first == last:
                    return
                yield pending[: self.batch_size]
                pending, first = pending[self.batch_size :], first + 1

    def _windows(self, epoch: int, skip: int) -> Iterator[Tensor]:
        """Yields the shuffled row numbers of each window, without the first `skip` of the epoch."""
        blocks = torch.randperm(-(-self.rows // self.block_rows), generator=generator(self.seed, epoch))
        for number, some in enumerate(blocks.split(self.window_blocks)):
            sizes = (self.rows - some * self.block_rows).clamp(max=self.block_rows)
            total = int(sizes.sum())
            if skip < total:
                rows = (some[:, None] * self.block_rows + torch.arange(self.block_rows)).flatten()
                rows = rows[rows < self.rows]
                yield rows[torch.randperm(total, generator=generator(self.seed, epoch, number))][skip:]
            skip = max(0, skip - total)


def random_order(rows: int, seed: int) -> Tensor:
    """Puts all row numbers in a random order, which the seed determines.

    Args:
        rows: number of rows.
        seed: of the order.

    Returns:
        (rows,) int64, a permutation of 0 to rows − 1. The first n of them are a random sample, whatever the order in
        which the rows lie. Memory: 8 bytes a row.
    """
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed))


@final
class RandomBatches(Sampler[Tensor]):
    """Gives every row number once over all processes, in `random_order`. A process may get one row more than another.

    The first n rows of one process are a random sample of all rows. So are the first n of each of several processes
    together, and those are the same n·world_size rows that one process would see first.

    Args:
        rows: number of rows.
        batch_size: rows of a batch, over all processes.
        seed: of the order.
        rank: number of this process, from 0.
        world_size: number of processes.
    """

    def __init__(self, rows: int, batch_size: int, *, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.batches = random_order(rows, seed)[rank::world_size].split(max(1, batch_size // world_size))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.batches)
