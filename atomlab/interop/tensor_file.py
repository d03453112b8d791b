"""Files of tensors: what they hold is known from their headers, before any tensor is read into memory."""

import math
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from atomlab.files import regular

_DAMAGED = (
    zipfile.BadZipFile, zlib.error, ValueError, TypeError, EOFError, LookupError, AttributeError, OSError, RuntimeError,
    MemoryError,
)  # fmt: skip


@final
@dataclass(frozen=True)
class TensorFile:
    """A file of tensors whose header has been read.

    Attributes:
        path: of the file.
        shapes: shape of each tensor by its key.
        read: reads the tensor of a key, in the dtype of the file, possibly backed by the file itself.
        extra: what the file holds beside tensors, by key: the metadata of a safetensors file (text), or the plain values
            of a PyTorch file.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Tensor]
    extra: Mapping[str, Any]


def open_safetensors(path: Path) -> TensorFile:
    """Reads the header of a safetensors file, which states the place of every tensor in the file.

    Args:
        path: of the file.

    Returns:
        The file, of which no tensor has been read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no ordinary file, or no safetensors file, or it was cut off.
    """
    try:
        with safe_open(regular(path), framework="pt") as opened:
            shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
            return TensorFile(path, shapes, partial(_from_safetensors, path), opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"{path} is damaged ({_first_line(error)}): download it again, or save the SAE again."
        ) from error


def open_npz(path: Path) -> TensorFile:
    """Reads the headers of the arrays in a NumPy archive.

    An array whose header promises another number of bytes than the archive has for it is refused, so that no more memory
    is used than the archive says. Pickled objects are refused, so no code of the file runs.

    Args:
        path: of the archive.

    Returns:
        The file, of which no array has been read. Every array is compared with its CRC-32 when it is read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no ordinary file, no archive, damaged, or holds something other than arrays of numbers.
    """
    shapes = {}
    try:
        with zipfile.ZipFile(regular(path)) as archive:
            for member in archive.infolist():
                shapes[member.filename.removesuffix(".npy")] = _npy_shape(archive, member)
    except _DAMAGED as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise _no_archive(path, error) from error
    return TensorFile(path, shapes, partial(_from_npz, path), {})


def open_torch(path: Path) -> TensorFile:
    """Opens a file of `torch.save` without running code that it might contain (`weights_only=True`).

    The tensors of a file in today's format (a zip archive) are memory-mapped, so that opening it reads none, after its
    records were compared with their CRC-32. Files in the format before 2020 are read as a whole.

    Args:
        path: of the file; it holds a dictionary. Tensors of a dictionary inside it are found as `<key>/<key>`.

    Returns:
        The file; whatever is no tensor is in `extra`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no ordinary file or damaged, it holds no dictionary, or it can only be read by running code in it.
    """
    try:
        mapped = zipfile.is_zipfile(regular(path))
        if mapped:
            with zipfile.ZipFile(path) as archive:
                if (damaged := archive.testzip()) is not None:
                    raise ValueError(f"its record {damaged} is damaged")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is unusual about a pickle that is then refused
            found = torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds pickled Python objects beside tensors, or is damaged; reading them could run code, so it is not "
            "opened: ask for safetensors, or save its state_dict again with torch.save."
        ) from error
    except _DAMAGED as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"{path} is no readable file of torch.save ({_first_line(error)}): download it again."
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}: expected a dictionary of tensors.")
    flat = _flat(found)
    tensors = {key: value for key, value in flat.items() if isinstance(value, Tensor)}
    rest = {key: value for key, value in flat.items() if not isinstance(value, Tensor)}
    return TensorFile(path, {key: tuple(value.shape) for key, value in tensors.items()}, tensors.__getitem__, rest)


def inside(file: TensorFile, key: str) -> TensorFile:
    """Returns the part of a PyTorch file that lies in its dictionary `key`, with the keys that it has there."""
    start = f"{key}/"
    shapes = {name.removeprefix(start): shape for name, shape in file.shapes.items() if name.startswith(start)}
    return TensorFile(file.path, shapes, lambda name: file.read(start + name), file.extra)


def _flat(found: Mapping[Any, Any], start: str = "", depth: int = 3) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in found.items():
        if isinstance(value, Mapping) and depth > 0:
            flat |= _flat(value, f"{start}{key}/", depth - 1)
        else:
            flat[f"{start}{key}"] = value
    return flat


def _from_safetensors(path: Path, key: str) -> Tensor:
    with safe_open(path, framework="pt") as opened:
        return opened.get_tensor(key)


def _from_npz(path: Path, key: str) -> Tensor:
    try:
        with regular(path).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return torch.from_numpy(archive[key])
    except _DAMAGED as error:
        raise _no_archive(path, error) from error


def _npy_shape(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[int, ...]:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds pickled objects")
        promised = stream.tell() + math.prod(shape) * dtype.itemsize
    if promised != member.file_size:
        raise ValueError(f"{member.filename} promises {promised:,} bytes and has {member.file_size:,}")
    return tuple(shape)


def _no_archive(path: Path, error: BaseException) -> ValueError:
    return ValueError(f"{path} is no readable .npz archive ({_first_line(error)}): download it again.")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".")[:200] or type(error).__name__
