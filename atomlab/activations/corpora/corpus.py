"""What a corpus offers: examples, each in a group that a split keeps together, and a count of the records left out.

Running text is packed into full contexts; each prompt is its own sequence. `position` says of which tokens
the activations are kept: `all`, the `last` one, or the `last_subject` one (the last token of the prompt's subject).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, final

from atomlab.activations.corpora.records import Record, UnusableRecordError

Position = Literal["all", "last", "last_subject"]
_BAD_RECORDS_SHOWN = 5
_BAD_RECORDS_TO_STOP_AT = 1000  # a corpus that is bad so often, and mostly bad, is not read to its end


@dataclass(frozen=True)
class Example:
    """One text of a corpus, or its token ids.

    Attributes:
        text: the text; may be empty if there are token ids.
        group: name of the group (document, subject or template). All examples of a group go to the same split.
        subject: in prompts, the characters [start, stop) of the subject in the text; None elsewhere.
        input_ids: token ids of a pre-tokenised corpus, without masked ones; None for text.
        location: where the record stands (file and line), for error messages.
        counter: counts the records of the example's corpus; None where none of them can be bad.
    """

    text: str
    group: str
    subject: tuple[int, int] | None = None
    input_ids: Sequence[int] | None = None
    location: str = field(default="", compare=False)
    counter: "RecordCounter | None" = field(default=None, compare=False)

    def leave_out(self, reason: str) -> None:
        """Counts the example as a bad record.

        Args:
            reason: why it cannot be used, as half a sentence.

        Raises:
            ValueError: the corpus may have no bad records, or has too many.
        """
        if self.counter is None:
            raise ValueError(f"A text of the corpus cannot be used: {reason}.")
        self.counter.leave_out(self.location, reason)


class Corpus(Protocol):
    """A source of examples; classes with these members are corpora, whatever they inherit from."""

    @property
    def packed(self) -> bool:
        """Whether texts are packed into full contexts; if not, each is a sequence of its own."""
        ...

    @property
    def position(self) -> Position:
        """Of which tokens the activations are kept."""
        ...

    @property
    def group_kind(self) -> str:
        """What the groups are, in a word for reports: document, subject, article."""
        ...

    @property
    def fingerprint(self) -> dict[str, Any]:
        """All that determines the examples, JSON-serialisable: digests of the content and the options, but no path."""
        ...

    def examples(self) -> Iterator[Example]:
        """Yields the examples that are harvested, always in the same order."""
        ...

    def stream(self, rank: int, world_size: int) -> Iterator[Example]:
        """Yields one process's share of all examples, which may be more than are harvested or a disk holds.

        Args:
            rank: number of the process, from 0.
            world_size: number of processes. No two of them get the same example.

        Yields:
            The examples of this process, always in the same order.
        """
        ...


@final
class RecordCounter:
    """Counts the records of one pass over a corpus, and leaves out bad ones up to a share of all.

    A larger share is an error. It is raised when all records have been read, or earlier: as soon as 1,000 are bad and
    they are more than half of those read, or at the first one if the share is 0.

    Args:
        source: name of the corpus, as the user gave it.
        max_bad_share: largest share of the records that may be bad, in [0, 1).

    Attributes:
        read: number of records read so far.
        bad: number of those that were left out.
        first_bad: location and reason of the first five of these.

    Raises:
        ValueError: the share is outside [0, 1).
    """

    def __init__(self, source: str, max_bad_share: float) -> None:
        if not 0 <= max_bad_share < 1:
            raise ValueError(
                f"corpus.max_bad_share={max_bad_share} should be a share of the records, from 0 to less than 1."
            )
        self.source, self.max_bad_share = source, max_bad_share
        self.read, self.bad = 0, 0
        self.first_bad: list[tuple[str, str]] = []

    def usable_examples(
        self, records: Iterable[Record], make_example: Callable[[dict[str, Any]], Example], limit: int | None = None
    ) -> Iterator[Example]:
        """Makes the examples of the records that can be used, and counts all records.

        Args:
            records: the records of the corpus, or of one process's share.
            make_example: makes an example of a record's fields, or raises `UnusableRecordError`.
            limit: number of examples after which reading stops; None reads all.

        Yields:
            The example of each usable record, in their order, with the record's location and this counter.

        Raises:
            ValueError: more records are bad than the share allows.
        """
        remaining, given = iter(records), 0
        while given != limit and (record := next(remaining, None)) is not None:
            self.read += 1
            try:
                if isinstance(record.fields, UnusableRecordError):
                    raise record.fields
                made = replace(make_example(record.fields), location=record.location, counter=self)
            except UnusableRecordError as fault:
                self.leave_out(record.location, str(fault))
            else:
                given += 1
                yield made
        self.check_share()

    def leave_out(self, location: str, reason: str) -> None:
        """Counts a bad record, also one that shows only after `usable_examples` gave its example.

        Args:
            location: where the record stands.
            reason: why it cannot be used, as half a sentence.

        Raises:
            ValueError: more records are bad than the share allows, and reading on is of no use.
        """
        self.bad += 1
        if len(self.first_bad) < _BAD_RECORDS_SHOWN:
            self.first_bad.append((_printable(location), _printable(reason)))
        if self.max_bad_share == 0 or (self.bad >= _BAD_RECORDS_TO_STOP_AT and 2 * self.bad > self.read):
            self.check_share()

    def check_share(self) -> None:
        """Raises ValueError if more of the records read so far are bad than the share allows."""
        if self.bad <= self.max_bad_share * self.read:
            return
        (location, reason), *others = self.first_bad
        if self.bad == self.read:
            raise ValueError(
                f"None of the {self.read:,} records read of {self.source} can be used: {location}: {reason}."
            )
        further = f" (others: {'; '.join(other for other, _ in others)})" if others else ""
        raise ValueError(
            f"{self.bad:,} of {self.read:,} records of {self.source} cannot be used, {self.bad / self.read:.2%} and more "
            f"than corpus.max_bad_share={self.max_bad_share:g}: {location}: {reason}{further}; mend them, or raise "
            f"corpus.max_bad_share."
        )


def collect_counters(examples: Iterable[Example], found: list[RecordCounter]) -> Iterator[Example]:
    """Passes examples on, and notes who counts their records.

    Args:
        examples: the examples of a corpus.
        found: gets every counter that an example comes with, once.

    Yields:
        The same examples in the same order.
    """
    for example in examples:
        if example.counter is not None and not any(example.counter is counter for counter in found):
            found.append(example.counter)
        yield example


def check_limit(limit: int | None) -> None:
    """Raises ValueError for a limit of examples that would leave none; None stands for no limit."""
    if limit is not None and limit < 1:
        raise ValueError(f"corpus.limit={limit} leaves no examples: use 1 or more, or null for all.")


def _printable(message: str) -> str:
    """The message with half surrogate pairs, which no terminal prints, written as escapes."""
    return message.encode(errors="backslashreplace").decode()
