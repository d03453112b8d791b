"""First and second moments of activations, streamed in float64, kept beside the shards they were taken from."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from atomlab.activations.reading import Rows
from atomlab.activations.store import check, read_index, read_tensors, write_index, write_tensors


@dataclass(frozen=True)
class Moments:
    """Of `count` vectors of width d: mean E[x] (d,) and uncentred second moment E[x xᵀ] (d, d), float64."""

    count: int
    mean: Tensor
    second_moment: Tensor


def moments(rows: Rows, file: Path, block: int = 8192) -> Moments:
    """Moments of the rows, read from `file` if it exists and written there otherwise, with its checksum beside it.

    Time: 2·rows·d² FLOPs in float64; memory: two d x d float64 matrices and one block.

    Raises:
        ValueError: the file was altered; the message says how to rebuild it.
    """
    index = file.with_suffix(".json")
    if not (file.exists() and index.exists()):
        width = rows.store.width
        total = torch.zeros(width, dtype=torch.float64)
        second = torch.zeros(width, width, dtype=torch.float64)
        for part in torch.arange(len(rows)).split(block):
            x = rows[part].double()
            total += x.sum(0)
            second.addmm_(x.T, x)
        count = torch.tensor(len(rows))
        found = {"count": count, "mean": total / len(rows), "second_moment": second / len(rows)}
        write_index(index, {file.name: write_tensors(file, found)})
    check(file.parent, read_index(index), every_byte=True)
    saved = read_tensors(file)
    return Moments(int(saved["count"]), saved["mean"].clone(), saved["second_moment"].clone())
