"""Reads checkpoints of train.py; each is checked as a whole before any of it is used."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atomlab.groups import ALONE, Groups
from atomlab.interop.baseline_of_weights import baseline_of_weights
from atomlab.interop.checkpoint_file import read_checkpoint_file
from atomlab.interop.sae_from_tensors import read_transform, sae_of_weights
from atomlab.interop.sharded_checkpoint import check_sharded, load_sharded, read_record
from atomlab.interop.sharded_record import is_sharded
from atomlab.sae import SAE, InputTransform

_PARTS = {"state_dict": dict, "optimizer_states": list, "loops": dict, "global_step": int}


def load_checkpoint(file: Path) -> tuple[SAE, InputTransform]:
    """Reads the SAE of a checkpoint, in the coordinates that it was trained in, and the map into these coordinates.

    Args:
        file: a checkpoint of train.py.

    Returns:
        The SAE of transformed activations x̃, tied if it was trained tied, and the transform x̃ = (x − mean) M; both in
        float32 on the CPU. `atomlab.sae.fold` makes of the two the SAE of raw activations x.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the checkpoint is unreadable (see `read_checkpoint`), or its tensors are not those of an SAE and
            its transform.
    """
    state = read_checkpoint(file)["state_dict"]
    for name, value in state.items():
        if name.startswith(("sae.", "transform.")) and not isinstance(value, Tensor):
            raise ValueError(
                f"{file}: {name} should be a tensor, found {type(value).__name__}: use another checkpoint."
            )
    weights, transform = (
        {name.removeprefix(part): value for name, value in state.items() if name.startswith(part)}
        for part in ("sae.", "transform.")
    )
    if "threshold" in weights or "W_enc" not in weights:
        sae = sae_of_weights(weights, file, tied="W_enc" not in weights)
    else:
        sae = baseline_of_weights(weights, file)
    return sae, read_transform(transform, sae.d_in, file)


def read_progress(path: str | Path) -> dict[str, Any]:
    """Reads what a run is and how far it came, before it goes on from a checkpoint.

    Args:
        path: the file; a leading ~ is the home folder.

    Returns:
        The checkpoint as Lightning wrote it. One of several processes that share the latents (`sharded_checkpoint`) is read
        without its tensors, since no process needs all of them; any other one is read and checked as a whole.

    Raises:
        FileNotFoundError, ValueError: as `read_checkpoint`.
    """
    return _or_alternative(path, lambda file: _whole(read_record(file)) if is_sharded(file) else _read(file))


def read_checkpoint(path: str | Path, groups: Groups = ALONE) -> dict[str, Any]:
    """Reads a checkpoint of train.py. It holds no pickles, so no code that somebody put into it can run.

    Everything that is read is compared with a SHA-256 in the file. This finds accidental damage, down to one flipped
    bit; it does not find a change made on purpose, since whoever can write the file can also write the digest.

    Args:
        path: the file; a leading ~ is the home folder.
        groups: processes that share the latents and call this together. Each gets its own latents of a sharded checkpoint.

    Returns:
        The checkpoint as Lightning made it: at least `state_dict`, `optimizer_states`, `loops` and `global_step`. Its
        tensors are on the CPU and memory-mapped.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, cut off, not from train.py, of a newer format, or has weights that are not finite.
            Both errors name the newest readable checkpoint in the same folder, if there is one.

    Cost: one read of the file.
    """
    return _or_alternative(path, lambda file: _read(file, groups))


def _or_alternative(path: str | Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Reads a checkpoint; an error names it, and the newest one beside it that can be read."""
    file = Path(path).expanduser()
    try:
        return read(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"The checkpoint {path} does not exist{_alternative(file)}") from error
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ValueError(
            f"{path} is no readable checkpoint of train.py ({reason.rstrip('.')}){_alternative(file)}"
        ) from error


def find_checkpoint(path: str | Path) -> Path:
    """Finds the checkpoint that a run goes on from: the one that is named, or the newest one that can be read.

    Checkpoints are newer by the number of their steps, not by the clock. If the named checkpoint cannot be read and
    another one beside it can, that one is taken, and a line on standard error says so.

    Args:
        path: a checkpoint, or the folder of a run; a leading ~ is the home folder.

    Returns:
        The path of a checkpoint that can be read as a whole.

    Raises:
        FileNotFoundError: the path does not exist, or the folder has no checkpoints.
        ValueError: the checkpoint, or every checkpoint of the folder, is unreadable.

    Cost: one read of each checkpoint of the folder, or of the named one if it can be read.
    """
    file = Path(path).expanduser()
    if not file.is_dir():
        try:
            _steps(file)
        except FileNotFoundError:
            read_checkpoint(path)  # raises, and names what lies beside it
        except (OSError, ValueError) as error:
            return _newest(file.parent, {file: error})
        return file
    inside = file / "checkpoints"
    return _newest(inside if inside.is_dir() else file, {})


def _newest(folder: Path, known: dict[Path, Exception]) -> Path:
    """Returns the readable checkpoint of a folder with the most steps, and says what is left out.

    Args:
        folder: to look in.
        known: what is known to be unreadable already, and why.
    """
    readable, found = _sorted_by_steps(folder)
    unreadable = known | found
    if not readable and not unreadable:
        raise FileNotFoundError(f"{folder} has no checkpoints: give the folder of a run that was stopped.")
    for damaged, error in unreadable.items():
        reason = str(error).rstrip(".")
        if not readable:
            raise ValueError(
                f"{damaged} is no readable checkpoint of train.py ({reason}), and none beside it is: start a new run in "
                "another folder."
            ) from error
        sys.stderr.write(f"atomlab: {damaged} is left out: it is no readable checkpoint ({reason}).\n")
    step, newest = max(readable.items())
    if unreadable:
        sys.stderr.write(f"atomlab: {newest} is used in its place; it goes on after step {step}.\n")
    return newest


def _read(file: Path, groups: Groups = ALONE) -> dict[str, Any]:
    if is_sharded(file):
        found = load_sharded(file, groups)
    elif groups.latents.size > 1:
        raise ValueError("it has all latents in one file, and processes that share them go on from a sharded one")
    else:
        found = read_checkpoint_file(file)
    for name, value in _whole(found)["state_dict"].items():
        if isinstance(value, Tensor) and not torch.isfinite(value).all():  # a module's extra state need not be a tensor
            raise ValueError(f"its {name} is not finite")
    return found


def _whole(found: Any) -> dict[str, Any]:
    """Returns a checkpoint, which must have the parts of one."""
    if not isinstance(found, dict) or not isinstance(found.get("state_dict"), dict):
        raise ValueError("it has no state_dict")
    if missing := [part for part, kind in _PARTS.items() if type(found.get(part)) is not kind]:
        raise ValueError(f"it has no {', '.join(missing)}")
    return found


def _steps(file: Path) -> int:
    """Returns the number of steps of a checkpoint, after all of it was checked; no process needs all latents for that."""
    return (_whole(check_sharded(file)) if is_sharded(file) else _read(file))["global_step"]


def _sorted_by_steps(folder: Path, besides: str = "") -> tuple[dict[int, Path], dict[Path, Exception]]:
    """Returns the readable checkpoints of a folder by the number of their steps, and why the others are unreadable."""
    readable: dict[int, Path] = {}
    unreadable: dict[Path, Exception] = {}
    for file in sorted(folder.glob("[!.]*.ckpt"), reverse=True):  # of two with as many steps, last before best
        if file.name == besides:
            continue
        try:
            readable[_steps(file)] = file
        except (OSError, ValueError) as error:
            unreadable[file] = error
    return readable, unreadable


def _alternative(file: Path) -> str:
    """Ends an error message: names the newest readable checkpoint in the same folder, or says what else to do."""
    readable, _ = _sorted_by_steps(file.parent, besides=file.name)
    if readable:
        step, other = max(readable.items())
        return f"; {other} can be read and goes on after step {step}."
    return ": give another run's checkpoint, or leave out resume."
