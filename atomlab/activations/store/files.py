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
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from atomlab.files import UNFINISHED, atomic_write, regular, sha256

FORMAT = 4  # part of the key: raise it when the meaning of the files changes
INDEX = "index.json"
LOCK = "lock"
MAX_INDEX_BYTES = 64 * 2**20  # bytes; an entry has about 150
# The names that an index may state, by its entry; an index from elsewhere could name any file of this machine.
_NAMES = {
    "shards": r"(train|validation|test)-\d{5,9}\.safetensors",
    "files": r"(train|validation|test)\.tokens\.safetensors|groups\.json",
    "moments": r"moments-[\w.+-]+\.safetensors",
}


@final
class UnwritableCacheError(OSError):
    """A file of the cache that could not be written."""


@final
class DamagedCacheError(ValueError):
    """Names damaged files of the cache and the command that rebuilds them.

    Attributes:
        what: the files' names and what is wrong with them.
    """

    def __init__(self, files: Sequence[Path], reason: str) -> None:
        self.what = f"{', '.join(file.name for file in files)}: {reason}"
        names = shlex.join(str(file) for file in files)
        super().__init__(
            f"Damaged in the cache ({reason}): {names}; `rm {names}` and then the same command harvest just that again."
        )


@contextmanager
def os_errors_as_unwritable(path: Path) -> Iterator[None]:
    """Raises UnwritableCacheError for an OSError in its body, so that it is told from one of the network or the corpus."""
    try:
        yield
    except OSError as error:
        raise UnwritableCacheError(error.errno, error.strerror or str(error), str(path)) from error


def harvest_key(description: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that name a harvest.

    >>> harvest_key({"model": "a"}) == harvest_key({"model": "a"}) != harvest_key({"model": "b"})
    True
    """
    text = json.dumps({"format": FORMAT, **description}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:05d}.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """All or nothing; returns `record(path)`.

    Raises:
        UnwritableCacheError: the disk is full or cannot be written.
    """
    with os_errors_as_unwritable(path), atomic_write(path) as temporary:
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        except SafetensorError as error:
            raise OSError(f"{path.name} could not be written: {error}") from error
        return record(temporary)


def write_json(path: Path, value: Any) -> dict[str, Any]:
    """All or nothing; returns `record(path)`. Raises UnwritableCacheError."""
    with os_errors_as_unwritable(path), atomic_write(path) as temporary:
        temporary.write_bytes(_text(value))
        return record(temporary)


def read_json(path: Path) -> Any:
    """Raises ValueError if it is no JSON; the message says how to rebuild it."""
    try:
        return json.loads(regular(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise DamagedCacheError([path], str(error)) from error


def write_index(path: Path, index: Mapping[str, Any]) -> None:
    """All or nothing; the index starts with the checksum of what follows."""
    write_json(path, _signed(index))


def read_index(path: Path, entry: str) -> dict[str, Any]:
    """What `write_index` wrote; see `parse_index`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a byte of it was altered, or it is no such index; the message says how to rebuild it.
    """
    try:
        with regular(path).open("rb") as stream:
            return parse_index(stream.read(MAX_INDEX_BYTES + 1), entry)
    except ValueError as error:
        raise DamagedCacheError([path], str(error)) from error


def parse_index(content: bytes, entry: str) -> dict[str, Any]:
    """An index of which nothing is trusted: bytes that fit their checksum, and in `entry` files of known names.

    The checksum is the index's own and anybody can make it: it protects against damage, and the checks of names, sizes
    and digests against an index that was made to do harm.

    Args:
        content: of the file.
        entry: "shards", "files" or "moments", where records of files stand by their names.

    Raises:
        ValueError: half a sentence that says what is wrong.
    """
    try:
        if len(content) > MAX_INDEX_BYTES:
            raise ValueError
        index = json.loads(content)
        stated = index.pop("checksum")
        intact = _text(_signed(index)) == content and _signed(index)["checksum"] == stated
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        intact, index = False, {}
    if not intact:
        raise ValueError("altered: it is not what its checksum was taken of")
    records = index.get(entry)
    if not isinstance(records, dict):
        raise ValueError(f"altered: it has no {entry}")
    for name, stated in records.items():
        if not re.fullmatch(_NAMES[entry], name, re.ASCII):
            raise ValueError(f"altered: it names {name!r}, and only files of this format lie here")
        if not _is_record(stated, ("bytes", "rows") if entry == "shards" else ("bytes",)):
            raise ValueError(f"altered: what it states of {name} is no size and checksum")
    return index


def _is_record(stated: Any, counts: tuple[str, ...]) -> bool:
    return (
        isinstance(stated, dict)
        and set(stated) == {*counts, "sha256"}
        and all(type(stated[name]) is int and 0 <= stated[name] < 2**63 for name in counts)
        and isinstance(stated["sha256"], str)
        and re.fullmatch(r"[0-9a-f]{64}", stated["sha256"], re.ASCII) is not None
    )


def read_tensors(path: Path, *names: str) -> dict[str, Tensor]:
    """The named tensors of a file (all if none is named), memory-mapped.

    Raises:
        ValueError: the file is missing, truncated or altered beyond reading; the message says how to rebuild it.
    """
    try:
        with safe_open(regular(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in names or file.keys()}  # not a dict
    except (SafetensorError, FileNotFoundError, ValueError) as error:
        raise DamagedCacheError([path], str(error)) from error


def record(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file. Time: one read, about 1.5 GB/s."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


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
        raise DamagedCacheError(wrong, "missing or truncated")
    if every_byte:
        with ThreadPoolExecutor() as pool:  # hashing and reading leave Python's lock alone
            found = pool.map(lambda name: record(folder / name), records)
            wrong = [folder / name for name, now in zip(records, found, strict=True) if now != _file(records[name])]
        if wrong:
            raise DamagedCacheError(wrong, "altered: its checksum is not the one in the index")


def remove_unfinished(folder: Path) -> None:
    """What a killed process left half-written, safetensors' own temporary files too; only under the folder's lock."""
    for pattern in (f"{UNFINISHED}*", ".tmp*"):
        for found in list(folder.rglob(pattern)):
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink(missing_ok=True)


def _text(value: Any) -> bytes:
    return f"{json.dumps(value, indent=1)}\n".encode()


def _signed(index: Mapping[str, Any]) -> dict[str, Any]:
    return {"checksum": hashlib.sha256(_text(dict(index))).hexdigest(), **index}


def _file(stated: Mapping[str, Any]) -> dict[str, Any]:
    return {name: stated[name] for name in ("bytes", "sha256")}
