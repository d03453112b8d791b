"""Activations on disk: safetensors shards, written atomically, read through memory maps.

    <cache>/activations/<key>/<split>.tokens.safetensors      the token sequences; the kept tokens are the rows of the shards
    <cache>/activations/<key>/<hook point>/<split>-00000.safetensors   (rows, width) in the model's dtype
    <cache>/activations/<key>/<hook point>/index.json         written last: its presence says that the hook point is complete

The key is a digest of everything that determines the rows, so what is found under it never has to be checked for fitness.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = 2  # part of the key: raise it when the meaning of the files changes
INDEX = "index.json"


def store_key(description: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that name a harvest.

    >>> store_key({"model": "a"}) == store_key({"model": "a"}) != store_key({"model": "b"})
    True
    """
    text = json.dumps({"format": FORMAT, **description}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:05d}.safetensors"


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """All or nothing: to a temporary name in the same folder, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    os.close(handle)
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """All or nothing, as `write_tensors`."""
    temporary = path.with_name(f".writing-{path.name}")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, memory-mapped.

    Raises:
        ValueError: the file is truncated or altered beyond reading; the message names it and says how to rebuild it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except SafetensorError as error:
        raise ValueError(
            f"The file {path} is damaged ({error}): delete it and run again, and only it is harvested again."
        ) from error
