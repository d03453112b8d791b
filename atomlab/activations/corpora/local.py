"""Text files of this machine."""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, final

from atomlab.activations.corpora.corpus import Example, Position, Tally, check_limit, document
from atomlab.activations.corpora.records import Files, Record, decoded, read_records, regular


@final
class LocalText:
    """A folder of .txt files (one document each), one .txt (documents parted by blank lines), .jsonl, .json or
    .parquet.

    It is named by what its files hold when it is first asked for; after editing them, make a new one.

    Args:
        path: file or folder.
        field: of the text, or of token ids, in .jsonl, .json and .parquet.
        group_field: of what a held-out split must not tear apart (None: each text for itself, its copies included).
        packed: pack documents into full contexts (running text), or keep one a sequence (prompts).
        position: `all`, or for prompts `last`.
        limit: at most this many documents are harvested.
        max_bad_share: of the records that may be bad and are left out (`Tally`); 0 refuses the first one.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: an unknown suffix, a file that cannot be read, or more bad records than `max_bad_share`.
    """

    def __init__(
        self,
        path: str,
        *,
        field: str = "text",
        group_field: str | None = None,
        packed: bool = True,
        position: Position = "all",
        limit: int | None = None,
        max_bad_share: float = 0.01,
    ) -> None:
        self.path, self.field, self.group_field = Path(path), field, group_field
        check_limit(limit)
        self.packed, self.limit, self.max_bad_share = packed, limit, max_bad_share
        self.position: Position = position
        self.held_out_by = group_field or "document"
        self._named: Files | None = None
        self._tally()
        if position == "last_subject" or (packed and position != "all"):
            raise ValueError(
                f"corpus.position={position} needs prompts (corpus.packed=false), and last_subject the CounterFact corpus."
            )

    @property
    def fingerprint(self) -> dict[str, Any]:
        rules = ("field", "group_field", "packed", "position", "limit", "max_bad_share")
        return {"local": self._files.identity} | {name: getattr(self, name) for name in rules}

    def examples(self) -> Iterator[Example]:
        yield from self._sound(self._records(), self.limit)
        self._files.check_unchanged()

    def stream(self, rank: int, world_size: int) -> Iterator[Example]:
        return self._sound(islice(self._records(), rank, None, world_size))

    def _sound(self, records: Iterator[Record], limit: int | None = None) -> Iterator[Example]:
        example = partial(document, field=self.field, group_field=self.group_field)
        return self._tally().sound(records, example, limit)

    def _tally(self) -> Tally:
        return Tally(f"corpus.path={self.path}", self.max_bad_share)

    @property
    def _files(self) -> Files:
        if self._named is None:
            self._named = files(self.path)
        return self._named

    def _records(self) -> Iterator[Record]:
        return self._files.records(self._texts if self._files.files[0].suffix == ".txt" else read_records)

    def _texts(self, file: Path, name: str) -> Iterator[Record]:
        """The documents of a .txt file, each named by its first line; those without a word are none."""
        text, line = decoded(file.read_bytes()).replace("\r\n", "\n").replace("\r", "\n"), 1
        group = {} if self.group_field is None else {self.group_field: file.name}
        for part in [text] if self.path.is_dir() else text.split("\n\n"):
            if part.strip():
                yield Record(f"{name}, line {line}", {self.field: part} | group)
            line += part.count("\n") + 2


def files(path: Path) -> Files:
    """The file itself, or the .txt files of a folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: one of them is no regular file.
    """
    found = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not found or not (path.is_dir() or path.exists()):
        raise FileNotFoundError(
            f"corpus.path={path} holds no text: give a .txt, .jsonl, .json or .parquet file, or a folder of .txt files."
        )
    for file in found:
        regular(file)
    return Files(path, found)
