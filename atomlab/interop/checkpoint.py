"""Checkpoints of train.py, looked at as a whole before anything of them is used."""

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atomlab.files import regular
from atomlab.interop.weights import read_transform, sae_of_weights
from atomlab.sae import InputTransform, ThresholdSAE

_PARTS = ("state_dict", "optimizer_states", "loops", "global_step")
_FOREIGN = (
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
    OSError,
    RuntimeError,  # of PyTorch, and of an encrypted record
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ValueError,
)  # fmt: skip


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of train.py, its tensors memory-mapped on the CPU; no code of it is run (`weights_only`).

    Every record is compared with the CRC-32 that PyTorch wrote beside it, so a flipped bit is found; whoever can write
    the file can write the CRC too.

    Cost: one read.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: damaged, cut off, not of train.py, or with weights that are not finite; the message names another
            checkpoint of the same folder that can be read.
    """
    file = Path(path).expanduser()
    try:
        return _read(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"The checkpoint {path} does not exist{_other(file)}") from error
    except _FOREIGN as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ValueError(
            f"{path} is no readable checkpoint of train.py ({reason.rstrip('.')}){_other(file)}"
        ) from error


def _read(file: Path) -> dict[str, Any]:
    with zipfile.ZipFile(regular(file)) as archive:
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"its record {damaged} was altered")
    found = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    if not isinstance(found, dict) or not isinstance(found.get("state_dict"), dict):
        raise ValueError("it has no state_dict")
    if missing := [part for part in _PARTS if part not in found]:
        raise ValueError(f"it has no {', '.join(missing)}")
    for name, value in found["state_dict"].items():
        if isinstance(value, Tensor) and not torch.isfinite(value).all():  # others are modules' extra state
            raise ValueError(f"its {name} is not finite")
    return found


def _other(file: Path) -> str:
    """How a sentence about an unreadable checkpoint ends: with the newest one beside it that can be read, if any."""
    beside = [other for other in file.parent.glob("*.ckpt") if other.name != file.name and other.is_file()]
    for other in sorted(beside, key=lambda found: found.stat().st_mtime, reverse=True):
        try:
            step = _read(other)["global_step"]
        except _FOREIGN:
            continue
        return f"; {other} can be read and goes on after step {step}."
    return ": give another run's checkpoint, or leave out resume."


def load_checkpoint(file: Path) -> tuple[ThresholdSAE, InputTransform]:
    """In the coordinates of its training, and those."""
    state = read_checkpoint(file)["state_dict"]
    weights, transform = (
        {name.removeprefix(part): value for name, value in state.items() if name.startswith(part)}
        for part in ("sae.", "transform.")
    )
    sae = sae_of_weights(weights, file, tied="W_enc" not in weights)
    return sae, read_transform(transform, sae.d_in, file)
