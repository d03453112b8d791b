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
from typing import Any, final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = 1  # part of the key: raise it when the meaning of the files changes
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


@final
class ActivationStore:
    """The rows of one split at one hook point: (rows, width), memory-mapped, gathered by number.

    Args:
        folder: of the hook point.
        split: train, validation or test.

    Raises:
        FileNotFoundError: the harvest is not complete.
        ValueError: a shard is damaged or does not have the size that the index states.
    """

    def __init__(self, folder: Path, split: str) -> None:
        if not (folder / INDEX).exists():
            raise FileNotFoundError(f"No complete harvest in {folder}: run train.py, which harvests what is missing.")
        shards = json.loads((folder / INDEX).read_text(encoding="utf-8"))["shards"]
        mine = {name: shard for name, shard in shards.items() if name.startswith(f"{split}-")}
        for name, shard in mine.items():
            if not (folder / name).exists() or (folder / name).stat().st_size != shard["bytes"]:
                raise ValueError(
                    f"The shard {folder / name} is missing or truncated (expected {shard['bytes']} bytes): "
                    f"delete {folder / INDEX} and the shard and run again, and only it is harvested again."
                )
        self._shards = [read_tensors(folder / name)["activations"] for name in sorted(mine)]
        self._starts = torch.tensor([0, *(len(shard) for shard in self._shards)]).cumsum(0)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def width(self) -> int:
        return self._shards[0].shape[1]

    @property
    def shards(self) -> list[Tensor]:
        return self._shards

    def __getitem__(self, rows: Tensor) -> Tensor:
        """(len(rows), width) in float32, for an int64 tensor of row numbers; cost: one gather a shard touched."""
        shard_of = torch.bucketize(rows, self._starts[1:], right=True)
        result = torch.empty(len(rows), self.width)
        for number in shard_of.unique().tolist():
            here = shard_of == number
            result[here] = self._shards[number][rows[here] - self._starts[number]].float()
        return result
