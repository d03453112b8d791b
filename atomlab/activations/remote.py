"""Harvests from elsewhere: any fsspec URL, read through a copy that is checked on arrival."""

from collections.abc import Sequence
from pathlib import Path

import fsspec
from filelock import FileLock

from atomlab.activations.origins import TOKENS
from atomlab.activations.sites import HookPoint
from atomlab.activations.store import INDEX, LOCK, check, place, read_index


def fetch(url: str, folder: Path, points: Sequence[HookPoint]) -> None:
    """Copies the hook points that are complete at `url` into `folder`, index last; what is not there is left to the
    harvest.

    Args:
        url: of a harvest's folder, e.g. s3://bucket/activations/<key>, hf://datasets/..., memory://...
        folder: its local copy, which is memory-mapped.
        points: wanted.

    Raises:
        ValueError: a file that does not arrive as the index states.
        OSError: the network or the disk.
    """
    filesystem, path = fsspec.url_to_fs(url)
    if not filesystem.exists(f"{path}/{TOKENS}"):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        _fetch(filesystem, path, folder, TOKENS, "files")
        for point in points:
            if filesystem.exists(f"{path}/{point}/{INDEX}"):
                _fetch(filesystem, f"{path}/{point}", folder / str(point), INDEX, "shards")


def _fetch(filesystem: fsspec.AbstractFileSystem, path: str, folder: Path, index: str, entry: str) -> None:
    if (folder / index).exists():
        return
    with place(folder / index) as arriving:
        filesystem.get_file(f"{path}/{index}", str(arriving))
        records = read_index(arriving)[entry]
        for name in records:
            if not (folder / name).exists():
                with place(folder / name) as file:
                    filesystem.get_file(f"{path}/{name}", str(file))
        check(folder, records, every_byte=True)
