"""What a sharded checkpoint says of itself: the small file that points to its folder, and the record in the folder.

Both are JSON that somebody else may have written, so each value is checked before anything is read or made by it. The pointer
has the SHA-256 of the record, and the record that of every other file.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from atomlab.files import atomic_write, regular

VERSION = 2
FOLDER = "step-"  # the name of a folder begins with this
_POINTER, _RECORD = "atomlab_sharded_checkpoint", "record.json"
_LARGEST_POINTER = 4096  # bytes
_LARGEST_RECORD = 1 << 24  # bytes; that of a run has some thousands
_LONGEST_NAME = 64  # characters of the name of a folder
_MOST_DIMENSIONS, _MOST_NUMBERS = 64, 1 << 60  # of a tensor


@final
@dataclass(frozen=True)
class StoredTensor:
    """A tensor of all processes together.

    Attributes:
        shape: of the whole, with at least one dimension.
        dtype: of its numbers.
        dimension: which one is the latents; None for a tensor that is the same in all processes.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    dimension: int | None


@final
@dataclass(frozen=True)
class Record:
    """What lies in the folder of a sharded checkpoint.

    Attributes:
        folder: where it lies.
        files: SHA-256 of each file of tensors, by its name in the folder.
        tensors: by their paths in the checkpoint.
        rest: what is no tensor, as JSON (`tensors_in_json`).
    """

    folder: Path
    files: Mapping[str, str]
    tensors: Mapping[str, StoredTensor]
    rest: Mapping[str, Any]


def write_record(record: Record) -> str:
    """Writes the record into its folder.

    Args:
        record: of the folder.

    Returns:
        The SHA-256 of the file, for the pointer.

    Raises:
        OSError: the file cannot be written.
    """
    tensors = {
        path: {"shape": each.shape, "dtype": str(each.dtype).removeprefix("torch."), "dimension": each.dimension}
        for path, each in record.tensors.items()
    }
    content = json.dumps({"files": record.files, "tensors": tensors, "rest": record.rest}).encode()
    with atomic_write(record.folder / _RECORD) as file:
        file.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def write_pointer(file: Path, folder: str, digest: str) -> None:
    """Writes the file that points to a folder beside it.

    Args:
        file: where to write.
        folder: name of the folder.
        digest: SHA-256 of the record in it.

    Raises:
        OSError: the file cannot be written.
    """
    file.write_text(json.dumps({_POINTER: VERSION, "folder": folder, "sha256": digest}) + "\n", encoding="utf-8")


def folder_of(pointer: Path) -> str | None:
    """Returns the name of the folder that a file points to; None if it is no pointer to one.

    Args:
        pointer: any file.

    Raises:
        OSError: the file cannot be read.
    """
    found = _pointer(pointer)
    name = None if found is None else found.get("folder")
    return name if isinstance(name, str) else None


def is_sharded(file: Path) -> bool:
    """Returns whether a file points to a sharded checkpoint: a short JSON object that says so."""
    return _pointer(file) is not None


def open_record(pointer: Path) -> Record:
    """Reads and checks the record that a file points to. No file of tensors is opened.

    Args:
        pointer: the file.

    Returns:
        The record. All files that it names lie in its folder, and no other file of tensors does.

    Raises:
        ValueError: the pointer or the record is damaged, of another version of the format, or not of `save_sharded`. The
            message is the reason alone.
    """
    found = _pointer(pointer)
    if found is None:
        raise ValueError("it points to no sharded checkpoint")
    _check_version(found[_POINTER])
    name, digest = found.get("folder"), found.get("sha256")
    if not isinstance(name, str) or not re.fullmatch(rf"{FOLDER}[\w-]{{1,{_LONGEST_NAME}}}", name, re.ASCII):
        raise ValueError(f"it points to {_short(name)}, which is no folder beside it")
    folder = pointer.parent / name
    try:
        file = regular(folder / _RECORD)
        if (size := file.stat().st_size) > _LARGEST_RECORD:
            raise ValueError(f"its {_RECORD} has {size:,} bytes, more than any record has")
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"its {_RECORD} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"its {_RECORD} is damaged: its checksum is another one")
    return _checked(content, folder)


def _pointer(file: Path) -> dict[str, Any] | None:
    """What a pointer says; None of any other file."""
    if not file.is_file() or file.stat().st_size > _LARGEST_POINTER:
        return None
    with suppress(ValueError, RecursionError):
        found = json.loads(file.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) and _POINTER in found else None
    return None


def _check_version(stated: object) -> None:
    if type(stated) is int and stated == VERSION:
        return
    newer = type(stated) is int and stated > VERSION
    age = "a newer version of atomlab wrote it" if newer else "an earlier version of atomlab wrote it, if any did"
    raise ValueError(
        f"it is a sharded checkpoint of format {_short(stated)}, and this version of atomlab reads format {VERSION}; {age}: "
        "use that version"
    )


def _checked(content: bytes, folder: Path) -> Record:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {_RECORD} is no JSON") from error
    if not isinstance(found, dict) or not all(isinstance(found.get(key), dict) for key in ("files", "tensors", "rest")):
        raise ValueError(f"its {_RECORD} has no files, tensors and rest")
    for name, digest in found["files"].items():
        if Path(name).name != name or not name.endswith(".safetensors") or not isinstance(digest, str):
            raise ValueError(f"its record names {_short(name)}, which is no file of it")
    if other := {path.name for path in folder.glob("*.safetensors")} ^ set(found["files"]):
        raise ValueError(f"its record and its folder differ in the file {_short(min(other))}")
    tensors = {path: _stored(path, entry) for path, entry in found["tensors"].items()}
    return Record(folder, found["files"], tensors, found["rest"])


def _stored(path: str, entry: Any) -> StoredTensor:
    """Checks an entry of the record. Whether its tensor is in the files, as large as it says, is seen in their headers."""
    entry = entry if isinstance(entry, dict) else {}
    shape, dtype, dimension = entry.get("shape"), getattr(torch, str(entry.get("dtype")), None), entry.get("dimension")
    if not isinstance(shape, list) or not 0 < len(shape) <= _MOST_DIMENSIONS or {type(size) for size in shape} != {int}:
        raise ValueError(f"its record of {_short(path)} has no shape")
    if (
        min(shape) < 0
        or math.prod(max(1, size) for size in shape) > _MOST_NUMBERS
        or not isinstance(dtype, torch.dtype)
    ):
        raise ValueError(f"its record of {_short(path)} has a size or a dtype that no tensor has")
    if not (dimension is None or (type(dimension) is int and 0 <= dimension < len(shape))):
        raise ValueError(f"its record of {_short(path)} has no dimension {_short(dimension)}")
    return StoredTensor(tuple(shape), dtype, dimension)


def _short(value: object) -> str:
    return repr(value)[:80]
