"""The order of rows: in training a block shuffle, in validation a permutation, each a function of the seed only."""

import hashlib
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor
from torch.utils.data import Sampler


def generator(*key: int | str) -> torch.Generator:
    """Random numbers that depend on the key only, so that nobody has to keep a generator's state."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def neighbour_correlation(rows: Tensor) -> float:
    """How well rows (n, d) are mixed: Σ ⟨x_i − m, x_{i+1} − m⟩ / Σ ‖x_i − m‖², m the mean, in [−1, 1].

    In a full shuffle it is −1/n in expectation, whatever the rows.

    >>> neighbour_correlation(torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]))
    0.25
    """
    x = rows.double() - rows.double().mean(0)
    return float((x[:-1] * x[1:]).sum() / x.square().sum())


def check_batch(rows: int, batch_size: int, world_size: int) -> None:
    """Raises ValueError for a batch that the processes cannot share evenly, or that is larger than the set of rows."""
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
    """Row numbers of each training step: global batches without replacement within an epoch, dealt out to the ranks.

    Each epoch puts blocks of `block_rows` neighbouring rows in random order, and then the rows within each window of
    `window_rows`: a full shuffle if all rows fit into one window. In larger sets a row's neighbour is of its own block
    with probability (block_rows − 1) / (window_rows − 1), so neighbours correlate by that times the mean correlation
    within a block (`neighbour_correlation`; measured in docs/activations.md). Disks are read a block at a time.

    Step s consists of the same rows on any number of ranks, and depends on `seed` and s only, so a run resumed at
    step s goes on exactly.

    Memory: 24 bytes a row of a window and 8 a block.

    Raises:
        ValueError: a batch that the ranks cannot share evenly, or larger than the set.
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
    ) -> None:
        check_batch(rows, batch_size, world_size)
        self.rows, self.batch_size, self.steps, self.start, self.seed = rows, batch_size, steps, start, seed
        self.rank, self.world_size = rank, world_size
        self.block_rows, self.window_blocks = block_rows, max(1, window_rows // block_rows)

    def __len__(self) -> int:
        return self.steps  # the whole run, also when resumed: Lightning counts the steps done before as fetched

    def __iter__(self) -> Iterator[Tensor]:
        per_epoch = self.rows // self.batch_size
        step = self.start
        while step < self.steps:
            done = step % per_epoch
            for batch in self._epoch(step // per_epoch, done, min(per_epoch, done + self.steps - step)):
                yield batch[self.rank :: self.world_size]
                step += 1

    def _epoch(self, epoch: int, first: int, last: int) -> Iterator[Tensor]:
        """Global batches [first, last) of an epoch."""
        pending = torch.empty(0, dtype=torch.int64)
        for window in self._windows(epoch, first * self.batch_size):
            pending = torch.cat([pending, window])
            while len(pending) >= self.batch_size:
                if first == last:
                    return
                yield pending[: self.batch_size]
                pending, first = pending[self.batch_size :], first + 1

    def _windows(self, epoch: int, skip: int) -> Iterator[Tensor]:
        """Shuffled rows of each window, but for the first `skip` rows."""
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
    """(rows,) int64: all row numbers in a random order that the seed fixes, so that the first n of them are a random
    sample, whatever the order in which the rows lie. Memory: 8 bytes a row.
    """
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed))


@final
class RandomBatches(Sampler[Tensor]):
    """Every row once over all ranks, in `random_order`; ranks may get one row more or less than others.

    The first n rows of one rank are a random sample of all rows. So are the first n of each of several ranks together,
    and those are the same n·world_size rows that one rank would see first.
    """

    def __init__(self, rows: int, batch_size: int, *, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.batches = random_order(rows, seed)[rank::world_size].split(max(1, batch_size // world_size))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.batches)
