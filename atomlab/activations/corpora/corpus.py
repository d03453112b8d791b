"""Where text comes from: examples, each in the group that a held-out split must not tear apart.

Running text is packed into full contexts; prompts stay one a sequence. `position` says which tokens' activations are
wanted: `all`, `last`, or `last_subject` (the last token of the prompt's subject).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, final

import numpy as np

from atomlab.activations.corpora.records import Record, Unusable

Position = Literal["all", "last", "last_subject"]
_NAMED = 5  # bad records that are named
_HOPELESS = 1000  # bad records after which nobody waits for the end, if most are bad
_LARGEST_ID = 2**31 - 1


def check_limit(limit: int | None) -> None:
    """Raises ValueError for a limit of examples that would leave none; None is no limit."""
    if limit is not None and limit < 1:
        raise ValueError(f"corpus.limit={limit} leaves no examples: use 1 or more, or null for all.")


@final
class Tally:
    """Counts the records of one pass over a corpus, and leaves out bad ones up to a share of all.

    More than that share is refused when all have been read, or as soon as 1,000 are bad and they are most of those
    read; with a share of 0, at the first.

    Args:
        source: the corpus, as the user names it.
        max_bad_share: of the records, in [0, 1).

    Attributes:
        read: records so far.
        bad: those of them that were left out.
        first: location and reason of the first few of these.

    Raises:
        ValueError: a share outside [0, 1), or more bad records than it allows.
    """

    def __init__(self, source: str, max_bad_share: float) -> None:
        if not 0 <= max_bad_share < 1:
            raise ValueError(
                f"corpus.max_bad_share={max_bad_share} should be a share of the records, from 0 to less than 1."
            )
        self.source, self.max_bad_share = source, max_bad_share
        self.read, self.bad = 0, 0
        self.first: list[tuple[str, str]] = []

    def sound(
        self, records: Iterable[Record], example: Callable[[dict[str, Any]], "Example"], limit: int | None = None
    ) -> Iterator["Example"]:
        """What `example` makes of each record, at most `limit` of them, without those that it finds `Unusable`."""
        remaining, given = iter(records), 0
        while given != limit and (record := next(remaining, None)) is not None:
            self.read += 1
            try:
                if isinstance(record.fields, Unusable):
                    raise record.fields
                made = replace(example(record.fields), location=record.location, tally=self)
            except Unusable as fault:
                self.leave_out(record.location, str(fault))
            else:
                given += 1
                yield made
        self.decide()

    def leave_out(self, location: str, reason: str) -> None:
        """Counts a bad record; it may be found after `sound` gave its example."""
        self.bad += 1
        if len(self.first) < _NAMED:
            self.first.append((_printable(location), _printable(reason)))
        if self.max_bad_share == 0 or (self.bad >= _HOPELESS and 2 * self.bad > self.read):
            self.decide()

    def decide(self) -> None:
        """Raises ValueError if more of the records read so far are bad than the share allows."""
        if self.bad <= self.max_bad_share * self.read:
            return
        (location, reason), *others = self.first
        if self.bad == self.read:
            raise ValueError(
                f"None of the {self.read:,} records read of {self.source} can be used: {location}: {reason}."
            )
        places = f" (others: {'; '.join(other for other, _ in others)})" if others else ""
        raise ValueError(
            f"{self.bad:,} of {self.read:,} records of {self.source} cannot be used, {self.bad / self.read:.2%} and more "
            f"than corpus.max_bad_share={self.max_bad_share:g}: {location}: {reason}{places}; mend them, or raise "
            f"corpus.max_bad_share."
        )


@dataclass(frozen=True)
class Example:
    """A text or its token ids, its group (document, subject or template) and, in prompts, its subject.

    Attributes:
        text: may be empty if there are ids.
        group: examples of one group are never held out from one another.
        subject: its characters [start, stop) in the text.
        input_ids: of a pre-tokenised corpus, as they stand there, without masked ones.
        location: of its record, for messages.
        tally: of its corpus's records, if they may be bad.
    """

    text: str
    group: str
    subject: tuple[int, int] | None = None
    input_ids: Sequence[int] | None = None
    location: str = field(default="", compare=False)
    tally: Tally | None = field(default=None, compare=False)

    def leave_out(self, reason: str) -> None:
        """Counts it as bad; raises ValueError where the corpus allows none."""
        if self.tally is None:
            raise ValueError(f"A text of the corpus cannot be used: {reason}.")
        self.tally.leave_out(self.location, reason)


def tallies(examples: Iterable[Example], found: list[Tally]) -> Iterator[Example]:
    """The same examples; `found` gets the tallies that they come with."""
    for example in examples:
        if example.tally is not None and not any(example.tally is tally for tally in found):
            found.append(example.tally)
        yield example


class Corpus(Protocol):
    """What a corpus offers.

    `fingerprint` is everything that determines its examples, JSON-serialisable: content, and no path. `examples` gives
    those that are harvested; `stream` gives one process's share of all there are, which may be more than a disk holds.
    `held_out_by` names the kind of its groups.
    """

    @property
    def packed(self) -> bool: ...

    @property
    def position(self) -> Position: ...

    @property
    def held_out_by(self) -> str: ...

    @property
    def fingerprint(self) -> dict[str, Any]: ...

    def examples(self) -> Iterator[Example]: ...

    def stream(self, rank: int, world_size: int) -> Iterator[Example]: ...


def document(fields: dict[str, Any], field: str, group_field: str | None) -> Example:
    """A record's text, or its token ids if the field holds integers; ids that `attention_mask` masks are left out.

    Without a group of its own it is in the group of its content, so that copies of a document are never held out from
    one another.

    Raises:
        Unusable: no such field, or neither text nor ids in it.
    """
    if field not in fields:
        raise Unusable(
            f"it has no text field {field!r} but {', '.join(map(str, fields))} (corpus.field names the field of text or "
            f"of token ids)"
        )
    value, group = fields[field], None if group_field is None else _group(fields, group_field)
    if isinstance(value, str):
        return Example(text(value, field), group or _digest(value.encode()))
    ids = _unmasked(_token_ids(value, field), fields.get("attention_mask"))
    return Example("", group or _digest(ids.tobytes()), input_ids=ids.tolist())


def text(value: Any, field: str) -> str:
    """A field's text.

    Raises:
        Unusable: it is no text, or holds a NUL character, half of a surrogate pair or bytes that are not UTF-8.
    """
    if not isinstance(value, str):
        raise Unusable(f"its field {field!r} is {_kind(value)} and no text")
    if "\0" in value:
        raise Unusable(f"its field {field!r} holds a NUL character: this is no text, or not UTF-8")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        what = f"the byte 0x{code - 0xDC00:X}, which is not UTF-8" if 0xDC80 <= code <= 0xDCFF else (
            f"half of a surrogate pair, U+{code:X}"
        )  # fmt: skip
        raise Unusable(f"its field {field!r} holds {what}") from error
    return value


def _group(fields: dict[str, Any], name: str) -> str:
    if name not in fields:
        raise Unusable(f"it has no field {name!r} but {', '.join(map(str, fields))} (corpus.group_field)")
    value = fields[name]
    if isinstance(value, str | int | float):
        return text(str(value), name)
    raise Unusable(f"its field {name!r} is {_kind(value)}, and should name the record's group")


def _token_ids(value: Any, field: str) -> np.ndarray:
    if not isinstance(value, list | tuple):
        raise Unusable(f"its field {field!r} is {_kind(value)}, and neither text nor token ids")
    kinds = set(map(type, value))
    if kinds - {int}:
        names = ", ".join(sorted("null" if kind is type(None) else kind.__name__ for kind in kinds))
        raise Unusable(f"its field {field!r} is a list of {names}, and neither text nor token ids")
    if value and not 0 <= min(value) <= max(value) <= _LARGEST_ID:
        wrong = "below 0" if min(value) < 0 else f"above {_LARGEST_ID:,}"
        raise Unusable(f"its field {field!r} holds a number {wrong}, which is no token id")
    return np.array(value, dtype=np.int32)


def _unmasked(ids: np.ndarray, mask: Any) -> np.ndarray:
    """Without the tokens that the model is not to see, wherever they stand."""
    if mask is None:
        return ids
    if not isinstance(mask, list | tuple) or set(map(type, mask)) - {int, bool} or set(mask) - {0, 1}:
        raise Unusable("its attention_mask is not a list of zeros and ones")
    if len(mask) != len(ids):
        raise Unusable(f"its attention_mask has {len(mask)} values for {len(ids)} token ids")
    return ids[np.array(mask, dtype=bool)]


def _kind(value: Any) -> str:
    return "null" if value is None else f"of type {type(value).__name__}"


def _printable(message: str) -> str:
    return message.encode(errors="backslashreplace").decode()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
