"""Harvests that lie elsewhere, at any fsspec URL. Everything is checked before it enters the cache.

Whoever can write there can make any index, with any checksum. So every index is checked as a whole before a file that
it names is copied. Every file is copied to a folder aside, and compared with its size, its digest and what a harvest
consists of. Only a whole and sound harvest is renamed into the cache.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import fsspec
import torch
from filelock import FileLock

from atomlab.activations.model.sites import HookPoint
from atomlab.activations.store.activation_store import read_shard
from atomlab.activations.store.files import (
    INDEX,
    LOCK,
    MAX_INDEX_BYTES,
    DamagedCacheError,
    FileEntry,
    ShardEntry,
    UnwritableCacheError,
    check_files,
    os_errors_as_unwritable,
    parse_index,
    shard_name,
)
from atomlab.activations.store.row_origins import SEQUENCE_FILES, TOKENS_INDEX, Origins, has_sequences, read_sequences
from atomlab.activations.tokens.tokenise import SPLITS
from atomlab.files import UNFINISHED, atomic_write

_BLOCK = 8 * 2**20


def fetch(url: str, folder: Path, points: Sequence[HookPoint]) -> None:
    """Copies the hook points that are complete at a URL into a folder; what is not there is left to the harvest.

    What arrived before an interruption is not copied again. Of what is refused nothing stays.

    Args:
        url: URL of a harvest's folder, such as s3://bucket/activations/<key>, hf://datasets/... or memory://...
        folder: its local copy.
        points: the hook points that are wanted.

    Raises:
        ValueError: files that are no harvest; the message says which.
        UnwritableCacheError: the folder has no room or cannot be written.
        OSError: the address or the network is at fault.

    Cost: one copy, hashed while it arrives, and one read of it.
    """
    source = _Source(url)
    if not source.has(TOKENS_INDEX):
        return
    aside = folder / f"{UNFINISHED}source"
    with os_errors_as_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / LOCK).acquire()
    with held:
        try:
            if not has_sequences(folder):
                _fetch_sequences(source, folder, aside)
            for point in points:
                if not _complete(folder, point) and source.has(f"{point}/{INDEX}"):
                    _fetch_point(source, folder, point, aside / "point")
        except ValueError as error:
            shutil.rmtree(aside, ignore_errors=True)
            what = error.what if isinstance(error, DamagedCacheError) else error
            raise ValueError(
                f"activations.harvest.source: what lies at {url} is refused ({what}); name another source, or none (null)."
            ) from error
        shutil.rmtree(aside, ignore_errors=True)


def _complete(folder: Path, point: HookPoint) -> bool:
    """Returns whether a hook point is complete. Raises ValueError if its folder, with all links followed, lies elsewhere."""
    own = folder / str(point)
    if not own.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{own} leads out of the cache")
    return (own / INDEX).exists()


def _fetch_sequences(source: "_Source", folder: Path, aside: Path) -> None:
    content, index = source.index(TOKENS_INDEX, "files")
    records = index["files"]
    if set(records) != SEQUENCE_FILES:
        raise ValueError(f"{TOKENS_INDEX} should name {', '.join(sorted(SEQUENCE_FILES))}")
    source.copy("", records, aside)
    for split in SPLITS:
        Origins.read(aside, split)
    with os_errors_as_unwritable(folder):
        for name in records:
            (aside / name).replace(folder / name)
        with atomic_write(folder / TOKENS_INDEX) as file:
            file.write_bytes(content)


def _fetch_point(source: "_Source", folder: Path, point: HookPoint, aside: Path) -> None:
    """A whole folder is renamed into place: a reader sees all of it or nothing."""
    name = f"{point}/{INDEX}"
    content, index = source.index(name, "shards")
    shards = index["shards"]
    if index.get("hook_point") != str(point):
        raise ValueError(f"{name} is about {index.get('hook_point')!r}")
    expected = {split: read_sequences(folder, split).rows for split in SPLITS}
    if not _covers(shards, expected):
        raise ValueError(f"{name} does not name the shards of {expected} rows in their order")
    source.copy(f"{point}/", shards, aside)
    for shard, stated in shards.items():
        kind = _kind_of_shard(aside / shard, stated["rows"])
        if kind != (index.get("dtype"), index.get("width")):
            raise ValueError(f"{shard} is not of dtype {index.get('dtype')!r} and width {index.get('width')!r}")
    target = folder / str(point)
    with os_errors_as_unwritable(target):
        (aside / INDEX).write_bytes(content)
        if target.exists():  # half a harvest, which this replaces
            shutil.rmtree(target)
        aside.replace(target)


def _covers(shards: Mapping[str, ShardEntry], rows: Mapping[str, int]) -> bool:
    """Returns whether each split has its shards, numbered from 0, with as many rows in all as it has kept tokens."""
    for split, expected in rows.items():
        mine = [name for name in shards if name.startswith(f"{split}-")]
        if not mine or mine != [shard_name(split, number) for number in range(len(mine))]:
            return False
        if sum(shards[name]["rows"] for name in mine) != expected:
            return False
    return True


def _kind_of_shard(file: Path, rows: int) -> tuple[str, int]:
    """Returns dtype and width. Raises ValueError for activations that are not finite, or do not have the norms beside them."""
    x, norms = read_shard(file, rows)
    # each a float32 sum of `width` squares in some order, within width·ε of the exact one
    tolerance = 2 * x.shape[1] * torch.finfo(torch.float32).eps
    if not torch.allclose(x.float().norm(dim=1), norms, rtol=tolerance, atol=0) or not norms.isfinite().all():
        raise ValueError(f"{file.name} has activations that are not finite, or not of the norms beside them")
    return str(x.dtype).removeprefix("torch."), x.shape[1]


@final
class _Source:
    """Reads files under a URL. Everything that goes wrong in reaching them is an OSError that names the URL.

    Args:
        url: any URL that fsspec knows.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        with self._reached():
            self.filesystem, self.path = fsspec.url_to_fs(url)

    def has(self, name: str) -> bool:
        """Returns whether a file is there. fsspec's own `exists` takes a network that fails for a file that is not there."""
        with self._reached():
            try:
                self.filesystem.info(f"{self.path}/{name}")
            except FileNotFoundError as error:
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from error
                return False
        return True

    def index(self, name: str, entry: str) -> tuple[bytes, dict[str, Any]]:
        """Returns the bytes of an index, and what they say. Raises ValueError as `parse_index`."""
        self._size(name)
        content = b"".join(self._parts(name, MAX_INDEX_BYTES + 1))
        try:
            return content, parse_index(content, entry)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def copy(self, prefix: str, records: Mapping[str, FileEntry], aside: Path) -> None:
        """Copies the files that are not in `aside` yet.

        Raises:
            ValueError: a file is not of the size or the checksum that is stated of it.
            UnwritableCacheError: no room.
        """
        with os_errors_as_unwritable(aside):
            aside.mkdir(parents=True, exist_ok=True)
        missing = {name: stated for name, stated in records.items() if not _arrived(aside, name, stated)}
        for name, stated in missing.items():
            if (size := self._size(prefix + name)) not in (None, stated["bytes"]):
                raise ValueError(f"{name} has {size} bytes and {stated['bytes']} are stated")
        needed, free = sum(stated["bytes"] for stated in missing.values()), shutil.disk_usage(aside).free
        if needed > free:
            raise UnwritableCacheError(
                errno.ENOSPC, f"needs {needed / 1e9:.3g} GB and has {free / 1e9:.3g} GB left", str(aside)
            )
        for name, stated in missing.items():
            self._copy(prefix + name, aside / name, stated)

    def _copy(self, name: str, target: Path, stated: FileEntry) -> None:
        """Copies a file, and never reads more than one byte beyond the size that is stated of it."""
        digest, size = hashlib.sha256(), 0
        with os_errors_as_unwritable(target):
            stream = target.open("wb")
        with stream:
            for part in self._parts(name, stated["bytes"] + 1):
                size += len(part)
                digest.update(part)
                with os_errors_as_unwritable(target):
                    stream.write(part)
            with os_errors_as_unwritable(target):
                stream.flush()
                os.fsync(stream.fileno())
        if (size, digest.hexdigest()) != (stated["bytes"], stated["sha256"]):
            raise ValueError(f"{name}: altered or truncated, its size or checksum is not the one in the index")

    def _size(self, name: str) -> int | None:
        """Returns the size in bytes; None if the source does not tell. Raises ValueError for a folder, a pipe or a device."""
        with self._reached():
            found = self.filesystem.info(f"{self.path}/{name}")
        if found.get("type") != "file":
            raise ValueError(f"{name} is no ordinary file")
        return found.get("size")

    def _parts(self, name: str, limit: int) -> Iterator[bytes]:
        """Yields the first `limit` bytes of a file, in parts."""
        with self._reached(), self.filesystem.open(f"{self.path}/{name}", "rb") as stream:
            while limit > 0 and (part := stream.read(min(limit, _BLOCK))):
                limit -= len(part)
                yield part

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each kind of source has errors of its own
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise OSError(
                f"activations.harvest.source={self.url} could not be reached ({reason}): check the address, the network and your "
                f"access, or harvest without it (activations.harvest.source=null)."
            ) from error


def _arrived(aside: Path, name: str, stated: FileEntry) -> bool:
    try:
        check_files(aside, {name: stated}, every_byte=True)
    except ValueError:
        return False
    return True
