"""Maxima over all atoms, screened in float32 and decided in float64, so that certificates cost one fast product and
stay correct.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.theory.supports import Supports

FLOAT32_ROUNDOFF = 2.0**-24
FLOAT64_ROUNDOFF = 2.0**-53
_CANDIDATES = 8  # a sample and a tile; beyond it the whole tile in float64 is the faster way

Estimate = Callable[[slice, torch.dtype], Tensor]
Exact = Callable[[Tensor, Tensor], Tensor]


@no_autocast()
def mixed_precision_maximum(
    n: int,
    excluded: Supports,
    error: Float[Tensor, " samples"],
    estimate: Estimate,
    exact: Exact,
    *,
    tile: int,
) -> Float[Tensor, " samples"]:
    """max(0, max over atoms j outside the sample's support of score_j), float64, without holding (samples, n).

    If float32 scores s̃ err by at most e, the maximum is at an atom with s̃ ≥ max s̃ − 2e: these are scored again in
    float64. The result is that of float64 arithmetic throughout. Memory: a few (samples, tile), and at most 8
    candidates a sample and tile.

    Args:
        n: number of atoms.
        excluded: the supports, whose own atoms do not compete.
        error: a bound of |float32 score − score|, one for each sample.
        estimate: (tile of atoms, dtype) to scores (samples, tile) computed in that dtype.
        exact: (rows, atoms) to the float64 scores of these pairs.
        tile: atoms at a time.
    """
    best, highest = torch.zeros_like(error), torch.zeros_like(error)  # in float64, and of the float32 scores
    screen = torch.float32 if torch.get_float32_matmul_precision() == "highest" else torch.float64  # TF32 voids `error`
    own, candidates = _OwnAtoms(excluded), []
    for start in range(0, n, tile):
        columns = slice(start, min(start + tile, n))
        scores = own.leave_out(estimate(columns, screen), columns)
        top = scores.amax(1).double()
        if screen == torch.float64:
            best = torch.maximum(best, top)
            continue
        highest = torch.maximum(highest, top)
        floor = _rounded_down(highest - 2 * error)
        rows = (top >= floor).nonzero().squeeze(1)  # ever fewer from tile to tile
        at, atoms = (scores[rows] >= floor[rows, None]).nonzero(as_tuple=True)
        if len(at) > _CANDIDATES * len(best):
            best = torch.maximum(best, own.leave_out(estimate(columns, torch.float64), columns).amax(1))
        else:
            candidates.append((rows[at], atoms + start, scores[rows[at], atoms]))
    if candidates:
        rows, atoms, scores = (torch.cat(parts) for parts in zip(*candidates, strict=True))
        kept = (scores >= _rounded_down(highest - 2 * error)[rows]).nonzero().squeeze(1)
        best = best.scatter_reduce(0, rows[kept], exact(rows[kept], atoms[kept]), "amax")
    return best


class _OwnAtoms:
    """The supports' (sample, atom) pairs in order of atoms, so that those of a tile are one slice."""

    def __init__(self, chosen: Supports) -> None:
        rows, slots = chosen.mask.nonzero(as_tuple=True)
        self.atoms, order = chosen.indices[rows, slots].sort()
        self.rows = rows[order]

    def leave_out(self, scores: Tensor, columns: slice) -> Tensor:
        """Scores of a tile with −inf where the atom is the sample's own."""
        first, last = torch.searchsorted(self.atoms, self.atoms.new_tensor([columns.start, columns.stop])).tolist()
        flat = self.rows[first:last] * scores.shape[1] + self.atoms[first:last] - columns.start
        scores.view(-1).index_fill_(0, flat, -torch.inf)
        return scores


def _rounded_down(floor: Tensor) -> Tensor:
    """To float32; finite, so that an excluded score (−inf) is never at or above it."""
    single = floor.float()
    return torch.nextafter(single, single.new_tensor(-torch.inf)).clamp(min=torch.finfo(torch.float32).min)
