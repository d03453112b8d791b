"""The rows of a harvest, read through memory maps."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from atomlab.activations.origins import Origin, Origins
from atomlab.activations.store import INDEX, read_tensors


@final
class ActivationStore:
    """The rows of one split at one hook point: (rows, width), memory-mapped, gathered by number.

    Args:
        folder: of the hook point.
        split: train, validation or test.

    Raises:
        FileNotFoundError: the harvest is not complete.
        ValueError: a shard is damaged or does not have the size that the index states.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split = folder, split
        if not (folder / INDEX).exists():
            raise FileNotFoundError(f"No complete harvest in {folder}: run train.py, which harvests what is missing.")
        shards = json.loads((folder / INDEX).read_text(encoding="utf-8"))["shards"]
        mine = {name: shard for name, shard in shards.items() if name.startswith(f"{split}-")}
        for name, shard in mine.items():
            if not (folder / name).exists() or (folder / name).stat().st_size != shard["bytes"]:
                raise ValueError(
                    f"The shard {folder / name} is missing or truncated (expected {shard['bytes']} bytes): "
                    f"delete {folder / INDEX} and the shard and run again, and only it is harvested again."
                )
        self._shards = [read_tensors(folder / name)["activations"] for name in sorted(mine)]
        self._starts = torch.tensor([0, *(len(shard) for shard in self._shards)]).cumsum(0)

    @cached_property
    def origins(self) -> Origins:
        """Where each row comes from; read when first asked for."""
        return Origins.read(self._folder.parent, self._split)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def width(self) -> int:
        return self._shards[0].shape[1]

    @property
    def shards(self) -> list[Tensor]:
        return self._shards

    def __getitem__(self, rows: Tensor) -> Tensor:
        """(len(rows), width) in float32, for an int64 tensor of row numbers; cost: one gather a shard touched."""
        shard_of = torch.bucketize(rows, self._starts[1:], right=True)
        result = torch.empty(len(rows), self.width)
        for number in shard_of.unique().tolist():
            here = shard_of == number
            result[here] = self._shards[number][rows[here] - self._starts[number]].float()
        return result


@dataclass(frozen=True)
class Rows:
    """Some rows of a store: what is left of a split when outliers are dropped."""

    store: ActivationStore
    numbers: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.store[self.numbers[index]]

    def origin(self, index: Tensor) -> Origin:
        """Token, position, document and group of each row."""
        return self.store.origins[self.numbers[index]]

    def contexts(self, index: Tensor, before: int = 32, after: int = 8) -> list[tuple[Tensor, int]]:
        """The token ids around each row and its own place among them (`Origins.contexts`)."""
        return self.store.origins.contexts(self.numbers[index], before, after)
