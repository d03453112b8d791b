"""Activations on disk: safetensors shards and a small index, each written under another name and then renamed.

    <cache>/activations/<key>/tokens.json                      tokens, checksums of the files below
    <cache>/activations/<key>/<split>.tokens.safetensors       token sequences; the kept tokens are the shards' rows
    <cache>/activations/<key>/groups.json                      group of each example
    <cache>/activations/<key>/<hook point>/moments-*.safetensors
                                                               mean and second moment, with a JSON of its checksum
    <cache>/activations/<key>/<hook point>/<split>-00000.safetensors
                                                               activations (rows, width) in the model's dtype, norms
                                                               (rows,)
    <cache>/activations/<key>/<hook point>/index.json          written last: with it the hook point is complete

The key is a digest of everything that determines the rows, so what is found under it never has to be checked for
fitness.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = 4  # part of the key: raise it when the meaning of the files changes
INDEX = "index.json"
LOCK = "lock"
_UNFINISHED = ".writing-"


def store_key(description: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that name a harvest.

    >>> store_key({"model": "a"}) == store_key({"model": "a"}) != store_key({"model": "b"})
    True
    """
    text = json.dumps({"format": FORMAT, **description}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:05d}.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """All or nothing; returns `record(path)`.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    with place(path) as temporary:
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        except SafetensorError as error:
            raise OSError(f"{path.name} could not be written: {error}") from error
        return record(temporary)


def write_json(path: Path, value: Any) -> dict[str, Any]:
    """All or nothing; returns `record(path)`."""
    with place(path) as temporary:
        temporary.write_bytes(_text(value))
        return record(temporary)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_index(path: Path, index: Mapping[str, Any]) -> None:
    """All or nothing; the index starts with the checksum of what follows."""
    write_json(path, _signed(index))


def read_index(path: Path) -> dict[str, Any]:
    """What `write_index` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a byte of it was altered; the message says how to rebuild it.
    """
    content = path.read_bytes()
    try:
        index = json.loads(content)
        stated = index.pop("checksum")
        intact = _text(_signed(index)) == content and _signed(index)["checksum"] == stated
    except (ValueError, KeyError, TypeError, AttributeError):
        intact, index = False, {}
    if not intact:
        raise damaged([path], "altered: it is not what its checksum was taken of")
    return index


def read_tensors(path: Path, *names: str) -> dict[str, Tensor]:
    """The named tensors of a file (all if none is named), memory-mapped.

    Raises:
        ValueError: the file is truncated or altered beyond reading; the message says how to rebuild it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names or file.keys()}  # not a dict
    except (SafetensorError, FileNotFoundError) as error:
        raise damaged([path], str(error)) from error


def record(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file. Time: one read, about 1.5 GB/s."""
    with path.open("rb") as stream:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def check(folder: Path, records: Mapping[str, Mapping[str, Any]], *, every_byte: bool) -> None:
    """Compares files with what the index states of them.

    Args:
        folder: of the files.
        records: `record` of each file by its name.
        every_byte: compare checksums, and not sizes only.

    Raises:
        ValueError: names every file that is missing, truncated or altered, and says how to rebuild them.
    """
    wrong = [
        folder / name
        for name, stated in records.items()
        if not (folder / name).exists() or (folder / name).stat().st_size != stated["bytes"]
    ]
    if wrong:
        raise damaged(wrong, "missing or truncated")
    if every_byte:
        with ThreadPoolExecutor() as pool:  # hashing and reading leave Python's lock alone
            found = pool.map(lambda name: record(folder / name), records)
            wrong = [folder / name for name, now in zip(records, found, strict=True) if now != _file(records[name])]
        if wrong:
            raise damaged(wrong, "altered: its checksum is not the one in the index")


def damaged(files: Iterable[Path], reason: str) -> ValueError:
    """The error that names damaged files and the command that rebuilds them."""
    names = shlex.join(str(file) for file in files)
    return ValueError(
        f"Damaged in the cache ({reason}): {names}; `rm {names}` and then the same command harvest just that again."
    )


def remove_unfinished(folder: Path) -> None:
    """What a killed process left half-written, safetensors' own temporary files too; only under the folder's lock."""
    for pattern in (f"{_UNFINISHED}*", ".tmp*"):
        for file in folder.rglob(pattern):
            file.unlink(missing_ok=True)


@contextmanager
def place(path: Path) -> Iterator[Path]:
    """All or nothing: another name in the same folder to write to, renamed to `path` if nothing goes wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_UNFINISHED}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _text(value: Any) -> bytes:
    return f"{json.dumps(value, indent=1)}\n".encode()


def _signed(index: Mapping[str, Any]) -> dict[str, Any]:
    return {"checksum": hashlib.sha256(_text(dict(index))).hexdigest(), **index}


def _file(stated: Mapping[str, Any]) -> dict[str, Any]:
    return {name: stated[name] for name in ("bytes", "sha256")}
