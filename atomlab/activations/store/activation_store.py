"""Reads the rows of a harvest through memory maps."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from atomlab.activations.store.files import INDEX, DamagedCacheError, FileEntry, check_files, read_index, read_tensors
from atomlab.activations.store.row_origins import TOKENS_INDEX, Origin, Origins, read_sequence_entries

FilesState = tuple[tuple[str, int, int, int, str], ...]
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@final
class ActivationStore:
    """The activations of one split at one hook point, one row for each kept token: (rows, width), memory-mapped.

    `store[numbers]` gives the rows of the given numbers. Only these are read from the disk.

    Args:
        folder: folder of the hook point.
        split: train, validation or test.

    Raises:
        FileNotFoundError: the harvest is not complete.
        DamagedCacheError: a shard is missing, or does not have the size that the index states.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split = folder, split
        if not (folder / INDEX).exists():
            raise FileNotFoundError(f"No complete harvest in {folder}: run train.py, which harvests what is missing.")
        shards = read_index(folder / INDEX, "shards")["shards"]
        self._entries = {name: stated for name, stated in shards.items() if name.startswith(f"{split}-")}
        if not self._entries:
            raise DamagedCacheError([folder / INDEX], f"altered: it has no shard of the {split} split")
        check_files(folder, self._entries, every_byte=False)
        self._shards = [read_shard(folder / name, stated["rows"])[0] for name, stated in self._entries.items()]
        if len({(shard.dtype, shard.shape[1]) for shard in self._shards}) > 1:
            raise DamagedCacheError([folder / INDEX], "altered: its shards differ in width or dtype")
        self._starts = torch.tensor([0, *(len(shard) for shard in self._shards)]).cumsum(0)

    def verify(self) -> None:
        """Compares every byte of the shards and of the token sequences with the checksums of their indices.

        Raises:
            DamagedCacheError: names the files that are altered, and says how to make them again.

        Cost: one read of the files, about 1.5 GB/s and core.
        """
        check_files(self._folder, self._entries, every_byte=True)
        check_files(self._folder.parent, self._token_entries, every_byte=True)

    @property
    def state(self) -> FilesState:
        """Path, size, time of the last change (ns), inode and stated checksum of each file that `verify` reads and that exists.

        While it stays the same, so do the files, unless somebody sets the time back. Cost: no file is read but the small
        index of the token sequences.
        """
        files = {self._folder / name: stated for name, stated in self._entries.items()}
        files |= {self._folder.parent / name: stated for name, stated in self._token_entries.items()}
        found = [(file, file.stat(), stated["sha256"]) for file, stated in files.items() if file.exists()]
        return tuple((str(file), now.st_size, now.st_mtime_ns, now.st_ino, said) for file, now, said in found)

    @property
    def _token_entries(self) -> Mapping[str, FileEntry]:
        """What the index of the token sequences states of its files."""
        return read_sequence_entries(self._folder.parent / TOKENS_INDEX)

    @cached_property
    def origins(self) -> Origins:
        """The token behind each row; read when it is first asked for. Raises DamagedCacheError as `Origins.read`."""
        return Origins.read(self._folder.parent, self._split)

    @cached_property
    def norms(self) -> Tensor:
        """The Euclidean norm of each row, (rows,) float32, as the harvest computed them."""
        return torch.cat([read_shard(self._folder / n, stated["rows"])[1] for n, stated in self._entries.items()])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def width(self) -> int:
        """Number of values in a row."""
        return self._shards[0].shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype on disk, which is the model's."""
        return self._shards[0].dtype

    def __getitem__(self, numbers: Tensor) -> Tensor:
        """Returns rows by their numbers.

        Args:
            numbers: (n,) int64, in any order, also repeated.

        Returns:
            (n, width) float32.

        Cost: one copy of the rows if the numbers never fall, two copies otherwise.
        """
        if (numbers.diff() < 0).any():
            rising, order = numbers.sort()
            gathered = self._gather(rising)
            return torch.empty_like(gathered).index_copy_(0, order, gathered)
        return self._gather(numbers)

    def _gather(self, rising: Tensor) -> Tensor:
        result = torch.empty(len(rising), self.width, dtype=self.dtype)
        touched, counts = torch.bucketize(rising, self._starts[1:], right=True).unique_consecutive(return_counts=True)
        sizes = counts.tolist()
        for shard, mine, target in zip(touched.tolist(), rising.split(sizes), result.split(sizes), strict=True):
            torch.index_select(self._shards[shard], 0, mine - self._starts[shard], out=target)
        return result.float()


def read_shard(file: Path, rows: int) -> tuple[Tensor, Tensor]:
    """Returns the activations of a shard and their norms, both memory-mapped.

    Args:
        file: of the shard.
        rows: number of rows that the index states.

    Returns:
        Activations (rows, width) of a floating dtype, and Euclidean norms (rows,) in float32.

    Raises:
        DamagedCacheError: the file holds something else.
    """
    found = read_tensors(file)
    x, norms = found.get("activations", torch.empty(0)), found.get("norms", torch.empty(0))
    fits = x.ndim == 2 and len(x) == rows > 0 and x.shape[1] > 0 and x.dtype in _DTYPES
    if set(found) != {"activations", "norms"} or not fits or (norms.shape, norms.dtype) != ((rows,), torch.float32):
        raise DamagedCacheError([file], f"altered: it does not hold {rows} activations and their norms")
    return x, norms


@dataclass(frozen=True)
class Rows:
    """Some rows of a store, such as those of a split without its outliers.

    `rows[index]` gives the rows at the given positions of this selection, (n, width) float32.

    Attributes:
        store: the store.
        numbers: (rows,) int64, numbers of the selected rows in the store.
    """

    store: ActivationStore
    numbers: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of selected rows, and their width."""
        return len(self), self.store.width

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.store[self.numbers[index]]

    def origin(self, index: Tensor) -> Origin:
        """Returns token, position, document and group of the rows at the given positions, (n,) int64."""
        return self.store.origins[self.numbers[index]]

    def contexts(self, index: Tensor, before: int = 32, after: int = 8) -> list[tuple[Tensor, int]]:
        """Returns the token ids around each of the rows at the given positions (`Origins.contexts`).

        Args:
            index: (n,) int64, positions in this selection.
            before: number of tokens before the row's own, at most.
            after: number of tokens after it, at most.

        Returns:
            For each row the token ids in reading order, and the index of the row's own token among them.
        """
        return self.store.origins.contexts(self.numbers[index], before, after)
