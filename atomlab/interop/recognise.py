"""Decides which format lies at a path, from names, configurations and headers; no weights are read."""

from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from atomlab.interop.formats import (
    dictionary_learning,
    gemma_scope,
    llamascopium,
    saelens,
    safetensors_files,
    single_files,
    sparsify,
)
from atomlab.interop.formats.found import Found
from atomlab.interop.layout import found_in
from atomlab.interop.tensor_file import open_safetensors, open_torch
from atomlab.sae import SAE

KINDS = (
    "a run's folder or .ckpt, a folder of SAELens, Gemma Scope, Llama Scope, sparsify, dictionary_learning or Llamascopium, "
    "or a file of Gemma Scope, OpenAI, Goodfire, Qwen Scope, circuit-tracer or atomlab"
)
_FIND = (
    gemma_scope.find,
    sparsify.find,  # before SAELens, whose configuration has the same name
    llamascopium.find,  # before SAELens, whose weights have the same name
    dictionary_learning.find,
    saelens.find,  # before single files, whose tensors may have the same names
    safetensors_files.find,
    single_files.find,
)
_WEIGHTS = (".safetensors", ".npz", ".pt", ".pth")
_ASKED, _SHOWN = 20, 3  # places inside a folder that are looked at, and that an error message names


def recognise(path: Path) -> Found:
    """Finds the SAE at a path, whichever format it is in.

    Args:
        path: a folder or a file. A folder with exactly one file of weights that no format names means that file.

    Returns:
        The SAE, of which names, configurations and headers were read.

    Raises:
        FileNotFoundError: no SAE of a known format is there; the message says what is.
        ValueError: an SAE of a known format is there that cannot be held, or its files are damaged; or a folder holds several.
    """
    found = _ask(path)
    if found is None and path.is_dir():
        inside = [place for place in sorted(path.iterdir()) if place.is_dir() or place.suffix in _WEIGHTS]
        files = [place for place in inside if place.is_file()]
        found = _ask(files[0]) if len(files) == 1 else None
        if found is None and (several := list(islice(filter(_is_one, inside[:_ASKED]), _SHOWN))):
            raise ValueError(
                f"{path} is no SAE and holds what may be SAEs: name one, such as {', '.join(map(str, several))}."
            )
    if found is None:
        state = f"holds no SAE of a known format ({_what_is_there(path)})" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {state}: expected {KINDS}.")
    return replace(found, read=partial(_read_finite, found))


def _read_finite(found: Found) -> SAE:
    """Reads an SAE, and refuses one whose parameters are not finite once its scales, norms and logarithms are applied."""
    sae = found.read()
    for name, value in sae.state_dict().items():
        if not torch.isfinite(value).all():
            raise ValueError(
                f"{found.file} has finite tensors and a {name} that is not finite in float32 once the scales, norms and "
                f"logarithms of its format are applied, found {value[~value.isfinite()].flatten()[0]}: save the SAE again with "
                "smaller ones."
            )
    return sae


def _is_one(place: Path) -> bool:
    """Says whether a known format lies at a place, also one that cannot be held."""
    try:
        return _ask(place) is not None
    except (ValueError, OSError):
        return True


def _ask(path: Path) -> Found | None:
    for find in _FIND:
        if (found := find(path)) is not None:
            return found
    return None


def _what_is_there(path: Path) -> str:
    if path.is_dir():
        names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in path.iterdir())
        return f"found {', '.join(names[:8])}{' and more' if len(names) > 8 else ''}" if names else "it is empty"
    opened = {".safetensors": open_safetensors, ".pt": open_torch, ".pth": open_torch}
    return (
        found_in(opened[path.suffix](path)) if path.suffix in opened else f"it is a file {path.suffix or 'of no type'}"
    )
