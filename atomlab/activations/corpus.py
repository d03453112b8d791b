"""Where text comes from: examples, each in the group that a held-out split must not tear apart.

Running text is packed into full contexts; prompts stay one a sequence. `position` says which tokens' activations are
wanted: `all`, `last`, or `last_subject` (the last token of the prompt's subject).
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, final

import numpy as np

from atomlab.activations.embedded import package_file, wikipedia_articles

Position = Literal["all", "last", "last_subject"]


@dataclass(frozen=True)
class Example:
    """A text or its token ids (without special tokens), its group (document, subject or template) and, in prompts, its subject.

    Attributes:
        text: may be empty if there are ids.
        group: examples of one group are never held out from one another.
        subject: its characters [start, stop) in the text.
        input_ids: of a pre-tokenised corpus.
    """

    text: str
    group: str
    subject: tuple[int, int] | None = None
    input_ids: Sequence[int] | None = None


class Corpus(Protocol):
    """What a corpus offers.

    `fingerprint` is everything that determines its examples, JSON-serialisable. `examples` gives those that are harvested;
    `stream` gives one process's share of all there are, which may be more than a disk holds.
    """

    @property
    def packed(self) -> bool: ...

    @property
    def position(self) -> Position: ...

    @property
    def fingerprint(self) -> dict[str, Any]: ...

    def examples(self) -> Iterator[Example]: ...

    def stream(self, rank: int, world_size: int) -> Iterator[Example]: ...


@final
class WikipediaEmbedded:
    """The Wikipedia articles inside the installed package `gensim`: about 550,000 tokens, split by article."""

    packed = True
    position: Position = "all"

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"wikipedia_embedded": 1, "dump": file_digest(package_file("gensim", "p000030302-shortened.bz2"))}

    def examples(self) -> Iterator[Example]:
        return self.stream(0, 1)

    def stream(self, rank: int, world_size: int) -> Iterator[Example]:
        articles = islice(wikipedia_articles(), rank, None, world_size)
        return (Example(text, group=title) for title, text in articles)


def document(record: dict[str, Any], field: str, group_field: str | None, source: str) -> Example:
    """A record's text, or its token ids if the field holds integers.

    Without a group of its own it is in the group of its content, so that copies of a document are never held out from one another.

    Raises:
        ValueError: no such field, or neither text nor ids in it.
    """
    value = record.get(field)
    if group_field is not None and group_field not in record:
        raise ValueError(f"A record of {source} has no field {group_field!r} but {', '.join(map(str, record))}.")
    group = None if group_field is None else str(record[group_field])
    if isinstance(value, str):
        return Example(value, group or _digest(value.encode()))
    if isinstance(value, list | tuple | np.ndarray) and all(isinstance(token, int | np.integer) for token in value[:9]):
        ids = np.asarray(value, dtype=np.int32)
        return Example("", group or _digest(ids.tobytes()), input_ids=ids.tolist())
    raise ValueError(
        f"A record of {source} has no text field {field!r} but {', '.join(map(str, record))}: name its field of text or "
        f"of token ids."
    )


def file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
