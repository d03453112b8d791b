"""Computes the first and second moments of activations, and keeps them beside the shards that they were taken of."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from atomlab.activations.store.activation_store import Rows
from atomlab.activations.store.files import (
    DamagedCacheError,
    UnwritableCacheError,
    check_files,
    os_errors_as_unwritable,
    read_index,
    read_tensors,
    write_index,
    write_tensors,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Moments:
    """First and second moment of vectors of width d.

    Attributes:
        count: number of vectors.
        mean: E[x], (d,) float64.
        second_moment: uncentred, E[x xᵀ], (d, d) float64.
    """

    count: int
    mean: Tensor
    second_moment: Tensor


def exact_moments(vectors: Rows | Tensor, block: int = 8192) -> Moments:
    """Computes the mean E[x] and the uncentred second moment E[x xᵀ] of vectors, in float64.

    Args:
        vectors: (count, d), rows of a store or a tensor in memory; at least one.
        block: vectors that are read at a time.

    Returns:
        The moments, exact up to the rounding of float64.

    Cost: 2·count·d² FLOPs in float64; the memory of two (d, d) float64 matrices and one block.
    """
    width = vectors.shape[1]
    total = torch.zeros(width, dtype=torch.float64)
    second = torch.zeros(width, width, dtype=torch.float64)
    for part in torch.arange(len(vectors)).split(block):
        x = vectors[part].double()
        total += x.sum(0)
        second.addmm_(x.T, x)
    return Moments(len(vectors), total / len(vectors), second / len(vectors))


def stored_moments(rows: Rows, file: Path, lock: Path, block: int = 8192) -> Moments:
    """Returns the moments of rows, out of a file if it is complete; if not, they are computed and written there.

    A .json beside the file has its checksum. Where the folder cannot be written, the moments are computed every time,
    and a warning says so.

    Args:
        rows: rows of the training split.
        file: where the moments are kept.
        lock: lock file of the harvest, which is taken only to compute and write.
        block: number of rows that are read at a time.

    Returns:
        The moments, exact up to the rounding of float64.

    Raises:
        DamagedCacheError: the file or its checksum was altered.

    Cost: as `exact_moments` the first time, one read of the file after it.
    """
    if not _is_complete(file):
        try:
            with os_errors_as_unwritable(lock):
                held = FileLock(lock).acquire()
        except UnwritableCacheError as error:
            _warn(error)
            return exact_moments(rows, block)
        with held:
            if not _is_complete(file):  # unless another process wrote it meanwhile
                found = exact_moments(rows, block)
                try:
                    _write(file, found)
                except UnwritableCacheError as error:
                    _warn(error)
                    return found
    return _read(file, rows.store.width)


def _is_complete(file: Path) -> bool:
    return file.exists() and file.with_suffix(".json").exists()


def _warn(reason: UnwritableCacheError) -> None:
    _log.warning("The second moment is computed anew in every run, since the cache could not be written (%s).", reason)


def _write(file: Path, found: Moments) -> None:
    tensors = {"count": torch.tensor(found.count), "mean": found.mean, "second_moment": found.second_moment}
    write_index(file.with_suffix(".json"), {"moments": {file.name: write_tensors(file, tensors)}})


def _read(file: Path, width: int) -> Moments:
    index = file.with_suffix(".json")
    entries = read_index(index, "moments")["moments"]
    if set(entries) != {file.name}:
        raise DamagedCacheError([index], f"altered: it is not about {file.name}")
    check_files(file.parent, entries, every_byte=True)
    saved = read_tensors(file, "count", "mean", "second_moment")
    expected = {"count": (), "mean": (width,), "second_moment": (width, width)}
    if any(saved[name].shape != shape or not saved[name].isfinite().all() for name, shape in expected.items()):
        raise DamagedCacheError([file, index], f"altered: these are no moments of vectors of width {width}")
    return Moments(int(saved["count"]), saved["mean"].clone(), saved["second_moment"].clone())
