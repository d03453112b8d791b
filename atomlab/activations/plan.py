"""How a harvest is cut into forward passes and files: a function of the sequences and two sizes only."""

from dataclasses import dataclass

import torch
from torch import Tensor

from atomlab.activations.sequences import Sequences
from atomlab.activations.store import shard_name


@dataclass(frozen=True)
class Shard:
    """A file of each hook point: the kept tokens of consecutive batches of consecutive sequences, [start, stop)
    each.
    """

    name: str
    split: str
    batches: tuple[tuple[int, int], ...]
    rows: int


@dataclass(frozen=True)
class Batch:
    """One forward pass without padding.

    Attributes:
        inputs: `input_ids` (batch, length) and, where documents are kept apart, `position_ids`.
        kept: (rows,) int64, numbers of the kept tokens among the batch's, in order.
    """

    inputs: dict[str, Tensor]
    kept: Tensor


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


def equal_lengths(sequences: Sequences, batch_tokens: int) -> list[tuple[int, int]]:
    """Runs [start, stop) of neighbours of equal length with at most `batch_tokens` tokens, but at least one
    sequence.
    """
    lengths = sequences.lengths.tolist()
    edges = [0] if lengths else []
    for i, length in enumerate(lengths):
        if i > edges[-1] and (length != lengths[edges[-1]] or (i + 1 - edges[-1]) * length > batch_tokens):
            edges.append(i)
    return list(zip(edges, [*edges[1:], len(lengths)], strict=True)) if lengths else []


def batch(sequences: Sequences, start: int, stop: int) -> Batch:
    """Sequences [start, stop), which have the same length."""
    tokens = slice(int(sequences.offsets[start]), int(sequences.offsets[stop]))
    inputs = {"input_ids": sequences.input_ids[tokens].long().view(stop - start, -1)}
    positions = sequences.position[tokens].long().view(stop - start, -1)
    if (positions[:, 1:] == 0).any():
        inputs["position_ids"] = positions
    return Batch(inputs, sequences.keep[tokens].nonzero().squeeze(1))
