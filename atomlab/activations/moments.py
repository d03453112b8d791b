"""First and second moments of activations, streamed in float64, kept beside the shards they were taken from."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from atomlab.activations.reading import ActivationStore
from atomlab.activations.store import read_tensors, write_tensors


@dataclass(frozen=True)
class Moments:
    """Of `count` vectors of width d: mean E[x] (d,) and uncentred second moment E[x xᵀ] (d, d), float64."""

    count: int
    mean: Tensor
    second_moment: Tensor


def norm_filter(store: ActivationStore, limit: float) -> Tensor:
    """Numbers of the rows whose norm is at most `limit`, int64; cost: one pass over the rows."""
    norms = torch.cat([shard.float().norm(dim=1) for shard in store.shards])
    return (norms <= limit).nonzero().squeeze(1)


def median_norm(store: ActivationStore) -> float:
    return float(torch.cat([shard.float().norm(dim=1) for shard in store.shards]).median())


def moments(store: ActivationStore, rows: Tensor, file: Path, block: int = 8192) -> Moments:
    """Moments of the given rows, read from `file` if it exists and written there otherwise.

    Time: 2·rows·d² FLOPs in float64; memory: two d x d float64 matrices and one block.
    """
    if not file.exists():
        total = torch.zeros(store.width, dtype=torch.float64)
        second = torch.zeros(store.width, store.width, dtype=torch.float64)
        for part in rows.split(block):
            x = store[part].double()
            total += x.sum(0)
            second.addmm_(x.T, x)
        write_tensors(
            file, {"count": torch.tensor(len(rows)), "mean": total / len(rows), "second_moment": second / len(rows)}
        )
    saved = read_tensors(file)
    return Moments(int(saved["count"]), saved["mean"].clone(), saved["second_moment"].clone())
