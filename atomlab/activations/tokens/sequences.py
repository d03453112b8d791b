"""Token sequences of various lengths, how texts are laid out in them, and how they are cut into forward passes."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sequences:
    """Token sequences of various lengths, end to end.

    Attributes:
        input_ids: (tokens,) int32.
        offsets: (sequences + 1,) int64, where each sequence starts.
        keep: (tokens,) bool, whose activations are wanted; the kept tokens, in order, are the rows of the store.
        position: (tokens,) int32, as the model counts it: 0 where a sequence starts and, if documents are kept
            apart, where one of them does.
        document: (tokens,) int32, the number in the corpus of the example each token belongs to.
    """

    input_ids: Tensor
    offsets: Tensor
    keep: Tensor
    position: Tensor
    document: Tensor

    @property
    def lengths(self) -> Tensor:
        """Number of tokens of each sequence, (sequences,) int64."""
        return self.offsets.diff()

    @property
    def rows(self) -> int:
        """Number of kept tokens, each of which is a row of the store."""
        return int(self.keep.sum())

    def select(self, order: Tensor) -> "Sequences":
        """Returns the sequences of the given numbers, in that order."""
        starts, lengths = self.offsets[order], self.lengths[order]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        index = torch.arange(int(offsets[-1])) + torch.repeat_interleave(starts - offsets[:-1], lengths)
        return Sequences(self.input_ids[index], offsets, self.keep[index], self.position[index], self.document[index])

    def rows_per_sequence(self) -> Tensor:
        """Returns the number of kept tokens of each sequence, (sequences,) int64."""
        kept = torch.cat([torch.zeros(1, dtype=torch.int64), self.keep.cumsum(0)])
        return kept[self.offsets[1:]] - kept[self.offsets[:-1]]

    def tensors(self) -> dict[str, Tensor]:
        """Returns the attributes by their names, as a safetensors file holds them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Frame:
    """The special tokens that stand around and between texts, as token ids.

    Attributes:
        prefix: what the tokenizer puts before a text, such as BOS.
        suffix: what it puts after a text, such as BERT's SEP.
        separator: what parts two texts in one sequence.
    """

    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    separator: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of special tokens around one text: prefix and suffix, without the separator."""
        return len(self.prefix) + len(self.suffix)


def pack(documents: Sequence[Tensor], numbers: Sequence[int], context: int, frame: Frame) -> Sequences:
    """Packs documents end to end, each followed by the separator, and cuts them into full contexts.

    Each context starts with the prefix and ends with the suffix; within it, attention crosses documents. Tokens at the
    end that fill no context are left out.

    Args:
        documents: (tokens,) int32 of each document.
        numbers: the number of each document in the corpus.
        context: tokens of a sequence.
        frame: prefix, suffix and separator.

    Returns:
        Sequences of `context` tokens each, all of which are kept, with positions from 0 to context − 1.

    Raises:
        ValueError: a context without room for text.
    """
    body = _room(context, frame)
    separator = torch.tensor(frame.separator, dtype=torch.int32)
    text = torch.cat([separator[:0], *(part for document in documents for part in (document, separator))])
    lengths = torch.tensor([len(document) + len(separator) for document in documents], dtype=torch.int64)
    owner = torch.tensor(numbers, dtype=torch.int32).repeat_interleave(lengths)
    rows = len(text) // body
    text, owner = (tokens[: rows * body].view(rows, body) for tokens in (text, owner))
    before, after = (torch.tensor(ids, dtype=torch.int32).expand(rows, -1) for ids in (frame.prefix, frame.suffix))
    document = torch.cat([owner[:, :1].expand_as(before), owner, owner[:, -1:].expand_as(after)], dim=1)
    return Sequences(
        input_ids=torch.cat([before, text, after], dim=1).flatten(),
        offsets=torch.arange(rows + 1) * context,
        keep=torch.ones(rows * context, dtype=torch.bool),
        position=torch.arange(context, dtype=torch.int32).repeat(rows),
        document=document.flatten(),
    )


def pack_apart(documents: Sequence[Tensor], numbers: Sequence[int], context: int, frame: Frame) -> Sequences:
    """Packs documents as `pack` does, but positions start anew with each document.

    A model that reads positions so keeps the documents apart. Each part of a document stands between prefix and suffix,
    so the model sees just what it would see of that part alone, and no separator is needed. Where the rest of a context
    has no room for prefix, suffix and a token of text, it is filled up with special tokens that are not kept.

    Args:
        documents: (tokens,) int32 of each document.
        numbers: the number of each document in the corpus.
        context: tokens of a sequence.
        frame: prefix and suffix.

    Returns:
        Sequences of `context` tokens each, all of which are kept but those that fill up. Each part of a document has
        positions from 0.

    Raises:
        ValueError: a context without room for text.
    """
    _room(context, frame)
    before, after = (torch.tensor(ids, dtype=torch.int32) for ids in (frame.prefix, frame.suffix))
    filler = torch.cat([before, after])
    pieces, owners, wanted, room = [], [], [], context
    for number, document in zip(numbers, documents, strict=True):
        start = 0
        while start < len(document):
            if room <= frame.size:
                pieces.append(filler[:room])
                owners.append(number)
                wanted.append(False)
                room = context
            text = document[start : start + room - frame.size]
            pieces.append(torch.cat([before, text, after]) if frame.size else text)
            owners.append(number)
            wanted.append(True)
            start += len(text)
            room = (room - len(pieces[-1])) or context
    lengths = torch.tensor([len(piece) for piece in pieces], dtype=torch.int64)
    rows = int(lengths.sum()) // context
    starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    tokens = rows * context
    return Sequences(
        input_ids=torch.cat([filler[:0], *pieces])[:tokens],
        offsets=torch.arange(rows + 1) * context,
        keep=torch.tensor(wanted, dtype=torch.bool).repeat_interleave(lengths)[:tokens],
        position=(torch.arange(len(starts)) - starts)[:tokens].int(),
        document=torch.tensor(owners, dtype=torch.int32).repeat_interleave(lengths)[:tokens],
    )


def prompts(
    documents: Sequence[Tensor], wanted: Sequence[int | None], numbers: Sequence[int], context: int, frame: Frame
) -> Sequences:
    """Makes one sequence of each prompt, between prefix and suffix.

    Args:
        documents: (tokens,) int32 of each prompt.
        wanted: the position, counted without the prefix, whose activation is kept; None keeps all.
        numbers: the number of each prompt in the corpus.
        context: tokens of a sequence, at most.
        frame: prefix and suffix.

    Returns:
        The sequences in the order of the prompts, each as long as its prompt with prefix and suffix.

    Raises:
        ValueError: a prompt that is longer than the context.
    """
    if documents and (longest := max(map(len, documents)) + frame.size) > context:
        raise ValueError(f"A prompt has {longest} tokens, more than activations.tokens.context={context}: raise it.")
    before, after = (torch.tensor(ids, dtype=torch.int32) for ids in (frame.prefix, frame.suffix))
    lengths = torch.tensor([len(document) + frame.size for document in documents], dtype=torch.int64)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    starts = offsets[:-1]
    only = torch.tensor([-1 if position is None else position + len(before) for position in wanted], dtype=torch.int64)
    keep = (only < 0).repeat_interleave(lengths)
    keep[(starts + only)[only >= 0]] = True
    return Sequences(
        input_ids=torch.cat([before[:0], *(part for document in documents for part in (before, document, after))]),
        offsets=offsets,
        keep=keep,
        position=(torch.arange(int(offsets[-1])) - starts.repeat_interleave(lengths)).int(),
        document=torch.tensor(numbers, dtype=torch.int32).repeat_interleave(lengths),
    )


def sample(sequences: Sequences, max_rows: int | None, seed: int) -> Sequences:
    """Chooses sequences at random, and sorts them by length.

    Args:
        sequences: to choose from.
        max_rows: kept tokens that the chosen sequences have in all, at most; None chooses all sequences.
        seed: of the choice.

    Returns:
        The chosen sequences in rising length, those of equal length in random order.
    """
    order = torch.randperm(len(sequences.lengths), generator=torch.Generator().manual_seed(seed))
    if max_rows is not None:
        order = order[sequences.rows_per_sequence()[order].cumsum(0) <= max_rows]
    return sequences.select(order[sequences.lengths[order].argsort(stable=True)])


def _room(context: int, frame: Frame) -> int:
    if context <= frame.size:
        raise ValueError(
            f"activations.tokens.context={context} leaves no room for text beside {frame.size} special tokens: raise it."
        )
    return context - frame.size


@dataclass(frozen=True)
class Batch:
    """One forward pass without padding.

    Attributes:
        inputs: `input_ids` (batch, length) and, where documents are kept apart, `position_ids`.
        kept: (rows,) int64, numbers of the kept tokens among the batch's, in order.
        document: (rows,) int32, the number of the example that each kept token belongs to, as `Sequences` has it.
    """

    inputs: dict[str, Tensor]
    kept: Tensor
    document: Tensor


def equal_lengths(sequences: Sequences, batch_tokens: int) -> list[tuple[int, int]]:
    """Cuts sequences into runs of neighbours of equal length.

    Args:
        sequences: sorted by length, so that runs are long.
        batch_tokens: tokens of a run, at most; a longer sequence is a run of its own.

    Returns:
        The sequences [start, stop) of each run, in order; every sequence is in one of them.
    """
    lengths = sequences.lengths.tolist()
    edges = [0] if lengths else []
    for i, length in enumerate(lengths):
        if i > edges[-1] and (length != lengths[edges[-1]] or (i + 1 - edges[-1]) * length > batch_tokens):
            edges.append(i)
    return list(zip(edges, [*edges[1:], len(lengths)], strict=True)) if lengths else []


def batch(sequences: Sequences, start: int, stop: int) -> Batch:
    """Makes one forward pass of neighbouring sequences of the same length.

    Args:
        sequences: the sequences to take them from.
        start: number of the first one.
        stop: number of the last one plus 1.

    Returns:
        The inputs, (stop − start, length) int64, and of the kept tokens the numbers and the examples, as `Batch` says.
    """
    tokens = slice(int(sequences.offsets[start]), int(sequences.offsets[stop]))
    inputs = {"input_ids": sequences.input_ids[tokens].long().view(stop - start, -1)}
    positions = sequences.position[tokens].long().view(stop - start, -1)
    if (positions[:, 1:] == 0).any():
        inputs["position_ids"] = positions
    keep = sequences.keep[tokens]
    return Batch(inputs, keep.nonzero().squeeze(1), sequences.document[tokens][keep])
