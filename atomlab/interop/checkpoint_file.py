"""The file format of checkpoints: one safetensors file, with all that is no tensor as JSON in its metadata.

Nothing in such a file is a program or a pickle. Its metadata has three entries:

| key | what it holds |
|---|---|
| `atomlab_checkpoint` | the version of this format, `FORMAT` |
| `state` | `rest` and `orders` as JSON: what is no tensor (`tensors_in_json`), and how the tensors lie in memory |
| `sha256` | the digest of `state` and of the name, dtype, shape and bytes of every tensor |

`orders` lists the dimensions of each tensor from the one with the largest stride in memory to the one with the smallest, since
fused optimisers need moments that lie in memory as their parameter does.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from atomlab.files import regular, safetensors_written
from atomlab.interop.tensors_in_json import put_together, take_apart

FORMAT = 1
_FORMAT, _STATE, _DIGEST = "atomlab_checkpoint", "state", "sha256"
_LONGEST_STATE = 1 << 24  # characters; that of a run has some thousands


def write_checkpoint_file(checkpoint: Mapping[str, Any], file: Path) -> None:
    """Writes a checkpoint. It is not atomic by itself: write to a temporary name and rename it (`atomic_write`).

    Args:
        checkpoint: nested dictionaries, lists and tuples of tensors, numbers, text, true, false and None.
        file: where to write.

    Raises:
        OSError: the file cannot be written, or the disk is full.
        ValueError: the checkpoint holds something else. The message says where.

    Cost: one copy of each tensor on the CPU that is not there already, and one SHA-256 over all of them (about 1.5 GB/s).
    """
    try:
        rest, found = take_apart(checkpoint)
    except TypeError as error:
        raise ValueError(f"{error} Leave out the callback whose state it is.") from error
    orders = {name: sorted(range(value.ndim), key=lambda n: -value.stride(n)) for name, value in found.items()}
    state, tensors = json.dumps({"rest": rest, "orders": orders}), _own_memory(found)
    metadata = {_FORMAT: str(FORMAT), _STATE: state, _DIGEST: _digest(state, tensors)}
    with safetensors_written(file):
        save_file(tensors, file, metadata)


def read_checkpoint_file(file: Path) -> dict[str, Any]:
    """Reads a checkpoint and compares it with its digest.

    A flipped bit anywhere in the file is an error, or changes nothing that is read. No code of the file can run.

    Args:
        file: an ordinary file.

    Returns:
        What was given to `write_checkpoint_file`, with its tensors on the CPU and memory-mapped. Memory besides the mapped
        tensors: the header of the file, which the library refuses above 100 MB.

    Raises:
        FileNotFoundError: nothing lies there.
        ValueError: no checkpoint of this format, a checkpoint of a newer format, or a damaged one.

    Cost: one read of the file.
    """
    if not (size := regular(file).stat().st_size):
        raise ValueError("it is empty")
    with file.open("rb") as stream:
        if stream.read(4) == b"PK\3\4":
            raise ValueError("it is in PyTorch's format, in which earlier versions of atomlab wrote checkpoints")
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            metadata = opened.metadata() or {}
            _check_format(metadata)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
    except (SafetensorError, RuntimeError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(f"its {size:,} bytes are no whole safetensors file: {_one_line(error)}") from error
    if _digest(metadata[_STATE], tensors) != metadata[_DIGEST]:
        raise ValueError("it is damaged: its content does not have the SHA-256 that was written with it")
    try:
        state = json.loads(metadata[_STATE])
        return put_together(
            state["rest"], {name: _laid(tensors[name], order) for name, order in state["orders"].items()}
        )
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise ValueError(f"its state is no checkpoint's: {_one_line(error)}") from error


def _check_format(metadata: Mapping[str, str]) -> None:
    if missing := [key for key in (_FORMAT, _STATE, _DIGEST) if key not in metadata]:
        raise ValueError(f"it is no checkpoint of train.py: its metadata has no {', '.join(missing)}")
    stated = metadata[_FORMAT]
    if stated != str(FORMAT):
        newer = stated.isdecimal() and stated.isascii() and int(stated[:9]) > FORMAT
        age = "a newer version of atomlab wrote it: use that version" if newer else "no version of atomlab writes that"
        raise ValueError(f"its format is {stated[:20]!r} and this version of atomlab reads {FORMAT}; {age}")
    if len(metadata[_STATE]) > _LONGEST_STATE:
        raise ValueError(f"its state has {len(metadata[_STATE]):,} characters, more than any checkpoint of train.py")


def _digest(state: str, tensors: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of the text and of all tensors, in the order of their names."""
    digest = hashlib.sha256(state.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return digest.hexdigest()


def _own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors on the CPU, each alone in its memory and contiguous, as the library writes them."""
    own: dict[str, Tensor] = {}
    for name, value in tensors.items():
        plain = value.detach().cpu().contiguous()
        shared = any(plain.data_ptr() == other.data_ptr() for other in own.values() if plain.numel())
        own[name] = plain.clone() if shared or plain.untyped_storage().nbytes() > plain.nbytes else plain
    return own


def _laid(tensor: Tensor, order: list[int]) -> Tensor:
    """Returns the tensor with its dimensions in this order in memory."""
    back = sorted(range(len(order)), key=order.__getitem__)
    return tensor.permute(order).contiguous().permute(back)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
