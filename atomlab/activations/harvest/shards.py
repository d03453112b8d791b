"""How a harvest is cut into files and forward passes. The token sequences and two sizes alone determine it."""

from dataclasses import dataclass

import torch

from atomlab.activations.store.files import shard_name
from atomlab.activations.tokens.sequences import Sequences, equal_lengths


@dataclass(frozen=True)
class Shard:
    """A file of each hook point, with the kept tokens of some neighbouring sequences.

    Attributes:
        name: name of the file.
        split: train, validation or test.
        batches: the sequences [start, stop) of each batch, in order.
        rows: number of kept tokens.
    """

    name: str
    split: str
    batches: tuple[tuple[int, int], ...]
    rows: int


def plan(split: str, sequences: Sequences, shard_rows: int, batch_tokens: int) -> list[Shard]:
    """Cuts the sequences of a split into shards.

    Args:
        split: train, validation or test.
        sequences: of the split, sorted by length as `sample` does, so that batches are large.
        shard_rows: kept tokens of a file, at least.
        batch_tokens: tokens of a batch, at most; a longer sequence is a batch of its own.

    Returns:
        The shards in the order of the sequences, with all kept tokens. Each has at least `shard_rows` of them, except
        for the last one. Their batches are those of `equal_lengths`, so that no compute goes into padding.
    """
    kept = torch.cat([torch.zeros(1, dtype=torch.int64), sequences.rows_per_sequence().cumsum(0)]).tolist()
    shards: list[Shard] = []
    pending: list[tuple[int, int]] = []
    batches = equal_lengths(sequences, batch_tokens)
    for start, stop in batches:
        pending.append((start, stop))
        rows = kept[stop] - kept[pending[0][0]]
        if rows >= shard_rows or (rows and stop == batches[-1][1]):
            shards.append(Shard(shard_name(split, len(shards)), split, tuple(pending), rows))
            pending = []
    return shards


def document_of(shard: Shard, sequences: Sequences, row: int) -> int:
    """Returns the number in the corpus of the example that a row of a shard belongs to.

    Args:
        shard: the shard.
        sequences: of its split.
        row: of the shard, counted from 0.

    Returns:
        The number, counted from 0.
    """
    start, stop = (int(sequences.offsets[number]) for number in (shard.batches[0][0], shard.batches[-1][1]))
    return int(sequences.document[start:stop][sequences.keep[start:stop]][row])


def passes(shard: Shard, sequences: Sequences, batch_tokens: int) -> list[tuple[int, int]]:
    """Cuts the batches of a shard into forward passes.

    So a harvest that ran out of memory goes on with smaller passes, and keeps its files.

    Args:
        shard: the shard.
        sequences: of its split.
        batch_tokens: tokens of a forward pass, at most; a longer sequence is a pass of its own.

    Returns:
        The sequences [start, stop) of each pass, in order: the batches of the shard, but those of more than
        `batch_tokens` tokens in smaller parts.
    """
    found = []
    for start, stop in shard.batches:
        step = max(1, batch_tokens // int(sequences.lengths[start]))
        found += [(first, min(first + step, stop)) for first in range(start, stop, step)]
    return found
