"""Checkpoints of runs whose latents several processes share: a folder of safetensors beside a small file that points to it.

    last.ckpt                       {"atomlab_sharded_checkpoint": 1, "folder": "step-250-9f3c2a"}
    step-250-9f3c2a/record.json     everything but the tensors, their shapes, and the SHA-256 of each file
    step-250-9f3c2a/shard-…         the tensors, one file a process, written by torch.distributed.checkpoint

Nothing is pickled. A tensor of all latents is stored as pieces with their places in the whole, so any number of processes can
read its own part. A folder is complete before a file points to it.
"""

import json
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor import Shard as Split

from atomlab.files import UNFINISHED, atomic_write, regular, sha256
from atomlab.groups import ALONE, Groups
from atomlab.interop.tensors_in_json import put_together, take_apart

VERSION = 1
_POINTER, _RECORD, _FOLDER = "atomlab_sharded_checkpoint", "record.json", "step-"
_LARGEST_POINTER = 4096  # bytes


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
    name = f"{_FOLDER}{checkpoint['global_step']}-{everyone.gather_objects(secrets.token_hex(3))[0]}"
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
                record = {"format": VERSION, "files": digests, "tensors": stored, "rest": rest}
                with atomic_write(writing / _RECORD) as file:
                    file.write_text(json.dumps(record), encoding="utf-8")
                with atomic_write(pointer) as file:  # all that a full disk refuses comes before the folder has its name
                    file.write_text(json.dumps({_POINTER: VERSION, "folder": name}) + "\n", encoding="utf-8")
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
        reasons = "; ".join(sorted({str(reason) for reason, _ in error.failures.values()}))
        raise OSError(f"{folder}: {reasons}") from error


def is_sharded(file: Path) -> bool:
    """Returns whether a file points to a sharded checkpoint: a short JSON object that says so."""
    if file.stat().st_size > _LARGEST_POINTER:
        return False
    with suppress(ValueError, RecursionError):
        found = json.loads(file.read_text(encoding="utf-8"))
        return isinstance(found, dict) and _POINTER in found
    return False


def read_record(pointer: Path) -> dict[str, Any]:
    """Reads a sharded checkpoint without its tensors.

    Args:
        pointer: the file that points to it.

    Returns:
        The checkpoint as Lightning made it, with None in the place of each tensor.

    Raises:
        FileNotFoundError, ValueError: the file, or the folder that it points to, is missing, damaged or of a newer atomlab.
    """
    _, record = _open(pointer)
    return put_together(record["rest"], dict.fromkeys(record["tensors"]))


def check_sharded(pointer: Path) -> dict[str, Any]:
    """Reads a sharded checkpoint without its tensors, as `read_record`, and compares each of its files with its checksum.

    Args:
        pointer: the file that points to it.

    Returns:
        As `read_record`.

    Raises:
        FileNotFoundError, ValueError: as `read_record`, or a file is missing or damaged.

    Cost: one read of all files, in this process alone.
    """
    folder, record = _open(pointer)
    for name, digest in record["files"].items():
        if found := _damage(folder / name, digest):
            raise ValueError(_unreadable(pointer, found))
    return read_record(pointer)


def load_sharded(pointer: Path, groups: Groups = ALONE) -> dict[str, Any]:
    """Reads this process's part of a sharded checkpoint, whatever number of processes wrote it; all call this together.

    Args:
        pointer: the file that points to it.
        groups: the processes. One process alone reads all latents.

    Returns:
        The checkpoint as Lightning made it, with this process's latents, on the CPU.

    Raises:
        FileNotFoundError, ValueError: the checkpoint is missing, damaged or of a newer atomlab; in all processes.

    Cost: one read of all files over all processes for the checksums, and one of the own part.
    """
    folder, record = _open(pointer)
    everyone = groups.everyone
    names = sorted(record["files"])
    checks = [_damage(folder / name, record["files"][name]) for name in names[everyone.rank :: everyone.size]]
    for found in [one for part in everyone.gather_objects(checks) for one in part if one]:
        raise ValueError(_unreadable(pointer, found))
    state = {path: _empty(entry, groups) for path, entry in record["tensors"].items()}
    reader = HuggingFaceStorageReader(str(folder))
    _check_pieces(reader.read_metadata().state_dict_metadata, record["tensors"], pointer)
    with _alone_on_purpose():
        load(state, storage_reader=reader, no_dist=everyone.size == 1)
    tensors = {path: value.to_local() if isinstance(value, DTensor) else value for path, value in state.items()}
    return put_together(record["rest"], tensors)


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


def _stored(value: Tensor, dimension: int | None) -> dict[str, Any]:
    return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch."), "dimension": dimension}


def _empty(entry: Mapping[str, Any], groups: Groups) -> Tensor:
    shape, dtype, dimension = torch.Size(entry["shape"]), getattr(torch, entry["dtype"]), entry["dimension"]
    if dimension is None or groups.latents.size == 1:
        return torch.empty(shape, dtype=dtype)
    parts = torch.empty(shape, dtype=dtype, device="meta").chunk(groups.latents.size, dimension)
    local = torch.empty(parts[groups.latents.rank].shape, dtype=dtype)
    return _distributed(local, shape, dimension, groups)


def _open(pointer: Path) -> tuple[Path, dict[str, Any]]:
    """Reads the pointer and the record; the names in both are of files in their own folders."""
    try:
        found = json.loads(regular(pointer).read_text(encoding="utf-8"))
        version, name = found[_POINTER], found["folder"]
        if not isinstance(name, str) or not name.startswith(_FOLDER) or Path(name).name != name:
            raise ValueError(f"it points to {name!r}, which is no folder beside it")
        folder, record = pointer.parent / name, {}
        if version == VERSION:
            record = json.loads(regular(folder / _RECORD).read_text(encoding="utf-8"))
            version = record["format"]
            _check_record(record)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(_unreadable(pointer, error)) from error
    if version != VERSION:
        raise ValueError(
            f"{pointer} is a sharded checkpoint of format {version}, and this atomlab reads format {VERSION}: use the version "
            "of atomlab that wrote it."
        )
    return folder, record


def _check_record(record: Mapping[str, Any]) -> None:
    for name, digest in record["files"].items():
        if Path(name).name != name or not name.endswith(".safetensors") or not isinstance(digest, str):
            raise ValueError(f"its record names {name!r}, which is no file of it")
    for path, entry in record["tensors"].items():
        shape, dimension = entry["shape"], entry["dimension"]
        sizes = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
        fits = sizes and (dimension is None or (type(dimension) is int and 0 <= dimension < len(shape)))
        if not fits or not isinstance(getattr(torch, str(entry["dtype"]), None), torch.dtype):
            raise ValueError(f"its record of {path} is damaged")


def _unreadable(pointer: Path, reason: object) -> str:
    return f"{pointer} is no readable checkpoint of train.py ({reason}): give another one, or leave out resume."


def _damage(file: Path, digest: str) -> str | None:
    """Says what is wrong with a file; None if it is the one that was written."""
    try:
        return None if sha256(file) == digest else f"{file.name} is damaged: its checksum is another one"
    except (OSError, ValueError) as error:
        return str(error)


def _check_pieces(found: Mapping[str, Any], expected: Mapping[str, Any], pointer: Path) -> None:
    """Refuses files whose pieces do not cover a tensor exactly: what no piece covers would stay as memory was."""
    for path, entry in expected.items():
        pieces = (
            sorted((tuple(piece.offsets), tuple(piece.sizes)) for piece in found[path].chunks) if path in found else []
        )
        dimension, shape, place = entry["dimension"] or 0, tuple(entry["shape"]), 0
        for offsets, sizes in pieces:
            start = tuple(place if axis == dimension else 0 for axis in range(len(shape)))
            across = tuple(sizes[axis] if axis == dimension else size for axis, size in enumerate(shape))
            if offsets != start or sizes != across:
                break
            place += sizes[dimension]
        if not pieces or place != shape[dimension]:
            raise ValueError(_unreadable(pointer, f"the pieces of {path} do not cover it"))


def remove_unused(beside: Path) -> None:
    """Removes the folders of sharded checkpoints that no .ckpt file points to, and those that were never finished.

    Args:
        beside: the folder of the .ckpt files; it need not exist.
    """
    if not beside.is_dir():
        return
    used: set[str] = set()
    for file in beside.glob("*.ckpt"):
        with suppress(OSError, ValueError, LookupError, TypeError):
            used.add(json.loads(file.read_text(encoding="utf-8"))["folder"] if is_sharded(file) else "")
    for folder in [*beside.glob(f"{_FOLDER}*"), *beside.glob(f"{UNFINISHED}{_FOLDER}*")]:
        if folder.is_dir() and folder.name not in used:
            shutil.rmtree(folder, ignore_errors=True)
