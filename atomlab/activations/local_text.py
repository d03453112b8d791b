"""Text files of this machine."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, final

from atomlab.activations.corpus import Example, Position, document, file_digest


@final
class LocalText:
    """A folder of .txt files (one document each), one .txt (documents parted by blank lines), .jsonl, .json or
    .parquet.

    Args:
        path: file or folder.
        field: of the text, or of token ids, in .jsonl, .json and .parquet.
        group_field: of what a held-out split must not tear apart (None: each text for itself, its copies included).
        packed: pack documents into full contexts (running text), or keep one a sequence (prompts).
        position: `all`, or for prompts `last`.
        limit: at most this many documents are harvested.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: an unknown suffix, or records without `field`.
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
    ) -> None:
        self.path, self.field, self.group_field = Path(path), field, group_field
        self.packed, self.limit = packed, limit
        self.position: Position = position
        if position == "last_subject" or (packed and position != "all"):
            raise ValueError(
                f"corpus.position={position} needs prompts (corpus.packed=false), and last_subject the CounterFact corpus."
            )

    @property
    def fingerprint(self) -> dict[str, Any]:
        rules = {name: getattr(self, name) for name in ("field", "group_field", "packed", "position", "limit")}
        return {"local": [file_digest(file) for file in files(self.path)]} | rules

    def examples(self) -> Iterator[Example]:
        return islice(self.stream(0, 1), self.limit)

    def stream(self, rank: int, world_size: int) -> Iterator[Example]:
        records = (record for file in files(self.path) for record in self._records(file))
        for record in islice(records, rank, None, world_size):
            yield document(record, self.field, self.group_field, str(self.path))

    def _records(self, file: Path) -> Iterator[dict[str, Any]]:
        if file.suffix != ".txt":
            yield from records(file)
            return
        text = file.read_text(encoding="utf-8")
        name = {} if self.group_field is None else {self.group_field: file.name}
        yield from ({self.field: part} | name for part in (text.split("\n\n") if self.path.is_file() else [text]))


def files(path: Path) -> list[Path]:
    """The file itself, or the .txt files of a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not found or not found[0].is_file():
        raise FileNotFoundError(
            f"corpus.path={path} holds no text: give a .txt, .jsonl, .json or .parquet file, or a folder of .txt files."
        )
    return found


def records(file: Path) -> Iterator[dict[str, Any]]:
    """The records of a .jsonl, .json (one array) or .parquet file.

    Raises:
        ValueError: another suffix.
    """
    if file.suffix == ".jsonl":
        with file.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines if line.strip())
    elif file.suffix == ".json":
        yield from json.loads(file.read_text(encoding="utf-8"))
    elif file.suffix == ".parquet":
        from datasets import Dataset

        yield from Dataset.from_parquet(str(file))  # type: ignore[misc]  # one Dataset, not a dict of splits
    else:
        raise ValueError(
            f"corpus.path={file} ends in {file.suffix!r}: expected .txt, .jsonl, .json, .parquet or a folder of .txt files."
        )
