"""The files of a harvest on disk: safetensors shards and a small index, each written whole or not at all.

    <cache>/activations/<key>/tokens.json                      checksums of the files below, sizes, records left out
    <cache>/activations/<key>/<split>.tokens.safetensors       token sequences; their kept tokens are the shards' rows
    <cache>/activations/<key>/groups.json                      group of each example
    <cache>/activations/<key>/<hook point>/<split>-00000.safetensors
                                                               activations (rows, width) in the model's dtype, and their
                                                               norms (rows,)
    <cache>/activations/<key>/<hook point>/index.json          checksums of the shards; written last, so that a hook
                                                               point with this file is complete
    <cache>/activations/<key>/<hook point>/moments-*.safetensors
                                                               mean and second moment; a .json beside it has the checksum

The key is a digest of all that determines the rows, so whatever is found under it is what was asked for.
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
from typing import Any, TypedDict, final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from atomlab.files import UNFINISHED, atomic_write, regular, safetensors_written, sha256

FORMAT = 4  # part of the key: raise it when the meaning of the files changes
INDEX = "index.json"
LOCK = "lock"
MAX_INDEX_BYTES = 64 * 2**20  # an entry has about 150
# The file names that each entry of an index may state: an index from elsewhere could name any file of this machine.
_ALLOWED_NAMES = {
    "shards": r"(train|validation|test)-\d{5,9}\.safetensors",
    "files": r"(train|validation|test)\.tokens\.safetensors|groups\.json",
    "moments": r"moments-[\w.+-]+\.safetensors",
}


class FileEntry(TypedDict):
    """What an index states of one file.

    Attributes:
        bytes: size of the file.
        sha256: SHA-256 of its content, 64 hexadecimal digits.
    """

    bytes: int
    sha256: str


class ShardEntry(FileEntry):
    """What an index states of one shard.

    Attributes:
        rows: number of its vectors.
    """

    rows: int


@final
class UnwritableCacheError(OSError):
    """A file of the cache could not be written."""


@final
class DamagedCacheError(ValueError):
    """Files of the cache are missing or altered; the message has the command that removes them.

    Args:
        files: the damaged files.
        reason: what is wrong with them, as half a sentence.

    Attributes:
        what: names of the files, and the reason.
    """

    def __init__(self, files: Sequence[Path], reason: str) -> None:
        self.what = f"{', '.join(file.name for file in files)}: {reason}"
        names = shlex.join(str(file) for file in files)
        super().__init__(
            f"Damaged in the cache ({reason}): {names}; remove with `rm {names}`, and the next run makes just that again."
        )


@contextmanager
def os_errors_as_unwritable(path: Path) -> Iterator[None]:
    """Turns an OSError of its body into UnwritableCacheError, which differs from those of the network or the corpus.

    Args:
        path: file or folder that is written.

    Yields:
        None, to the body.

    Raises:
        UnwritableCacheError: an OSError was raised inside.
    """
    try:
        yield
    except OSError as error:
        raise UnwritableCacheError(error.errno, error.strerror or str(error), str(path)) from error


def harvest_key(description: Mapping[str, Any]) -> str:
    """Computes the name of a harvest's folder.

    Args:
        description: all that determines the harvest, JSON-serialisable.

    Returns:
        Sixteen hexadecimal digits, the beginning of the SHA-256 of the description and the format's number.

    >>> harvest_key({"model": "a"}) == harvest_key({"model": "a"}) != harvest_key({"model": "b"})
    True
    """
    text = json.dumps({"format": FORMAT, **description}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shard_name(split: str, number: int) -> str:
    """Names the file of a shard.

    Args:
        split: train, validation or test.
        number: number of the shard in the split, from 0.

    Returns:
        The file name, such as `train-00000.safetensors`.
    """
    return f"{split}-{number:05d}.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> FileEntry:
    """Writes tensors as a safetensors file, whole or not at all.

    Args:
        path: of the file, which is replaced if it exists.
        tensors: by their names in the file.

    Returns:
        Size and checksum of the file.

    Raises:
        UnwritableCacheError: the disk is full or cannot be written.
    """
    with os_errors_as_unwritable(path), atomic_write(path) as temporary:
        with safetensors_written(temporary):
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        return file_entry(temporary)


def write_json(path: Path, value: Any) -> FileEntry:
    """Writes a value as a JSON file, whole or not at all.

    Args:
        path: of the file, which is replaced if it exists.
        value: JSON-serialisable.

    Returns:
        Size and checksum of the file.

    Raises:
        UnwritableCacheError: the disk is full or cannot be written.
    """
    with os_errors_as_unwritable(path), atomic_write(path) as temporary:
        temporary.write_bytes(_json_bytes(value))
        return file_entry(temporary)


def read_json(path: Path) -> Any:
    """Reads the JSON file at a path.

    Returns:
        Its value.

    Raises:
        DamagedCacheError: the file is no JSON.
        FileNotFoundError: there is no such file.
    """
    try:
        return json.loads(regular(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise DamagedCacheError([path], str(error)) from error


def write_index(path: Path, index: Mapping[str, Any]) -> None:
    """Writes an index, whole or not at all, with a checksum of its own content in front.

    Args:
        path: of the file.
        index: JSON-serialisable, with the entries of files by their names under "shards", "files" or "moments".

    Raises:
        UnwritableCacheError: the disk is full or cannot be written.
    """
    write_json(path, _with_checksum(index))


def read_index(path: Path, entry: str) -> dict[str, Any]:
    """Reads an index that `write_index` wrote, with the checks of `parse_index`.

    Args:
        path: of the file.
        entry: "shards", "files" or "moments", under which the entries of files stand.

    Returns:
        The index without its checksum, as `parse_index` returns it.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedCacheError: a byte was altered, or the file is no such index.
    """
    try:
        with regular(path).open("rb") as stream:
            return parse_index(stream.read(MAX_INDEX_BYTES + 1), entry)
    except ValueError as error:
        raise DamagedCacheError([path], str(error)) from error


def parse_index(content: bytes, entry: str) -> dict[str, Any]:
    """Returns the index that a file holds, after checking its checksum and the entries of files in it.

    The checksum protects against damage only, as anybody can compute it. Against an index that was made to do harm, the
    names of the files must be those of this format, and each must come with a size and a checksum.

    Args:
        content: of the file.
        entry: "shards", "files" or "moments", under which the entries of files stand.

    Returns:
        The index without its checksum; under `entry` it has a `FileEntry` for each file name, or a `ShardEntry` for "shards".

    Raises:
        ValueError: the content is no such index; the message is half a sentence that says what is wrong.
    """
    try:
        if len(content) > MAX_INDEX_BYTES:
            raise ValueError
        index = json.loads(content)
        stated = index.pop("checksum")
        intact = _json_bytes(_with_checksum(index)) == content and _with_checksum(index)["checksum"] == stated
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        intact, index = False, {}
    if not intact:
        raise ValueError("altered: it is not what its checksum was taken of")
    entries = index.get(entry)
    if not isinstance(entries, dict):
        raise ValueError(f"altered: it has no {entry}")
    for name, stated in entries.items():
        if not re.fullmatch(_ALLOWED_NAMES[entry], name, re.ASCII):
            raise ValueError(f"altered: it names {name!r}, and only files of this format lie here")
        if not _is_file_entry(stated, ("bytes", "rows") if entry == "shards" else ("bytes",)):
            raise ValueError(f"altered: what it states of {name} is no size and checksum")
    return index


def read_tensors(path: Path, *names: str) -> dict[str, Tensor]:
    """Reads tensors of a safetensors file.

    Args:
        path: of the file.
        names: names of the tensors; all if none is given.

    Returns:
        The tensors by their names, memory-mapped, with the shapes and dtypes of the file.

    Raises:
        DamagedCacheError: the file is missing or cannot be read, or has no tensor of that name.
    """
    try:
        with safe_open(regular(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in names or file.keys()}  # not a dict
    except (SafetensorError, FileNotFoundError, ValueError) as error:
        raise DamagedCacheError([path], str(error)) from error


def file_entry(path: Path) -> FileEntry:
    """Returns size and SHA-256 of a file. Cost: one read at about 1.5 GB/s."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def check_files(folder: Path, entries: Mapping[str, FileEntry], *, every_byte: bool) -> None:
    """Compares files with what their index states of them.

    Args:
        folder: that the files lie in.
        entries: what the index states, by the names of the files.
        every_byte: whether checksums are compared, too; if not, only sizes are.

    Raises:
        DamagedCacheError: names all files that are missing or of another size, or else all with another checksum.

    Cost: with `every_byte` one read of all files, about 1.5 GB/s and core.
    """
    wrong = [
        folder / name
        for name, stated in entries.items()
        if not (folder / name).exists() or (folder / name).stat().st_size != stated["bytes"]
    ]
    if wrong:
        raise DamagedCacheError(wrong, "missing or truncated")
    if every_byte:
        with ThreadPoolExecutor() as pool:  # hashing and reading release Python's global lock
            found = pool.map(lambda name: file_entry(folder / name)["sha256"], entries)
            wrong = [folder / name for name, now in zip(entries, found, strict=True) if now != entries[name]["sha256"]]
        if wrong:
            raise DamagedCacheError(wrong, "altered: its checksum is not the one in the index")


def remove_unfinished(folder: Path) -> None:
    """Removes what a killed process left half-written in a folder, also by safetensors itself.

    The caller holds the folder's lock, so that nobody is writing there.
    """
    for pattern in (f"{UNFINISHED}*", ".tmp*"):
        for found in list(folder.rglob(pattern)):
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink(missing_ok=True)


def _is_file_entry(stated: Any, counts: tuple[str, ...]) -> bool:
    """Whether a value has just these counts and a SHA-256."""
    return (
        isinstance(stated, dict)
        and set(stated) == {*counts, "sha256"}
        and all(type(stated[name]) is int and 0 <= stated[name] < 2**63 for name in counts)
        and isinstance(stated["sha256"], str)
        and re.fullmatch(r"[0-9a-f]{64}", stated["sha256"], re.ASCII) is not None
    )


def _json_bytes(value: Any) -> bytes:
    return f"{json.dumps(value, indent=1)}\n".encode()


def _with_checksum(index: Mapping[str, Any]) -> dict[str, Any]:
    return {"checksum": hashlib.sha256(_json_bytes(dict(index))).hexdigest(), **index}
