"""The held-out vectors of a table, with the document that each comes from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from atomlab.activations.datamodule import ActivationDataModule

_MOST_GROUPS = 200  # states of metrics are kept for each


@final
@dataclass(frozen=True)
class HeldOut:
    """Held-out vectors in random order, and the group of each, which intervals draw again as a whole.

    Where the corpus has more than 200 groups, they are joined at random to 200 of about the same number: these are as
    independent as documents are, and give about the same intervals.

    Attributes:
        vectors: shape `(samples, d_in)`.
        groups: number of each vector's group, shape `(samples,)`, int64.
        documents: number of documents, subjects or templates that the vectors come from.
    """

    vectors: Tensor
    groups: Tensor
    documents: int

    @classmethod
    def of(cls, data: ActivationDataModule, count: int) -> "HeldOut":
        """Draws distinct test vectors at random.

        Args:
            data: the activations, set up.
            count: number of vectors; all of the split where there are fewer.
        """
        return cls.from_names(data.sample("test", count), data.sample_groups("test", count))

    @classmethod
    def independent(cls, vectors: Tensor) -> "HeldOut":
        """Takes vectors of which each is a document of its own."""
        return cls.from_names(vectors, [str(number) for number in range(len(vectors))])

    @classmethod
    def from_names(cls, vectors: Tensor, names: list[str]) -> "HeldOut":
        """Numbers the groups of vectors, given the name of each vector's group."""
        distinct = sorted(set(names))
        mixed = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(0)) % _MOST_GROUPS
        numbers = dict(zip(distinct, mixed.tolist(), strict=True))
        return cls(vectors, torch.tensor([numbers[name] for name in names], dtype=torch.int64), len(distinct))

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def count(self) -> int:
        """Number of groups."""
        return min(self.documents, _MOST_GROUPS)

    def first(self, count: int) -> "HeldOut":
        """Takes the first vectors; the numbers of groups stay."""
        return HeldOut(self.vectors[:count], self.groups[:count], self.documents)

    def after(self, count: int) -> "HeldOut":
        """Takes all but the first vectors; the numbers of groups stay."""
        return HeldOut(self.vectors[count:], self.groups[count:], self.documents)

    def batches(self, size: int) -> Iterator[tuple[Tensor, list[tuple[int, slice]]]]:
        """Goes through all vectors in the order of their groups.

        Args:
            size: number of vectors of a batch, at most.

        Yields:
            Vectors, and for each group among them its number and where its vectors are.
        """
        order = self.groups.argsort(stable=True)
        for part in order.split(size) if len(order) else ():
            groups, counts = self.groups[part].unique_consecutive(return_counts=True)
            ends = counts.cumsum(0).tolist()
            slices = [slice(end - count, end) for end, count in zip(ends, counts.tolist(), strict=True)]
            yield self.vectors[part], list(zip(groups.tolist(), slices, strict=True))
