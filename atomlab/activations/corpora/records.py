"""Reads the records of data files one at a time, each with its location.

A record that cannot be parsed comes with the reason, so that it can be left out while the others are read.
"""

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

RECORD_SUFFIXES = (".jsonl", ".json", ".parquet")
_ROWS_AT_ONCE = 1024


class UnusableRecordError(ValueError):
    """Why a record cannot be used, as half a sentence that follows the record's location."""


@dataclass(frozen=True)
class Record:
    """A record of a data file.

    Attributes:
        location: file and number of the line or record, counted from 1.
        fields: the values by the names of the fields, or why there are none. A byte that is not UTF-8 is a lone
            surrogate in the text.
    """

    location: str
    fields: dict[str, Any] | UnusableRecordError


@final
class DataFiles:
    """Data files of this machine, which are identified by their content before they are read.

    Args:
        root: the folder that the names of the files are relative to, or the file itself if there is only one.
        files: the files in the order of reading.
    """

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root, self.files = root, list(files)

    @cached_property
    def identity(self) -> list[list[str]]:
        """Name and SHA-256 of each file in the order of reading, as they were when this was first asked for.

        Names are relative to the root; a file that is the root itself has its suffix instead, which says how it is
        read.

        Raises:
            FileNotFoundError: one of the files does not exist.
            ValueError: one of them is no regular file, or cannot be read.
        """
        return self._digests()

    def records(self, read: Callable[[Path, str], Iterator[Record]]) -> Iterator[Record]:
        """Reads the records of all files, one file after the other.

        Args:
            read: yields the records of one file; called with the file and its name for error messages.

        Returns:
            Iterator over the records in the order of the files; they are read as they are asked for.

        Raises:
            FileNotFoundError, ValueError: as `identity`, and what `read` raises.
        """
        assert self.identity is not None  # identified before it is read
        return chain.from_iterable(_readable(file, read(regular(file), self._title(file))) for file in self.files)

    def check_unchanged(self) -> None:
        """Raises ValueError if a file no longer has the content that `identity` states.

        So nothing is kept under the identity of other content.
        """
        if self.identity != self._digests():
            raise ValueError(f"The files of {self.root} changed while they were read: start again when they are final.")

    def _digests(self) -> list[list[str]]:
        return [[self._name(file), _digest(file)] for file in self.files]

    def _name(self, file: Path) -> str:
        return file.suffix if file == self.root else Path(os.path.relpath(file, self.root)).as_posix()

    def _title(self, file: Path) -> str:
        return file.name if file == self.root else self._name(file)


def read_records(file: Path, name: str) -> Iterator[Record]:
    """Reads a .jsonl, .json (an array, or one record a line) or .parquet file record by record.

    Args:
        file: a regular file.
        name: name of the file in the locations of the records.

    Yields:
        The records in the order of the file. One that cannot be parsed holds the reason in place of its fields.

    Raises:
        ValueError: the suffix is another one, a .json file is neither an array nor one record a line, or a .parquet
            file is damaged.

    Cost: .jsonl and .parquet are read part by part; a .json file is held in memory.
    """
    if file.suffix == ".jsonl":
        with file.open("rb") as stream:
            yield from _json_lines(stream, name)
    elif file.suffix == ".json":
        yield from _json_array(file.read_bytes(), name)
    elif file.suffix == ".parquet":
        yield from _parquet_rows(file, name)
    else:
        raise ValueError(
            f"corpus.path={file} ends in {file.suffix!r}: expected .txt, .jsonl, .json, .parquet or a folder of .txt files."
        )


def saved_dataset_files(folder: Path) -> list[Path]:
    """Finds the data files of a folder that `save_to_disk` wrote.

    Args:
        folder: the folder of one split.

    Returns:
        Paths of the files that state.json names, in the order of reading; whether they exist is not checked.

    Raises:
        FileNotFoundError: the folder has no state.json.
        ValueError: state.json names no data files, or files of another folder.
    """
    try:
        entries = json.loads(decode_utf8(regular(folder / "state.json").read_bytes()))["_data_files"]
        names = [entry["filename"] for entry in entries]
        if not all(Path(name).name == name for name in names):
            raise ValueError("a file of another folder")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{folder / 'state.json'} does not name the dataset's files ({_first_line(error)}): save it again."
        ) from error
    return [folder / name for name in names]


def decode_utf8(content: bytes) -> str:
    """Returns UTF-8 content as text, without a byte order mark.

    A byte that is not UTF-8 becomes a lone surrogate, so that only its record is bad and not the whole file.
    """
    return content.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")


def _json_lines(lines: Iterable[bytes], name: str) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if line.strip().removeprefix(codecs.BOM_UTF8):
            yield Record(f"{name}, line {number}", _fields_of_line(line))


def _fields_of_line(line: bytes) -> dict[str, Any] | UnusableRecordError:
    try:
        return _fields(json.loads(decode_utf8(line)))
    except (ValueError, RecursionError) as error:
        return UnusableRecordError(f"it is not JSON ({_first_line(error)})")


def _fields(value: Any) -> dict[str, Any] | UnusableRecordError:
    if isinstance(value, dict):
        return value
    return UnusableRecordError(f"it is {_json_type(value)} and no object with named fields")


def _json_array(content: bytes, name: str) -> Iterator[Record]:
    text = decode_utf8(content)
    if not text.strip():
        return
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("["):
            raise ValueError(f"{name} is a broken JSON array ({_first_line(error)}): write it again.") from error
        yield from _json_lines(content.split(b"\n"), name)
        return
    if not isinstance(value, list):
        keys = f" with the keys {', '.join(map(repr, list(value)[:8]))}" if isinstance(value, dict) else ""
        raise ValueError(
            f"{name} holds {_json_type(value)}{keys}: expected an array of records; write that array alone, or one record "
            f"a line."
        )
    yield from (Record(f"{name}, record {number}", _fields(item)) for number, item in enumerate(value, 1))


def _parquet_rows(file: Path, name: str) -> Iterator[Record]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(file, page_checksum_verification=True) as table:
            for batch in table.iter_batches(_ROWS_AT_ONCE):
                for fields in _arrow_rows(batch):
                    number += 1
                    yield Record(f"{name}, record {number}", fields)
    except (ArrowException, OSError) as error:
        raise ValueError(
            f"{name} is damaged after record {number}, or no Parquet file ({_first_line(error)}): copy or write it again."
        ) from error


def _arrow_rows(batch: Any) -> Iterator[dict[str, Any] | UnusableRecordError]:
    """The rows of an Arrow batch; one that cannot be converted (bytes that are not UTF-8) does not stop the others."""
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError):
        pass
    for number in range(batch.num_rows):
        try:
            yield batch.slice(number, 1).to_pylist()[0]
        except (ValueError, OverflowError) as error:
            yield UnusableRecordError(f"it cannot be converted ({_first_line(error)})")


def _digest(file: Path) -> str:
    try:
        return file_digest(regular(file))
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"{file} cannot be read ({_first_line(error)}): check its permissions, or copy it again."
        ) from error


def _readable(file: Path, records: Iterator[Record]) -> Iterator[Record]:
    try:
        yield from records
    except OSError as error:
        raise ValueError(
            f"{file} cannot be read ({_first_line(error)}): check its permissions, or copy it again."
        ) from error


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    kinds = ((bool, "true or false"), (int | float, "a number"), (str, "a string"), (list, "a list"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "one object")


def _first_line(error: BaseException) -> str:
    """The first line of another library's message, 200 characters at most."""
    strerror = getattr(error, "strerror", None)
    return strerror or next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
