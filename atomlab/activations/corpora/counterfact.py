"""CounterFact prompts (Meng et al. 2022), one vector a prompt."""

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, final

from atomlab.activations.corpora.corpus import Example, Position, Tally, check_limit, text
from atomlab.activations.corpora.dataset_split import DatasetSplit
from atomlab.activations.corpora.local import files
from atomlab.activations.corpora.records import SUFFIXES, Files, Record, Unusable, read_records


@final
class CounterFact:
    """CounterFact from a file or the hub, in either schema.

    Schemas: `prompt` and `subject` (the subject occurs in the prompt), or ROME's `requested_rewrite` with `{}`
        for the subject.

    Args:
        path: a .jsonl, .json or .parquet file, or a dataset on the hub (`NeelNanda/counterfact-tracing` has the paper's
            21,919 records).
        position: `last_subject` or `last` token. At the last token the templates leak through a split by subject: use
            split_by=template there.
        split_by: what train, validation and test must not share: `subject` or `template`.
        distinct: keep prompts with the same text up to the wanted token once, as they give the same vector.
        limit: at most this many records.
        revision: commit, tag or branch of a dataset on the hub.
        max_bad_share: of the records that may be bad and are left out (`Tally`); 0 refuses the first one.

    Raises:
        FileNotFoundError, ValueError: as `LocalText` and `HubText`.
    """

    packed = False

    def __init__(
        self,
        path: str,
        *,
        position: Position = "last_subject",
        split_by: Literal["subject", "template"] = "subject",
        distinct: bool = True,
        limit: int | None = None,
        revision: str | None = None,
        max_bad_share: float = 0.01,
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
        self.held_out_by: str = split_by
        self._tally()

    @property
    def fingerprint(self) -> dict[str, Any]:
        rules = ("position", "split_by", "distinct", "limit", "max_bad_share")
        return {"counterfact": self._source.identity} | {name: getattr(self, name) for name in rules}

    def examples(self) -> Iterator[Example]:
        seen: set[str] = set()
        records = islice(self._records(), self.limit)
        for example in self._tally().sound(records, self._example):
            assert example.subject is not None
            prefix = example.text[: example.subject[1]] if self.position == "last_subject" else example.text
            if not (self.distinct and prefix in seen):
                seen.add(prefix)
                yield example
        self._source.check_unchanged()

    def stream(self, rank: int, world_size: int) -> Iterator[Example]:
        return islice(self.examples(), rank, None, world_size)

    def _tally(self) -> Tally:
        return Tally(f"corpus.path={self.path}", self.max_bad_share)

    @cached_property
    def _source(self) -> Files | DatasetSplit:
        if Path(self.path).suffix in SUFFIXES:
            return files(Path(self.path))
        return DatasetSplit(self.path, None, "train", self.revision, streaming=True)

    def _records(self) -> Iterator[Record]:
        source = self._source
        return source.records(read_records) if isinstance(source, Files) else source.records(0, 1)

    def _example(self, fields: dict[str, Any]) -> Example:
        before, subject, after = _parts(fields)
        group = subject if self.split_by == "subject" else f"{before}{{}}{after}"
        return Example(f"{before}{subject}{after}", group, subject=(len(before), len(before) + len(subject)))


def _parts(fields: dict[str, Any]) -> tuple[str, str, str]:
    """The prompt before its subject, the subject, and the prompt after it.

    Raises:
        Unusable: it has no such parts.
    """
    rewrite = fields.get("requested_rewrite")
    found = fields if rewrite is None else rewrite
    if not isinstance(found, dict) or not {"prompt", "subject"} <= set(found):
        raise Unusable(f"it has no prompt with a subject but {', '.join(map(str, fields))}")
    prompt, subject = text(found["prompt"], "prompt"), text(found["subject"], "subject").strip()
    places = prompt.count("{}")
    if rewrite is not None and places != 1:
        raise Unusable(f"its prompt {prompt!r} has {places} places {{}} for the subject, and should have one")
    if not subject or (rewrite is None and subject not in prompt):
        raise Unusable(f"its prompt {prompt!r} does not contain its subject {subject!r}")
    before, _, after = prompt.partition(subject if rewrite is None else "{}")
    return before, subject, after
