"""CounterFact prompts (Meng et al. 2022), each of which gives the activation of one token."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, final

from atomlab.activations.corpora.corpus import Example, Position, RecordCounter, check_limit
from atomlab.activations.corpora.dataset_split import DatasetSplit
from atomlab.activations.corpora.local import text_files
from atomlab.activations.corpora.parsing import checked_text
from atomlab.activations.corpora.records import (
    RECORD_SUFFIXES,
    DataFiles,
    Record,
    UnusableRecordError,
    read_records,
)
from atomlab.ranges import Count, Share


@final
class CounterFact:
    """CounterFact from a file or the hub, in either schema.

    A record has the fields `prompt` and `subject`, where the subject occurs in the prompt, or a field
    `requested_rewrite` with these two (as ROME publishes them), where `{}` stands for the subject in the prompt.

    Args:
        path: a .jsonl, .json or .parquet file, or a dataset on the hub (`NeelNanda/counterfact-tracing` has the paper's
            21,919 records).
        position: which token's activation is kept: `last_subject` or `last`. The last token shows the template, so
            with `last` a split by subject would share templates between train and test: use split_by=template there.
        split_by: what train, validation and test must not share: `subject` or `template`.
        distinct: whether of prompts with the same text up to the kept token only the first is used, as they give the
            same vector.
        limit: number of records that are read; None reads all.
        revision: commit, tag or branch of a dataset on the hub; None is the main branch.
        max_bad_share: largest share of the records that may be bad and are left out (`RecordCounter`); 0 refuses the
            first bad one.

    Raises:
        ValueError: an option is unknown or out of range. At first use: as `LocalText` and `HubText`.
        FileNotFoundError: at first use: as `LocalText` and `HubText`.
    """

    packed = False

    def __init__(
        self,
        path: str,
        *,
        position: Position = "last_subject",
        split_by: Literal["subject", "template"] = "subject",
        distinct: bool = True,
        limit: Count | None = None,
        revision: str | None = None,
        max_bad_share: Share = 0.01,
    ) -> None:
        if position not in ("last", "last_subject"):
            raise ValueError(
                f"corpus.position={position} is not a position of one token a prompt: choose last_subject or last."
            )
        if split_by not in ("subject", "template"):
            raise ValueError(f"corpus.split_by={split_by} is unknown: choose subject or template.")
        check_limit(limit)
        self.path, self.split_by, self.distinct, self.limit = path, split_by, distinct, limit
        self.revision, self.max_bad_share = revision, max_bad_share
        self.position: Position = position
        self.group_kind: str = split_by
        self._counter()

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The content of the file or the commit, and the options, as in `Corpus`. Raises as the class."""
        rules = ("position", "split_by", "distinct", "limit", "max_bad_share")
        return {"counterfact": self._source.identity} | {name: getattr(self, name) for name in rules}

    def examples(self) -> Iterator[Example]:
        """Yields the prompts that are harvested, as in `Corpus`.

        Yields:
            One example for each usable record, in their order, with the subject's place in the text. With `distinct`,
            only the first of the prompts whose text is the same up to the kept token.

        Raises:
            FileNotFoundError, ValueError: as the class; also if a file of this machine changes while it is read.
        """
        seen: set[str] = set()
        records = islice(self._records(), self.limit)
        for example in self._counter().usable_examples(records, self._example):
            assert example.subject is not None
            prefix = example.text[: example.subject[1]] if self.position == "last_subject" else example.text
            if not (self.distinct and prefix in seen):
                seen.add(prefix)
                yield example
        self._source.check_unchanged()

    def stream(self, rank: int, world_size: int) -> Iterator[Example]:
        """Gives one process's share of the prompts, as in `Corpus`. Each process reads all records.

        Args:
            rank: number of the process, from 0.
            world_size: number of processes.

        Returns:
            Iterator over every `world_size`-th of `examples`, beginning with number `rank`.

        Raises:
            FileNotFoundError, ValueError: as `examples`.
        """
        return islice(self.examples(), rank, None, world_size)

    def _counter(self) -> RecordCounter:
        return RecordCounter(f"corpus.path={self.path}", self.max_bad_share)

    @cached_property
    def _source(self) -> DataFiles | DatasetSplit:
        if Path(self.path).suffix in RECORD_SUFFIXES:
            return text_files(Path(self.path))
        return DatasetSplit(self.path, None, "train", self.revision, streaming=True)

    def _records(self) -> Iterator[Record]:
        source = self._source
        return source.records(read_records) if isinstance(source, DataFiles) else source.records(0, 1)

    def _example(self, fields: dict[str, Any]) -> Example:
        prompt = _prompt(fields)
        start, stop = len(prompt.before), len(prompt.before) + len(prompt.subject)
        group = prompt.subject if self.split_by == "subject" else f"{prompt.before}{{}}{prompt.after}"
        return Example(f"{prompt.before}{prompt.subject}{prompt.after}", group, subject=(start, stop))


@dataclass(frozen=True)
class _Prompt:
    """A prompt in three parts: the text before its subject, the subject, and the text after it."""

    before: str
    subject: str
    after: str


def _prompt(fields: dict[str, Any]) -> _Prompt:
    """The prompt of a record, in either schema.

    Raises:
        UnusableRecordError: the record has no prompt, no subject, or not one position of the subject in the prompt.
    """
    rewrite = fields.get("requested_rewrite")
    found = fields if rewrite is None else rewrite
    if not isinstance(found, dict) or not {"prompt", "subject"} <= set(found):
        raise UnusableRecordError(f"it has no prompt with a subject but {', '.join(map(str, fields))}")
    prompt, subject = checked_text(found["prompt"], "prompt"), checked_text(found["subject"], "subject").strip()
    blanks = prompt.count("{}")
    if rewrite is not None and blanks != 1:
        raise UnusableRecordError(
            f"its prompt {prompt!r} has {{}} for the subject {blanks} times, and should have it once"
        )
    if not subject or (rewrite is None and subject not in prompt):
        raise UnusableRecordError(f"its prompt {prompt!r} does not contain its subject {subject!r}")
    before, _, after = prompt.partition(subject if rewrite is None else "{}")
    return _Prompt(before, subject, after)
