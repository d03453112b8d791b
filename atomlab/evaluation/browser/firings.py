"""Finds where each atom fires: on which tokens and documents, how often, and in which contexts most strongly."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atomlab.activations.store.activation_store import Rows
from atomlab.units import Unit

BEFORE, AFTER = 16, 6  # tokens of a context on either side of the one on which an atom fires


@final
@dataclass(frozen=True)
class Firings:
    """Where the atoms of a unit fire on a sample of the rows of a split.

    Attributes:
        rows: (samples,) int64, the numbers of the sampled rows in the split.
        counts: (d_sae,) int64, on how many samples each atom fires.
        mean: (d_sae,) float32, mean value of each atom over the samples on which it fires; 0 if it never fires.
        top_values: (contexts, d_sae) float32, the largest values of each atom, in falling order; 0 where it fires less
            often than that.
        top_samples: (contexts, d_sae) int64, the samples that these values stand on, as places in `rows`.
        atom: (firings,) int64, which atom fires; one entry for each firing, in the order of the samples.
        sample: (firings,) int64, on which sample it fires, as a place in `rows`.
        value: (firings,) float32, with what value it fires.
    """

    rows: Int[Tensor, " samples"]
    counts: Int[Tensor, " d_sae"]
    mean: Float[Tensor, " d_sae"]
    top_values: Float[Tensor, "contexts d_sae"]
    top_samples: Int[Tensor, "contexts d_sae"]
    atom: Int[Tensor, " firings"]
    sample: Int[Tensor, " firings"]
    value: Float[Tensor, " firings"]


def whole_sequences(rows: Rows, samples: int, seed: int = 0) -> Int[Tensor, " n"]:
    """Draws token sequences at random and returns the numbers of all their rows.

    Args:
        rows: of one split.
        samples: number of rows at most. A single sequence is taken whole even if it has more.
        seed: of the draw.

    Returns:
        (n,) int64, places in `rows`, in ascending order.
    """
    sequences = rows.store.origins.sequences
    tokens = sequences.keep.nonzero().squeeze(1)[rows.numbers]
    sequence = torch.searchsorted(sequences.offsets, tokens, right=True) - 1
    order = torch.randperm(len(sequences.lengths), generator=torch.Generator().manual_seed(seed))
    counts = torch.bincount(sequence, minlength=len(order))[order]
    taken = order[(counts.cumsum(0) <= samples) | (counts.cumsum(0) == counts)]
    return torch.isin(sequence, taken).nonzero().squeeze(1)


@torch.no_grad()
def find_firings(unit: Unit, rows: Rows, samples: int, contexts: int, batch: int, seed: int = 0) -> Firings:
    """Encodes a sample of rows and collects every firing.

    Only positive values count as firings, so a unit with signed codes is searched on its positive side.

    Args:
        unit: whose atoms are searched.
        rows: of one split.
        samples: number of rows at most, taken as whole token sequences (`whole_sequences`).
        contexts: number of largest values that are kept of each atom.
        batch: number of rows that are encoded at a time.
        seed: of the sample.

    Returns:
        The firings. Memory: 20 bytes for each of them, and 4·(contexts + batch)·d_sae bytes while they are collected.
    """
    chosen = whole_sequences(rows, samples, seed)
    values = torch.zeros(contexts, unit.d_sae)
    places = torch.zeros(contexts, unit.d_sae, dtype=torch.int64)
    total = torch.zeros(unit.d_sae, dtype=torch.float64)
    firings: list[tuple[Tensor, Tensor, Tensor]] = []
    for part in torch.arange(len(chosen)).split(batch):
        codes = unit.encode(rows[chosen[part]]).to_dense().clamp(min=0)
        best = codes.topk(min(contexts, len(codes)), dim=0)
        both, order = torch.cat([values, best.values]).topk(contexts, dim=0)
        values, places = both, torch.cat([places, part[best.indices]]).gather(0, order)
        where, atom = codes.nonzero(as_tuple=True)
        firings.append((atom, part[where], codes[where, atom]))
        total += codes.double().sum(0)
    atom, sample, value = (torch.cat(column) for column in zip(*firings, strict=True))
    counts = torch.bincount(atom, minlength=unit.d_sae)
    return Firings(chosen, counts, (total / counts.clamp(min=1)).float(), values, places, atom, sample, value)
