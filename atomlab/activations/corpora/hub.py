"""Texts of datasets in the format of Hugging Face: of the hub, or of this machine."""

from collections.abc import Iterator
from functools import partial
from typing import Any, final

from atomlab.activations.corpora.corpus import Example, Position, Tally, check_limit, document
from atomlab.activations.corpora.dataset_split import DatasetSplit
from atomlab.activations.corpora.records import Record


@final
class HubText:
    """A dataset of texts or of token ids, split by document.

    It is named by what its files hold, or by its commit on the hub, when it is first asked for, and read from just
    that; after editing the files, make a new one.

    Args:
        name: a dataset of the hub, a folder of data files, a data file, or a folder written by `save_to_disk`.
        subset: its configuration, if it has several.
        split: its split.
        revision: commit, tag or branch on the hub. A commit needs no network to be resolved.
        field: of the text, or of token ids (`input_ids`, whose `attention_mask` is heeded).
        group_field: of what a held-out split must not tear apart (None: each text for itself, its copies included).
        streaming: read from the hub while it arrives, or download first and map into memory.
        limit: documents harvested (the sample is drawn from these); a stream reads on.
        max_bad_share: of the records that may be bad and are left out (`Tally`); 0 refuses the first one.

    Raises:
        FileNotFoundError: no such dataset, split or revision, or no hub.
        ValueError: a damaged file, or more bad records than `max_bad_share`.
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
        group_field: str | None = None,
        streaming: bool = True,
        limit: int | None = 20_000,
        max_bad_share: float = 0.01,
    ) -> None:
        self.name, self.subset, self.split, self.field, self.group_field = name, subset, split, field, group_field
        check_limit(limit)
        self.limit, self.max_bad_share = limit, max_bad_share
        self.held_out_by = group_field or "document"
        self._source = DatasetSplit(name, subset, split, revision, streaming=streaming)
        self._tally()

    @property
    def fingerprint(self) -> dict[str, Any]:
        rules = ("subset", "split", "field", "group_field", "limit", "max_bad_share")
        return {"hub": self._source.identity} | {name: getattr(self, name) for name in rules}

    def examples(self) -> Iterator[Example]:
        yield from self._sound(self._source.records(0, 1), self.limit)
        self._source.check_unchanged()

    def stream(self, rank: int, world_size: int) -> Iterator[Example]:
        return self._sound(self._source.records(rank, world_size))

    def _sound(self, records: Iterator[Record], limit: int | None = None) -> Iterator[Example]:
        example = partial(document, field=self.field, group_field=self.group_field)
        return self._tally().sound(records, example, limit)

    def _tally(self) -> Tally:
        return Tally(f"corpus.name={self.name}", self.max_bad_share)
