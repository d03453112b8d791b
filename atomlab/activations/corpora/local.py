"""Text files of this machine."""

from collections.abc import Iterator
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, final

from atomlab.activations.corpora.corpus import Example, Position, RecordCounter, check_limit
from atomlab.activations.corpora.parsing import document_example
from atomlab.activations.corpora.records import DataFiles, Record, decode_utf8, read_records
from atomlab.files import regular
from atomlab.ranges import Count, Share


@final
class LocalText:
    """Text of a .txt, .jsonl, .json or .parquet file, or of a folder of .txt files.

    A .txt file alone holds several documents, with blank lines between them; in a folder each .txt file is one
    document. When the fingerprint is first asked for, the corpus is fixed by the content of its files. After editing
    them, make a new object.

    Args:
        path: the file or folder.
        field: name of the field that holds the text, or token ids, in .jsonl, .json and .parquet.
        group_field: name of the field that holds the group; all records of a group go to the same split. None makes a
            group of each document and its copies.
        packed: whether documents are packed into full contexts (running text); if not, each is a sequence of its own
            (prompts).
        position: of which tokens activations are kept: `all`, or for prompts `last`.
        limit: number of documents that are harvested; None harvests all. A stream reads all.
        max_bad_share: largest share of the records that may be bad and are left out (`RecordCounter`); 0 refuses the
            first bad one.

    Raises:
        ValueError: an option is out of range. At first use: the suffix is unknown, a file cannot be read, or more
            records are bad than the share allows.
        FileNotFoundError: at first use: there is nothing at `path`.
    """

    def __init__(
        self,
        path: str,
        *,
        field: str = "text",
        group_field: str | None = None,
        packed: bool = True,
        position: Position = "all",
        limit: Count | None = None,
        max_bad_share: Share = 0.01,
    ) -> None:
        self.path, self.field, self.group_field = Path(path), field, group_field
        check_limit(limit)
        self.packed, self.limit, self.max_bad_share = packed, limit, max_bad_share
        self.position: Position = position
        self.group_kind = group_field or "document"
        self._counter()
        if position == "last_subject" or (packed and position != "all"):
            raise ValueError(
                f"corpus.position={position} needs prompts (corpus.packed=false), and last_subject the CounterFact corpus."
            )

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The content of the files and the options, as in `Corpus`. Raises as the class."""
        rules = ("field", "group_field", "packed", "position", "limit", "max_bad_share")
        return {"local": self._files.identity} | {name: getattr(self, name) for name in rules}

    def examples(self) -> Iterator[Example]:
        """Yields the documents that are harvested, as in `Corpus`.

        Yields:
            The example of each usable record, in the order of the files and of the records in them, at most `limit`.

        Raises:
            FileNotFoundError, ValueError: as the class; also if a file changes while it is read.
        """
        yield from self._usable(self._records(), self.limit)
        self._files.check_unchanged()

    def stream(self, rank: int, world_size: int) -> Iterator[Example]:
        """Gives one process's share of all documents, as in `Corpus`. Each process reads all records.

        Args:
            rank: number of the process, from 0.
            world_size: number of processes.

        Returns:
            Iterator over the examples of the usable ones of every `world_size`-th record, without `limit`.

        Raises:
            FileNotFoundError, ValueError: as the class.
        """
        return self._usable(islice(self._records(), rank, None, world_size))

    def _usable(self, records: Iterator[Record], limit: int | None = None) -> Iterator[Example]:
        make_example = partial(document_example, field=self.field, group_field=self.group_field)
        return self._counter().usable_examples(records, make_example, limit)

    def _counter(self) -> RecordCounter:
        return RecordCounter(f"corpus.path={self.path}", self.max_bad_share)

    @cached_property
    def _files(self) -> DataFiles:
        return text_files(self.path)

    def _records(self) -> Iterator[Record]:
        return self._files.records(self._documents if self._files.files[0].suffix == ".txt" else read_records)

    def _documents(self, file: Path, name: str) -> Iterator[Record]:
        """The documents of a .txt file, each with the number of its first line; blank ones do not count."""
        text, line = decode_utf8(file.read_bytes()).replace("\r\n", "\n").replace("\r", "\n"), 1
        group = {} if self.group_field is None else {self.group_field: file.name}
        for part in [text] if self.path.is_dir() else text.split("\n\n"):
            if part.strip():
                yield Record(f"{name}, line {line}", {self.field: part} | group)
            line += part.count("\n") + 2


def text_files(path: Path) -> DataFiles:
    """Finds the file at a path, or the .txt files of the folder there.

    Args:
        path: of a file or folder.

    Returns:
        The file, or those of the folder in the order of their names; `path` is their root.

    Raises:
        FileNotFoundError: there is no such file or folder, or no .txt file in the folder.
        ValueError: one of the files is no regular file.
    """
    found = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not found or not (path.is_dir() or path.exists()):
        raise FileNotFoundError(
            f"corpus.path={path} holds no text: give a .txt, .jsonl, .json or .parquet file, or a folder of .txt files."
        )
    for file in found:
        regular(file)
    return DataFiles(path, found)
