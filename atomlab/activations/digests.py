"""What a file is, by its content: SHA-256, remembered for as long as the file's size, times and inode stay the same."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from atomlab.files import place, sha256

_WORTH = 1 << 20  # bytes: a smaller file is read as fast as the memory of digests
_SETTLED = 2e9  # nanoseconds: a file younger than a clock's coarsest step may change again without a trace


def file_digest(file: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits.

    Digests of files above a megabyte are remembered in `digests.json` of atomlab's cache folder (`ATOMLAB_CACHE`, by
    default `~/.cache/atomlab`): by path, size, inode and the times of the last change of content and of status. Where
    that folder cannot be written, nothing is remembered.

    Cost: one read at about 1.5 GB/s the first time, and nothing after it.

    Raises:
        OSError: the file cannot be read.
    """
    stat = file.stat()
    if stat.st_size < _WORTH:
        return sha256(file)
    name = str(file.resolve())
    state = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
    memory = Path(os.environ.get("ATOMLAB_CACHE") or "~/.cache/atomlab").expanduser() / "digests.json"
    known = _read(memory)
    entry = known.get(name)
    if isinstance(entry, list) and len(entry) == 2 and entry[0] == state and isinstance(entry[1], str):
        return entry[1]
    digest = sha256(file)
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED:
        _remember(memory, _read(memory) | {name: [state, digest]})
    return digest


def _read(memory: Path) -> dict[str, object]:
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(memory: Path, known: dict[str, object]) -> None:
    """All or nothing; what another process remembers at the same moment may be lost, and is then read again."""
    with suppress(OSError), place(memory) as temporary:
        temporary.write_text(json.dumps(known), encoding="utf-8")
