"""The rows of a harvest, read through memory maps."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from atomlab.activations.store.files import INDEX, DamagedCacheError, check, read_index, read_tensors
from atomlab.activations.store.origins import TOKENS_INDEX, Origin, Origins, read_records

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@final
class ActivationStore:
    """The rows of one split at one hook point: (rows, width), memory-mapped, gathered by number.

    Args:
        folder: of the hook point.
        split: train, validation or test.

    Raises:
        FileNotFoundError: the harvest is not complete.
        ValueError: a shard is missing, or does not have the size that the index states.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split = folder, split
        if not (folder / INDEX).exists():
            raise FileNotFoundError(f"No complete harvest in {folder}: run train.py, which harvests what is missing.")
        shards = read_index(folder / INDEX, "shards")["shards"]
        self._records = {name: stated for name, stated in shards.items() if name.startswith(f"{split}-")}
        if not self._records:
            raise DamagedCacheError([folder / INDEX], f"altered: it has no shard of the {split} split")
        check(folder, self._records, every_byte=False)
        self._shards = [read_shard(folder / name, stated["rows"])[0] for name, stated in self._records.items()]
        if len({(shard.dtype, shard.shape[1]) for shard in self._shards}) > 1:
            raise DamagedCacheError([folder / INDEX], "altered: its shards differ in width or dtype")
        self._starts = torch.tensor([0, *(len(shard) for shard in self._shards)]).cumsum(0)

    def verify(self) -> None:
        """Compares every byte with the checksums of the index: the shards' and the token sequences'.

        Raises:
            ValueError: names what is altered, and says how to rebuild it.
        """
        check(self._folder, self._records, every_byte=True)
        check(self._folder.parent, read_records(self._folder.parent / TOKENS_INDEX), every_byte=True)

    @cached_property
    def origins(self) -> Origins:
        """Where each row comes from; read when first asked for."""
        return Origins.read(self._folder.parent, self._split)

    @cached_property
    def norms(self) -> Tensor:
        """(rows,) float32 Euclidean norms, kept beside the rows."""
        return torch.cat([read_shard(self._folder / n, stated["rows"])[1] for n, stated in self._records.items()])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def width(self) -> int:
        return self._shards[0].shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self._shards[0].dtype

    def __getitem__(self, rows: Tensor) -> Tensor:
        """(len(rows), width) in float32, for an int64 tensor of row numbers.

        Cost: one copy of the rows if their numbers do not fall, two otherwise.
        """
        if (rows.diff() < 0).any():
            rising, order = rows.sort()
            gathered = self._gather(rising)
            return torch.empty_like(gathered).index_copy_(0, order, gathered)
        return self._gather(rows)

    def _gather(self, rising: Tensor) -> Tensor:
        result = torch.empty(len(rising), self.width, dtype=self.dtype)
        touched, counts = torch.bucketize(rising, self._starts[1:], right=True).unique_consecutive(return_counts=True)
        sizes = counts.tolist()
        for number, mine, target in zip(touched.tolist(), rising.split(sizes), result.split(sizes), strict=True):
            torch.index_select(self._shards[number], 0, mine - self._starts[number], out=target)
        return result.float()


def read_shard(file: Path, rows: int) -> tuple[Tensor, Tensor]:
    """Activations (rows, width) of a floating dtype, and their norms (rows,) in float32, both memory-mapped.

    Raises:
        ValueError: the file holds something else; the message says how to rebuild it.
    """
    found = read_tensors(file)
    x, norms = found.get("activations", torch.empty(0)), found.get("norms", torch.empty(0))
    fits = x.ndim == 2 and len(x) == rows > 0 and x.shape[1] > 0 and x.dtype in _DTYPES
    if set(found) != {"activations", "norms"} or not fits or (norms.shape, norms.dtype) != ((rows,), torch.float32):
        raise DamagedCacheError([file], f"altered: it does not hold {rows} activations and their norms")
    return x, norms


@dataclass(frozen=True)
class Rows:
    """Some rows of a store: what is left of a split when outliers are dropped."""

    store: ActivationStore
    numbers: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows, and their width."""
        return len(self), self.store.width

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.store[self.numbers[index]]

    def in_disk_order(self, index: Tensor) -> Tensor:
        """The same rows in the order of the disk, which saves a copy: for training batches, which are sets."""
        return self.store[self.numbers[index].sort().values]

    def origin(self, index: Tensor) -> Origin:
        """Token, position, document and group of each row."""
        return self.store.origins[self.numbers[index]]

    def contexts(self, index: Tensor, before: int = 32, after: int = 8) -> list[tuple[Tensor, int]]:
        """The token ids around each row and its own place among them (`Origins.contexts`)."""
        return self.store.origins.contexts(self.numbers[index], before, after)
