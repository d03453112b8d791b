"""Maxima over all atoms, screened in float32 and decided in float64.

The certificates need the largest of d_sae scores for each sample. One product in float32 finds the few atoms that can
be the largest; only these are scored in float64, so the result is that of float64.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.theory.supports import Supports

FLOAT32_ROUNDOFF = 2.0**-24
FLOAT64_ROUNDOFF = 2.0**-53
_CANDIDATES = 8  # for each sample and tile; with more, scoring the whole tile in float64 is faster

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
    """Finds max(0, max over j ∉ Λ of score_j) for each sample without holding all `(samples, n)` scores.

    If float32 scores s̃ err by at most e, the largest score belongs to an atom with s̃ ≥ max s̃ − 2e; these atoms are
    scored again in float64. All scores are computed in float64 where PyTorch may use TF32, which would break the error
    bound. Time: one float32 product over all atoms, and float64 scores of the candidates (a whole tile if it has more
    than 8 candidates a sample). Memory: a few arrays of shape `(samples, tile)` and at most 8 candidates for each
    sample and tile.

    Args:
        n: number of atoms.
        excluded: supports Λ, whose own atoms do not compete.
        error: bound e of |float32 score − score|, shape `(samples,)`, float64.
        estimate: maps (slice of atoms, dtype) to scores of shape `(samples, tile)` computed in that dtype.
        exact: maps (sample numbers, atom numbers), both of shape `(pairs,)`, to float64 scores of shape `(pairs,)`.
        tile: number of atoms that are scored at a time.

    Returns:
        The maxima, shape `(samples,)`, float64; 0 where no atom outside the support has a positive score. They are
        those of float64 arithmetic throughout.
    """
    best, highest = torch.zeros_like(error), torch.zeros_like(error)  # in float64 and in the screen's float32
    # TF32 breaks the bound `error`.
    screen = torch.float32 if torch.get_float32_matmul_precision() == "highest" else torch.float64
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
        rows = (top >= floor).nonzero().squeeze(1)  # fewer from tile to tile, as `highest` rises
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
    """The (sample, atom) pairs of the supports in order of atoms, so that the pairs of a tile are one slice."""

    def __init__(self, chosen: Supports) -> None:
        rows, slots = chosen.mask.nonzero(as_tuple=True)
        self.atoms, order = chosen.indices[rows, slots].sort()
        self.rows = rows[order]

    def leave_out(self, scores: Tensor, columns: slice) -> Tensor:
        """Sets the scores of each sample's own atoms in a tile to −inf, in place, and returns the scores."""
        first, last = torch.searchsorted(self.atoms, self.atoms.new_tensor([columns.start, columns.stop])).tolist()
        flat = self.rows[first:last] * scores.shape[1] + self.atoms[first:last] - columns.start
        scores.view(-1).index_fill_(0, flat, -torch.inf)
        return scores


def _rounded_down(floor: Tensor) -> Tensor:
    """Rounds down to float32, but to a finite number, so that an excluded score of −inf never reaches it."""
    single = floor.float()
    return torch.nextafter(single, single.new_tensor(-torch.inf)).clamp(min=torch.finfo(torch.float32).min)
