"""Reads checkpoints of train.py; each is checked as a whole before any of it is used."""

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atomlab.files import regular
from atomlab.interop.sae_from_tensors import read_transform, sae_of_weights
from atomlab.sae import InputTransform, ThresholdSAE

_PARTS = ("state_dict", "optimizer_states", "loops", "global_step")
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
    OSError,
    RuntimeError,  # of PyTorch, and of zipfile for an encrypted record
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ValueError,
)  # fmt: skip


def load_checkpoint(file: Path) -> tuple[ThresholdSAE, InputTransform]:
    """Reads the TSAE of a checkpoint, in the coordinates that it was trained in, and the map into these coordinates.

    Args:
        file: a checkpoint of train.py.

    Returns:
        The TSAE of transformed activations x̃, tied if it was trained tied, and the transform x̃ = (x − mean) M; both in
        float32 on the CPU. `atomlab.sae.fold` makes of the two the TSAE of raw activations x.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the checkpoint is unreadable (see `read_checkpoint`), or its tensors are not those of a TSAE and
            its transform.
    """
    state = read_checkpoint(file)["state_dict"]
    weights, transform = (
        {name.removeprefix(part): value for name, value in state.items() if name.startswith(part)}
        for part in ("sae.", "transform.")
    )
    sae = sae_of_weights(weights, file, tied="W_enc" not in weights)
    return sae, read_transform(transform, sae.d_in, file)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint of train.py without running any code that it might contain (`weights_only`).

    Every record is compared with the CRC-32 that PyTorch wrote beside it. This finds accidental damage, down to one
    flipped bit; it does not find a change made on purpose, since whoever can write the file can also write the CRC.

    Args:
        path: the file; a leading ~ is the home folder.

    Returns:
        The checkpoint as Lightning wrote it: at least `state_dict`, `optimizer_states`, `loops` and `global_step`. Its
        tensors are on the CPU and memory-mapped.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, cut off, not from train.py, or has weights that are not finite. Both errors
            name the newest readable checkpoint in the same folder, if there is one.

    Cost: one read of the file.
    """
    file = Path(path).expanduser()
    try:
        return _read(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"The checkpoint {path} does not exist{_alternative(file)}") from error
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ValueError(
            f"{path} is no readable checkpoint of train.py ({reason.rstrip('.')}){_alternative(file)}"
        ) from error


def _read(file: Path) -> dict[str, Any]:
    with zipfile.ZipFile(regular(file)) as archive:
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"its record {damaged} is damaged")
    found = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    if not isinstance(found, dict) or not isinstance(found.get("state_dict"), dict):
        raise ValueError("it has no state_dict")
    if missing := [part for part in _PARTS if part not in found]:
        raise ValueError(f"it has no {', '.join(missing)}")
    for name, value in found["state_dict"].items():
        if isinstance(value, Tensor) and not torch.isfinite(value).all():  # a module's extra state need not be a tensor
            raise ValueError(f"its {name} is not finite")
    return found


def _alternative(file: Path) -> str:
    """Ends an error message: names the newest readable checkpoint in the same folder, or says what else to do."""
    beside = [other for other in file.parent.glob("*.ckpt") if other.name != file.name and other.is_file()]
    for other in sorted(beside, key=lambda found: found.stat().st_mtime, reverse=True):
        try:
            step = _read(other)["global_step"]
        except _UNREADABLE:
            continue
        return f"; {other} can be read and goes on after step {step}."
    return ": give another run's checkpoint, or leave out resume."
