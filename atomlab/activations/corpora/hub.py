"""Text of datasets in the format of Hugging Face, from the hub or from this machine."""

from collections.abc import Iterator
from functools import partial
from typing import Any, final

from atomlab.activations.corpora.corpus import Example, Position, RecordCounter, check_limit
from atomlab.activations.corpora.dataset_split import DatasetSplit
from atomlab.activations.corpora.parsing import document_example
from atomlab.activations.corpora.records import Record
from atomlab.ranges import Count, Share


@final
class HubText:
    """A dataset of texts or of token ids, one document a record.

    When the fingerprint is first asked for, the dataset is fixed by the content of its files, or by its commit on the
    hub, and just that is read. After editing the files, make a new object.

    Args:
        name: a dataset of the hub, a folder of data files, a data file, or a folder written by `save_to_disk`.
        subset: name of the dataset's configuration; None if it has only one.
        split: name of the dataset's split.
        revision: commit, tag or branch on the hub; None is the main branch. A commit needs no network to be resolved.
        field: name of the field that holds the text, or token ids (`input_ids`, without those that `attention_mask`
            masks).
        group_field: name of the field that holds the group; all records of a group go to the same split. None makes a
            group of each document and its copies.
        streaming: whether the dataset is read from the hub while it arrives; if not, it is downloaded first and mapped
            into memory.
        limit: number of documents that are harvested; None harvests all. A stream reads all.
        max_bad_share: largest share of the records that may be bad and are left out (`RecordCounter`); 0 refuses the
            first bad one.

    Raises:
        ValueError: the limit or the share is out of range. At first use: a file is damaged, or more records are bad
            than the share allows.
        FileNotFoundError: at first use: there is no such dataset, split or revision, or the hub does not answer.
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
        limit: Count | None = 20_000,
        max_bad_share: Share = 0.01,
    ) -> None:
        self.name, self.subset, self.split, self.field, self.group_field = name, subset, split, field, group_field
        check_limit(limit)
        self.limit, self.max_bad_share = limit, max_bad_share
        self.group_kind = group_field or "document"
        self._source = DatasetSplit(name, subset, split, revision, streaming=streaming)
        self._counter()

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The content of the files or the commit, and the options, as in `Corpus`. Raises as the class."""
        rules = ("subset", "split", "field", "group_field", "limit", "max_bad_share")
        return {"hub": self._source.identity} | {name: getattr(self, name) for name in rules}

    def examples(self) -> Iterator[Example]:
        """Yields the documents that are harvested, as in `Corpus`.

        Yields:
            The example of each usable record, in the order of the dataset, at most `limit`.

        Raises:
            FileNotFoundError, ValueError: as the class; also if a file of this machine changes while it is read.
        """
        yield from self._usable(self._source.records(0, 1), self.limit)
        self._source.check_unchanged()

    def stream(self, rank: int, world_size: int) -> Iterator[Example]:
        """Gives one process's share of all documents, as in `Corpus`.

        Args:
            rank: number of the process, from 0.
            world_size: number of processes.

        Returns:
            Iterator over the examples of the process's usable records, without `limit`.

        Raises:
            FileNotFoundError, ValueError: as the class.
        """
        return self._usable(self._source.records(rank, world_size))

    def _usable(self, records: Iterator[Record], limit: int | None = None) -> Iterator[Example]:
        make_example = partial(document_example, field=self.field, group_field=self.group_field)
        return self._counter().usable_examples(records, make_example, limit)

    def _counter(self) -> RecordCounter:
        return RecordCounter(f"corpus.name={self.name}", self.max_bad_share)
