"""How a harvest is cut into forward passes and files: a function of the sequences and two sizes only."""

from dataclasses import dataclass

import torch

from atomlab.activations.store.files import shard_name
from atomlab.activations.tokens.sequences import Sequences, equal_lengths


@dataclass(frozen=True)
class Shard:
    """A file of each hook point: the kept tokens of consecutive batches of consecutive sequences, [start, stop)
    each.
    """

    name: str
    split: str
    batches: tuple[tuple[int, int], ...]
    rows: int


def plan(split: str, sequences: Sequences, shard_rows: int, batch_tokens: int) -> list[Shard]:
    """Shards of at least `shard_rows` rows (but the last), in batches of at most `batch_tokens` tokens (but one
    sequence).

    Batches are those of `equal_lengths`, so that no compute goes into padding (`sample` sorts the sequences).
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


def passes(shard: Shard, sequences: Sequences, batch_tokens: int) -> list[tuple[int, int]]:
    """The shard's batches, those of more than `batch_tokens` tokens cut into smaller ones of at least one sequence.

    So a harvest that ran out of memory goes on with smaller passes, and keeps its files.
    """
    found = []
    for start, stop in shard.batches:
        step = max(1, batch_tokens // int(sequences.lengths[start]))
        found += [(first, min(first + step, stop)) for first in range(start, stop, step)]
    return found
