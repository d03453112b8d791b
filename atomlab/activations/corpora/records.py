"""Records of data files, one at a time, each with its location; one that cannot be parsed says why and stops nobody."""

import codecs
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, final

from atomlab.files import file_digest, regular

SUFFIXES = (".jsonl", ".json", ".parquet")
_ROWS_AT_ONCE = 1024


class Unusable(ValueError):
    """Why a record cannot be used, as the end of a sentence that starts with the record's location."""


@dataclass(frozen=True)
class Record:
    """A record of a data file.

    Attributes:
        location: file and number of the line or record, counted from 1.
        fields: by name, or why there are none. A byte that is not UTF-8 is a lone surrogate in the text.
    """

    location: str
    fields: dict[str, Any] | Unusable


@final
class Files:
    """Data files of this machine, named by their content when they are first asked for.

    Args:
        root: the folder that the files are named from, or the only file.
        files: in the order of reading.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: one of them is no regular file, or cannot be read.
    """

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root, self.files = root, list(files)

    @cached_property
    def identity(self) -> list[list[str]]:
        """Name, seen from the root, and SHA-256 of each file in the order of reading; of a root that is a file, the
        suffix, which says how it is read.
        """
        return self._digests()

    def _digests(self) -> list[list[str]]:
        return [[self._name(file), _digest(file)] for file in self.files]

    def records(self, read: Callable[[Path, str], Iterator[Record]]) -> Iterator[Record]:
        """What `read` makes of each file and the name to show for it, one file after the other."""
        assert self.identity is not None  # named before it is read
        return chain.from_iterable(_readable(file, read(regular(file), self._shown(file))) for file in self.files)

    def check_unchanged(self) -> None:
        """Raises ValueError if a file is not what it was when it was named: nothing is kept under a wrong name."""
        if self.identity != self._digests():
            raise ValueError(f"The files of {self.root} changed while they were read: start again when they are final.")

    def _name(self, file: Path) -> str:
        return file.suffix if file == self.root else Path(os.path.relpath(file, self.root)).as_posix()

    def _shown(self, file: Path) -> str:
        return file.name if file == self.root else self._name(file)


def read_records(file: Path, name: str) -> Iterator[Record]:
    """The records of a .jsonl, .json (an array, or one record a line) or .parquet file.

    Args:
        file: a regular file.
        name: what places call it.

    Raises:
        ValueError: another suffix; a .json file that is neither; a damaged .parquet file.
    """
    if file.suffix == ".jsonl":
        with file.open("rb") as stream:
            yield from _lines(stream, name)
    elif file.suffix == ".json":
        yield from _array(file.read_bytes(), name)
    elif file.suffix == ".parquet":
        yield from _parquet(file, name)
    else:
        raise ValueError(
            f"corpus.path={file} ends in {file.suffix!r}: expected .txt, .jsonl, .json, .parquet or a folder of .txt files."
        )


def saved_files(folder: Path) -> list[Path]:
    """The data files of a folder that `save_to_disk` wrote, in the order of reading.

    Raises:
        FileNotFoundError, ValueError: its state.json is missing or names none.
    """
    try:
        entries = json.loads(decoded(regular(folder / "state.json").read_bytes()))["_data_files"]
        names = [entry["filename"] for entry in entries]
        if not all(Path(name).name == name for name in names):
            raise ValueError("a file of another folder")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{folder / 'state.json'} does not name the dataset's files ({_reason(error)}): save it again."
        ) from error
    return [folder / name for name in names]


def decoded(content: bytes) -> str:
    """UTF-8 without a byte order mark; a byte that is none becomes a lone surrogate, so that only its record is bad."""
    return content.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")


def _lines(lines: Iterable[bytes], name: str) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if line.strip().removeprefix(codecs.BOM_UTF8):
            yield Record(f"{name}, line {number}", _fields(line))


def _fields(line: bytes) -> dict[str, Any] | Unusable:
    try:
        return _object(json.loads(decoded(line)))
    except (ValueError, RecursionError) as error:
        return Unusable(f"it is not JSON ({_reason(error)})")


def _object(value: Any) -> dict[str, Any] | Unusable:
    return value if isinstance(value, dict) else Unusable(f"it is {_kind(value)} and no object with named fields")


def _array(content: bytes, name: str) -> Iterator[Record]:
    text = decoded(content)
    if not text.strip():
        return
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("["):
            raise ValueError(f"{name} is a broken JSON array ({_reason(error)}): write it again.") from error
        yield from _lines(content.split(b"\n"), name)
        return
    if not isinstance(value, list):
        keys = f" with the keys {', '.join(map(repr, list(value)[:8]))}" if isinstance(value, dict) else ""
        raise ValueError(
            f"{name} holds {_kind(value)}{keys}: expected an array of records; write that array alone, or one record a "
            f"line."
        )
    yield from (Record(f"{name}, record {number}", _object(item)) for number, item in enumerate(value, 1))


def _parquet(file: Path, name: str) -> Iterator[Record]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(file, page_checksum_verification=True) as table:
            for batch in table.iter_batches(_ROWS_AT_ONCE):
                for fields in _rows(batch):
                    number += 1
                    yield Record(f"{name}, record {number}", fields)
    except (ArrowException, OSError) as error:
        raise ValueError(
            f"{name} is damaged after record {number}, or no Parquet file ({_reason(error)}): copy or write it again."
        ) from error


def _rows(batch: Any) -> Iterator[dict[str, Any] | Unusable]:
    """Rows of an Arrow batch; where one cannot be converted (bytes that are not UTF-8), the others still are."""
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError):
        pass
    for number in range(batch.num_rows):
        try:
            yield batch.slice(number, 1).to_pylist()[0]
        except (ValueError, OverflowError) as error:
            yield Unusable(f"it cannot be converted ({_reason(error)})")


def _digest(file: Path) -> str:
    try:
        return file_digest(regular(file))
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{file} cannot be read ({_reason(error)}).") from error


def _readable(file: Path, records: Iterator[Record]) -> Iterator[Record]:
    try:
        yield from records
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({_reason(error)}).") from error


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = ((bool, "true or false"), (int | float, "a number"), (str, "a string"), (list, "a list"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "one object")


def _reason(error: BaseException) -> str:
    """The first line of a library's message."""
    strerror = getattr(error, "strerror", None)
    return strerror or next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
