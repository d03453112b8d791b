"""Decides which format lies at a path, from names, configurations and headers; no weights are read."""

from pathlib import Path

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


def recognise(path: Path) -> Found:
    """Finds the SAE at a path, whichever format it is in.

    Args:
        path: a folder or a file. A folder with exactly one file of weights that no format names means that file.

    Returns:
        The SAE, of which names, configurations and headers were read.

    Raises:
        FileNotFoundError: no SAE of a known format is there; the message says what is.
        ValueError: an SAE of a known format is there that cannot be held, or its files are damaged.
    """
    found = _ask(path)
    if found is None and path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.suffix in _WEIGHTS and file.is_file()]
        found = _ask(files[0]) if len(files) == 1 else None
    if found is None:
        state = f"holds no SAE of a known format ({_what_is_there(path)})" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {state}: expected {KINDS}.")
    return found


def _ask(path: Path) -> Found | None:
    for find in _FIND:
        if (found := find(path)) is not None:
            return found
    return None


def _what_is_there(path: Path) -> str:
    if path.is_dir():
        names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in path.iterdir())
        return f"found {', '.join(names[:8])}{' and more' if len(names) > 8 else ''}" if names else "it is empty"
    return "its tensors are of none"
