"""Where text comes from: examples, each in the group that a held-out split must not tear apart.

Running text is packed into full contexts; prompts stay one a sequence. `position` says which tokens' activations are wanted: `all`,
`last`, or `last_subject` (the last token of the prompt's subject).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, final

from atomlab.activations.embedded import package_file, wikipedia_articles

Position = Literal["all", "last", "last_subject"]


@dataclass(frozen=True)
class Example:
    """A text or its token ids, the group it belongs to (document, subject or template) and, for prompts, the characters of its subject."""

    text: str
    group: str
    subject: tuple[int, int] | None = None
    input_ids: Sequence[int] | None = None


class Corpus(Protocol):
    """What a corpus offers; `fingerprint` is everything that determines its examples, JSON-serialisable."""

    @property
    def packed(self) -> bool: ...

    @property
    def position(self) -> Position: ...

    @property
    def fingerprint(self) -> dict[str, Any]: ...

    def examples(self) -> Iterator[Example]: ...


@final
class WikipediaEmbedded:
    """The Wikipedia articles inside the installed package `gensim`: about 550,000 tokens, split by article."""

    packed = True
    position: Position = "all"

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"wikipedia_embedded": 1, "dump": _file_digest(package_file("gensim", "p000030302-shortened.bz2"))}

    def examples(self) -> Iterator[Example]:
        return (Example(text, group=title) for title, text in wikipedia_articles())


@final
class LocalText:
    """Text of this machine: a folder of .txt files (one document each), one .txt (documents parted by blank lines), .jsonl or .parquet.

    Args:
        path: file or folder.
        field: the text's field in .jsonl and .parquet.
        packed: pack documents into full contexts (running text), or keep one a sequence (prompts).
        position: `all`, or for prompts `last`.
        limit: at most this many documents.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: an unknown suffix, or records without `field`.
    """

    def __init__(
        self,
        path: str,
        *,
        field: str = "text",
        packed: bool = True,
        position: Position = "all",
        limit: int | None = None,
    ) -> None:
        self.path, self.field, self.packed, self.position, self.limit = Path(path), field, packed, position, limit
        if position == "last_subject" or (packed and position != "all"):
            raise ValueError(
                f"corpus.position={position} needs prompts (corpus.packed=false), and last_subject the CounterFact corpus."
            )

    @property
    def fingerprint(self) -> dict[str, Any]:
        digests = [_file_digest(file) for file in _files(self.path)]
        return {
            "local": digests,
            "field": self.field,
            "packed": self.packed,
            "position": self.position,
            "limit": self.limit,
        }

    def examples(self) -> Iterator[Example]:
        texts = (text for file in _files(self.path) for text in _texts(file, self.field, single=self.path.is_file()))
        return (Example(text, group=str(number)) for number, text in enumerate(islice(texts, self.limit)))


@final
class HubText:
    """A text dataset of the Hugging Face hub, streamed and split by document.

    Args:
        name: dataset on the hub.
        subset: its configuration, if it has several.
        split: its split.
        revision: commit, tag or branch.
        field: the text's field.
        limit: documents read; the sample is drawn from these.

    Raises:
        FileNotFoundError: no such dataset, or no hub.
    """

    packed = True
    position: Position = "all"

    def __init__(
        self,
        name: str,
        *,
        subset: str | None = None,
        split: str = "train",
        revision: str | None = None,
        field: str = "text",
        limit: int = 20_000,
    ) -> None:
        self.name, self.subset, self.split, self.revision = name, subset, split, revision
        self.field, self.limit = field, limit

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"hub": self.name} | {
            key: getattr(self, key) for key in ("subset", "split", "revision", "field", "limit")
        }

    def examples(self) -> Iterator[Example]:
        records = _hub_records(self.name, self.subset, self.split, self.revision)
        for number, record in enumerate(islice(records, self.limit)):
            yield Example(_field(record, self.field, self.name), group=str(number))


@final
class CounterFact:
    """CounterFact prompts (Meng et al. 2022), one vector a prompt, from a file or the hub, in either schema.

    Schemas: `prompt` and `subject` (the subject occurs in the prompt), or ROME's `requested_rewrite` with `{}` for the subject. Prompts with the
    same text up to the wanted token give the same vector and are kept once.

    Args:
        path: a .jsonl or .json file, or a dataset on the hub (`NeelNanda/counterfact-tracing` has the paper's 21,919 records).
        position: `last_subject` or `last` token. At the last token the templates leak through a split by subject: use split_by=template there.
        split_by: what train, validation and test must not share: `subject` or `template`.
        limit: at most this many records.

    Raises:
        FileNotFoundError, ValueError: as `LocalText`; a subject that its prompt does not contain.
    """

    packed = False

    def __init__(
        self,
        path: str,
        *,
        position: Position = "last_subject",
        split_by: Literal["subject", "template"] = "subject",
        limit: int | None = None,
    ) -> None:
        if position == "all" or position not in ("last", "last_subject"):
            raise ValueError(
                f"corpus.position={position} is not a position of one token a prompt: choose last_subject or last."
            )
        if split_by not in ("subject", "template"):
            raise ValueError(f"corpus.split_by={split_by} is unknown: choose subject or template.")
        self.path, self.position, self.split_by, self.limit = path, position, split_by, limit

    @property
    def fingerprint(self) -> dict[str, Any]:
        source = _file_digest(Path(self.path)) if Path(self.path).is_file() else self.path
        return {"counterfact": source} | {key: getattr(self, key) for key in ("position", "split_by", "limit")}

    def examples(self) -> Iterator[Example]:
        local = Path(self.path).suffix in {".jsonl", ".json"}
        records = _json_records(_files(Path(self.path))[0]) if local else _hub_records(self.path, None, "train", None)
        seen: set[str] = set()
        for record in islice(records, self.limit):
            template, subject = _template(record)
            start = template.index("{}")
            text = template.replace("{}", subject, 1)
            prefix = text[: start + len(subject)] if self.position == "last_subject" else text
            if prefix not in seen:
                seen.add(prefix)
                group = subject if self.split_by == "subject" else template
                yield Example(text, group, subject=(start, start + len(subject)))


def _template(record: dict[str, Any]) -> tuple[str, str]:
    rewrite = record.get("requested_rewrite")
    if rewrite is not None:
        return rewrite["prompt"], rewrite["subject"].strip()
    prompt, subject = _field(record, "prompt", "CounterFact"), _field(record, "subject", "CounterFact").strip()
    if not subject or subject not in prompt:
        raise ValueError(
            f"The CounterFact record {record.get('case_id')} has the subject {subject!r}, which its prompt {prompt!r} does not contain."
        )
    return prompt.replace(subject, "{}", 1), subject


def _files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(
            f"corpus.path={path} holds no text: give a .txt, .jsonl or .parquet file, or a folder of .txt files."
        )
    return files


def _texts(file: Path, field: str, single: bool) -> Iterator[str]:
    if file.suffix == ".txt":
        text = file.read_text(encoding="utf-8")
        yield from (part for part in (text.split("\n\n") if single else [text]) if part.strip())
    elif file.suffix in {".jsonl", ".parquet"}:
        records = _json_records(file) if file.suffix == ".jsonl" else _parquet_records(file)
        yield from (_field(record, field, str(file)) for record in records)
    else:
        raise ValueError(
            f"corpus.path={file} ends in {file.suffix!r}: expected .txt, .jsonl, .parquet or a folder of .txt files."
        )


def _json_records(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from json.load(lines) if file.suffix == ".json" else (json.loads(line) for line in lines if line.strip())


def _parquet_records(file: Path) -> Iterator[dict[str, Any]]:
    from datasets import Dataset

    yield from Dataset.from_parquet(str(file))  # type: ignore[misc]  # one Dataset, not a dict of splits


def _hub_records(name: str, subset: str | None, split: str, revision: str | None) -> Iterable[dict[str, Any]]:
    from datasets import load_dataset

    try:
        return load_dataset(name, subset, split=split, revision=revision, streaming=True)  # type: ignore[return-value]
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"The dataset {name!r} could not be read from the hub; check its name, or use corpus=local. ({reason})"
        ) from error


def _field(record: dict[str, Any], field: str, source: str) -> str:
    if not isinstance(record.get(field), str):
        raise ValueError(
            f"A record of {source} has no text field {field!r} but {', '.join(map(str, record))}: name its field."
        )
    return record[field]


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
