"""Checkpoints of runs whose latents several processes share: a folder of safetensors beside a small file that points to it.

    last.ckpt                       {"atomlab_sharded_checkpoint": 2, "folder": "step-250-9f3c2a", "sha256": "5d1…"}
    step-250-9f3c2a/record.json     everything but the tensors, their shapes, and the SHA-256 of each file
    step-250-9f3c2a/shard-…         the tensors, one file a process, written by torch.distributed.checkpoint

Nothing is pickled. A tensor of all latents is stored as pieces with their places in the whole, so any number of processes can
read its own part. A folder is complete before a file points to it. The file has the SHA-256 of the record.
"""

import os
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor import Shard as Split

from atomlab.files import UNFINISHED, atomic_write, sha256
from atomlab.groups import ALONE, Groups
from atomlab.interop.sharded_record import (
    FOLDER,
    Record,
    StoredTensor,
    folder_of,
    open_record,
    write_pointer,
    write_record,
)
from atomlab.interop.tensors_in_json import put_together, take_apart


def save_sharded(
    checkpoint: Mapping[str, Any], dimensions: Mapping[str, int], beside: Path, pointer: Path | None, groups: Groups
) -> None:
    """Writes a checkpoint of all processes, which call this together.

    Folders of earlier checkpoints in `beside` that no .ckpt file points to are removed first. So there are at most as many
    folders as such files, and the new one.

    Args:
        checkpoint: of this process, as Lightning made it.
        dimensions: which dimension of a tensor is the latents, by its path such as `state_dict/sae.W_dec`; all other tensors
            are the same in all processes.
        beside: where the folder is written, on a disk that all processes see.
        pointer: the file that will point to it, in the first process; None in the others.
        groups: the processes.

    Raises:
        OSError: a process could not write its part; in all processes. Nothing half-written stays.
        TypeError: the checkpoint holds something that is neither a tensor nor plain JSON.
    """
    everyone = groups.everyone
    rest, tensors = take_apart(checkpoint)
    name = f"{FOLDER}{checkpoint['global_step']}-{everyone.gather_objects(secrets.token_hex(3))[0]}"
    writing = beside / f"{UNFINISHED}{name}"
    try:
        with everyone.fails_together():
            if pointer is not None:
                remove_unused(beside)
                writing.mkdir(parents=True)
        state = {path: _global(value, dimensions.get(path), groups) for path, value in tensors.items()}
        _write_shards(state, writing)
        with everyone.fails_together():
            files = sorted(writing.glob("*.safetensors"))
            digests = {file.name: sha256(file) for file in files[everyone.rank :: everyone.size]}
        digests = {file: digest for found in everyone.gather_objects(digests) for file, digest in found.items()}
        with everyone.fails_together():
            if pointer is not None:
                stored = {path: _stored(state[path], dimensions.get(path)) for path in state}
                digest = write_record(Record(writing, digests, stored, rest))
                with atomic_write(pointer) as file:  # all that a full disk refuses comes before the folder has its name
                    write_pointer(file, name, digest)
                    os.replace(writing, beside / name)
    finally:
        if pointer is not None:
            shutil.rmtree(writing, ignore_errors=True)


def _write_shards(state: Mapping[str, Tensor], folder: Path) -> None:
    """Writes the part of each process to a file of its own; an error of one of them is raised in all."""
    try:
        with _alone_on_purpose():
            save(dict(state), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        raise OSError(f"{folder}: {_reasons(error)}") from error


def read_record(pointer: Path) -> dict[str, Any]:
    """Reads a sharded checkpoint without its tensors.

    Args:
        pointer: the file that points to it.

    Returns:
        The checkpoint as Lightning made it, with None in the place of each tensor.

    Raises:
        ValueError: the file, or the folder that it points to, is missing, damaged or of another format. The message is the
            reason alone.
    """
    record = open_record(pointer)
    return _put_together(record, dict.fromkeys(record.tensors))


def check_sharded(pointer: Path) -> dict[str, Any]:
    """Reads a sharded checkpoint without its tensors, as `read_record`, and compares each of its files with its checksum.

    Args:
        pointer: the file that points to it.

    Returns:
        As `read_record`.

    Raises:
        ValueError: as `read_record`, or a file is missing or damaged.

    Cost: one read of all files, in this process alone.
    """
    record = open_record(pointer)
    for name, digest in record.files.items():
        if found := _damage(record.folder / name, digest):
            raise ValueError(found)
    return _put_together(record, dict.fromkeys(record.tensors))


def load_sharded(pointer: Path, groups: Groups = ALONE) -> dict[str, Any]:
    """Reads this process's part of a sharded checkpoint, whatever number of processes wrote it; all call this together.

    Args:
        pointer: the file that points to it.
        groups: the processes. One process alone reads all latents.

    Returns:
        The checkpoint as Lightning made it, with this process's latents, on the CPU.

    Raises:
        ValueError: the checkpoint is missing, damaged or of another format; in all processes. The message is the reason alone.

    Cost: one read of all files over all processes for the checksums, and one of the own part.
    """
    record, everyone = open_record(pointer), groups.everyone
    names = sorted(record.files)
    checks = [_damage(record.folder / name, record.files[name]) for name in names[everyone.rank :: everyone.size]]
    for found in [one for part in everyone.gather_objects(checks) for one in part if one]:
        raise ValueError(found)
    reader = _checked_reader(record)  # before memory is taken: what a record claims need not be there
    state = {path: _empty(entry, groups) for path, entry in record.tensors.items()}
    try:
        with _alone_on_purpose():
            load(state, storage_reader=reader, no_dist=everyone.size == 1)
    except CheckpointException as error:  # the same in all processes
        raise ValueError(f"its tensors cannot be read: {_reasons(error)[:300]}") from error
    return _put_together(
        record, {path: value.to_local() if isinstance(value, DTensor) else value for path, value in state.items()}
    )


@contextmanager
def _alone_on_purpose() -> Iterator[None]:
    """Silences PyTorch's warning that one process alone is at work."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield


def _global(value: Tensor, dimension: int | None, groups: Groups) -> Tensor:
    """The tensor of all latents of which a process has its part; any other tensor as it is."""
    value = value.detach().contiguous()
    if dimension is None or groups.mesh is None:
        return value
    sizes = groups.latents.gather_objects(value.shape[dimension])
    shape = list(value.shape)
    shape[dimension] = sum(sizes)
    return _distributed(value, torch.Size(shape), dimension, groups)


def _distributed(value: Tensor, shape: torch.Size, dimension: int, groups: Groups) -> DTensor:
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        value, groups.mesh, [Replicate(), Split(dimension)], run_check=False, shape=shape, stride=stride
    )


def _stored(value: Tensor, dimension: int | None) -> StoredTensor:
    return StoredTensor(tuple(value.shape), value.dtype, dimension)


def _empty(stored: StoredTensor, groups: Groups) -> Tensor:
    shape, dimension = torch.Size(stored.shape), stored.dimension
    if dimension is None or groups.latents.size == 1:
        return torch.empty(shape, dtype=stored.dtype)
    parts = torch.empty(shape, dtype=stored.dtype, device="meta").chunk(groups.latents.size, dimension)
    local = torch.empty(parts[groups.latents.rank].shape, dtype=stored.dtype)
    return _distributed(local, shape, dimension, groups)


def _put_together(record: Record, tensors: Mapping[str, Tensor | None]) -> dict[str, Any]:
    try:
        return put_together(record.rest, tensors)
    except RecursionError as error:
        raise ValueError("its record is nested too deeply") from error


def _damage(file: Path, digest: str) -> str | None:
    """Says what is wrong with a file; None if it is the one that was written."""
    try:
        return None if sha256(file) == digest else f"{file.name} is damaged: its checksum is another one"
    except (OSError, ValueError) as error:
        return str(error)


def _checked_reader(record: Record) -> HuggingFaceStorageReader:
    """Reads the headers of all files, and refuses pieces that are not exactly the tensors of the record."""
    reader = HuggingFaceStorageReader(str(record.folder))
    try:
        found = reader.read_metadata().state_dict_metadata
    except (SafetensorError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, OSError) as error:
        raise ValueError(f"its files cannot be read: {' '.join(str(error).split())[:300]}") from error
    for path, stored in record.tensors.items():
        _check_pieces(path, stored, found.get(path))
    return reader


def _check_pieces(path: str, stored: StoredTensor, found: Any) -> None:
    """Refuses pieces that do not cover a tensor exactly: what no piece covers would stay as memory was."""
    pieces = [] if found is None else sorted((tuple(piece.offsets), tuple(piece.sizes)) for piece in found.chunks)
    dimension, shape, place = stored.dimension or 0, stored.shape, 0
    for offsets, sizes in pieces:
        start = tuple(place if axis == dimension else 0 for axis in range(len(shape)))
        if offsets != start or len(sizes) != len(shape):
            break
        if sizes != tuple(sizes[axis] if axis == dimension else size for axis, size in enumerate(shape)):
            break
        place += sizes[dimension]
    if found is None or not pieces or place != shape[dimension] or found.properties.dtype != stored.dtype:
        raise ValueError(f"the pieces of {path[:80]!r} do not cover it")


def _reasons(error: CheckpointException) -> str:
    return "; ".join(sorted({" ".join(str(reason).split()) for reason, _ in error.failures.values()}))


def remove_unused(beside: Path) -> None:
    """Removes the folders of sharded checkpoints that no .ckpt file points to, and those that were never finished.

    Args:
        beside: the folder of the .ckpt files; it need not exist.
    """
    if not beside.is_dir():
        return
    used: set[str | None] = set()
    for file in beside.glob("*.ckpt"):
        with suppress(OSError):
            used.add(folder_of(file))
    for folder in [*beside.glob(f"{FOLDER}*"), *beside.glob(f"{UNFINISHED}{FOLDER}*")]:
        if folder.is_dir() and folder.name not in used:
            shutil.rmtree(folder, ignore_errors=True)
