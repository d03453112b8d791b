"""What a format finds at a path: which SAE lies there, and how to read its weights."""

import logging
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from atomlab.sae import SAE, Origin

_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True)
class Found:
    """An SAE whose format and origin are known, and whose weights have not been read.

    Attributes:
        file: the file of its weights.
        origin: what its files say of it.
        read: reads it, in float32 on the CPU; it raises ValueError for weights that are not those of such an SAE.
    """

    file: Path
    origin: Origin
    read: Callable[[], SAE]


def transcoder(path: Path, kind: str, reads: object = None, writes: object = None) -> ValueError:
    """Makes the error that refuses a transcoder.

    Args:
        path: where it lies.
        kind: its format, with an article.
        reads: the site that it reads, if it says.
        writes: the site that it reconstructs, if it says.
    """
    sites = f", which reads {reads} and reconstructs {writes}" if reads and writes else ""
    return ValueError(
        f"{path} is {kind} with a transcoder{sites}: transcoders are not supported yet, so give an SAE, which reconstructs "
        "what it reads."
    )


def warn_of_transcoders(file: Path, beside: str) -> None:
    """Logs that a file may as well be a transcoder, whose tensors are the same, and is read as an SAE.

    Args:
        file: of the weights.
        beside: what would say it.
    """
    _log.warning(
        "%s may be a transcoder, whose tensors are the same, and is read as an SAE that reconstructs what it reads: %s says "
        "nothing of it.", file, beside,
    )  # fmt: skip


def cannot_hold(path: Path, kind: str, what: str, remedy: str) -> ValueError:
    """Makes the error that refuses an SAE that computes what no class of this package computes.

    Args:
        path: where it lies.
        kind: its format, with an article.
        what: what it has that cannot be held.
        remedy: what the user can do, as the end of a sentence.
    """
    return ValueError(f"{path} is {kind} with {what}, which no SAE class of atomlab computes: {remedy}.")


def folder_of(path: Path, *names: str) -> Path:
    """Returns the folder that a path means: the path itself, or the folder of a file with one of these names."""
    return path.parent if path.name in names and not path.is_dir() else path


def folders_of(file: Path) -> list[Path]:
    """Returns the folder that a file lies in: as its path is given, and, if that is another, as links of folders lead to it.

    A link of the file itself is not followed: in the hub's cache every file is one, and leads to a blob whose path says
    nothing.

    Args:
        file: the file; it exists.
    """
    return list(dict.fromkeys((Path(os.path.abspath(file)).parent, file.parent.resolve())))


def names_above(file: Path) -> list[str]:
    """Returns the names of the folders that a file lies in (`folders_of`), the innermost first.

    The folder of a repository in the hub's cache, `models--<owner>--<name>`, has the name of the repository.
    """
    names = (name for folder in folders_of(file) for name in reversed(folder.parts))
    return [re.sub(r"^models--.+?--", "", name) for name in names]


def first_match(pattern: re.Pattern[str], names: Iterable[str]) -> re.Match[str] | None:
    """Returns the first of several names that a pattern matches as a whole; None if it matches none."""
    return next((found for name in names if (found := pattern.fullmatch(name))), None)
