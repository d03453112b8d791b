"""Where each atom fires: its strongest contexts, and on how many and which tokens and documents."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atomlab.activations.store.activation_store import Rows
from atomlab.units import Unit


@final
@dataclass(frozen=True)
class Firing:
    """Of a unit on some rows of a split.

    Attributes:
        rows: (n,) int64, the numbers of the rows looked at.
        counts: (d_sae,) int64, on how many of them each atom fires.
        mean: (d_sae,) mean value when it fires, 0 if never.
        top_values: (k, d_sae) largest values, 0 where it fires less often.
        top_rows: (k, d_sae) int64, places in `rows`.
        atom, sample, value: (pairs,) every firing, in order of rows: which atom, which of the samples in `rows`, with what value.
    """

    rows: Int[Tensor, " n"]
    counts: Int[Tensor, " d_sae"]
    mean: Float[Tensor, " d_sae"]
    top_values: Float[Tensor, "k d_sae"]
    top_rows: Int[Tensor, "k d_sae"]
    atom: Int[Tensor, " pairs"]
    sample: Int[Tensor, " pairs"]
    value: Float[Tensor, " pairs"]


def whole_sequences(rows: Rows, samples: int, seed: int = 0) -> Int[Tensor, " n"]:
    """Places in `rows`, in order, of whole random sequences: at most `samples` rows, but one sequence at least."""
    sequences = rows.store.origins.sequences
    tokens = sequences.keep.nonzero().squeeze(1)[rows.numbers]
    sequence = torch.searchsorted(sequences.offsets, tokens, right=True) - 1
    order = torch.randperm(len(sequences.lengths), generator=torch.Generator().manual_seed(seed))
    counts = torch.bincount(sequence, minlength=len(order))[order]
    taken = order[(counts.cumsum(0) <= samples) | (counts.cumsum(0) == counts)]
    return torch.isin(sequence, taken).nonzero().squeeze(1)


@torch.no_grad()
def firing(unit: Unit, rows: Rows, samples: int, contexts: int, batch: int, seed: int = 0) -> Firing:
    """Encodes about `samples` rows of whole sequences. Memory: 20 bytes a firing, and (contexts + batch, d_sae).

    Only positive values count as firing: units with signed codes are browsed by their positive side.
    """
    chosen = whole_sequences(rows, samples, seed)
    values = torch.zeros(contexts, unit.d_sae)
    places = torch.zeros(contexts, unit.d_sae, dtype=torch.int64)
    total = torch.zeros(unit.d_sae, dtype=torch.float64)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    for part in torch.arange(len(chosen)).split(batch):
        codes = unit.encode(rows[chosen[part]]).to_dense().clamp(min=0)
        best = codes.topk(min(contexts, len(codes)), dim=0)
        both, order = torch.cat([values, best.values]).topk(contexts, dim=0)
        values, places = both, torch.cat([places, part[best.indices]]).gather(0, order)
        where, atom = codes.nonzero(as_tuple=True)
        pairs.append((atom, part[where], codes[where, atom]))
        total += codes.double().sum(0)
    atom, sample, value = (torch.cat(column) for column in zip(*pairs, strict=True))
    counts = torch.bincount(atom, minlength=unit.d_sae)
    return Firing(chosen, counts, (total / counts.clamp(min=1)).float(), values, places, atom, sample, value)
