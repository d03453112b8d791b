"""Non-negative least squares on many small supports at once, exact up to rounding."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atomlab.autocast import no_autocast

_DEPENDENT = 1e-12  # squared sine of the angle to the other atoms below which an atom is numerically dependent on them
_PATIENCE = 3  # exchanges of all violating indices that may fail to reduce their number


@torch.no_grad()
@no_autocast()
def nonnegative_least_squares(
    grams: Float[Tensor, "samples k k"], correlations: Float[Tensor, "samples k"], mask: Bool[Tensor, "samples k"]
) -> Float[Tensor, "samples k"]:
    """Solves min over f ≥ 0 of ½ fᵀ G f − cᵀ f for each sample, with the unmasked entries of f at 0.

    With G = A Aᵀ and c = A y, for atoms A as rows, this minimises ‖y − f A‖². The solution is the one point with f ≥ 0,
    w = G f − c ≥ 0 and f·w = 0 (Karush–Kuhn–Tucker). Block principal pivoting guesses which values are positive, solves
    for them, and exchanges all indices at which f or w is negative. Where exchanges of all fail to reduce their number
    three times, it exchanges the last one only, which ends after finitely many steps. It starts from all values.

    Atoms are numerically dependent where the squared sine of an angle between one and the span of the others is below
    1e-12. There block pivoting does not apply, and the active-set method of Lawson and Hanson solves the sample: it
    takes in one atom at a time and refuses one that depends on those it has, so that this atom gets 0 and the others
    carry its share. Of the many solutions it gives one; the reconstruction f A is unique. The correlation of a refused
    atom with the residual may stay positive by up to 1e-6 of the residual's norm. A zero atom gets the value 0.

    Args:
        grams: G, shape `(samples, k, k)`, symmetric and positive semidefinite; entries outside the mask do not count.
        correlations: c, shape `(samples, k)`.
        mask: which entries belong to a sample's support, shape `(samples, k)`.

    Returns:
        f, shape `(samples, k)`, float64, exact up to float64 rounding times the condition number of G; 0 outside the
        mask. A sample that a method has not solved after 3·k + 30 steps, which rounding alone can cause, has the last
        f ≥ 0 of the active-set method.

    Cost: one Cholesky decomposition, k³/3 float64 FLOPs, for each sample and step; mostly 2 to 5 steps. For dependent
    atoms about k steps. Memory: four arrays of the size of G.

    Source: Portugal, Júdice and Vicente, Mathematics of Computation 63 (1994); Kim and Park, SIAM Journal on Scientific
    Computing 33 (2011); Lawson and Hanson, Solving Least Squares Problems (1974), chapter 23.
    """
    grams, correlations = grams.double(), correlations.double()
    if not correlations.numel():
        return torch.zeros_like(correlations)
    diagonal = grams.diagonal(dim1=1, dim2=2)
    mask = mask & (diagonal > 0)
    lengths = torch.where(mask, diagonal, 1).sqrt()
    pairs = mask[:, :, None] & mask[:, None, :]
    grams = torch.where(pairs, grams / lengths[:, :, None] / lengths[:, None, :], 0)  # of atoms of unit length
    correlations = torch.where(mask, correlations / lengths, 0)
    values, solved = _block_pivoting(grams, correlations, mask)
    rest = (~solved).nonzero().squeeze(1)
    if len(rest):
        values[rest] = _active_set(grams[rest], correlations[rest], mask[rest])
    return values.clamp(min=0) / lengths


def _tolerance(correlations: Tensor) -> Tensor:
    """Size below which a value or a gradient counts as zero, shape `(samples, 1)`."""
    return correlations.shape[1] * 4 * torch.finfo(torch.float64).eps * correlations.abs().amax(1, keepdim=True)


def solve_on(grams: Tensor, correlations: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Solves G f = c on chosen entries, with f = 0 elsewhere.

    Args:
        grams: G, shape `(samples, k, k)`, of atoms of unit length.
        correlations: c, shape `(samples, k)`.
        chosen: which entries are solved for, shape `(samples, k)`.

    Returns:
        f, shape `(samples, k)`, and for each sample whether its chosen atoms are numerically independent; where they
        are not, f has no meaning.
    """
    pairs = chosen[:, :, None] & chosen[:, None, :]
    system = torch.where(pairs, grams, 0)
    system.diagonal(dim1=1, dim2=2).masked_fill_(~chosen, 1)
    factor, info = torch.linalg.cholesky_ex(system)
    independent = (info == 0) & (factor.diagonal(dim1=1, dim2=2).amin(1) ** 2 > _DEPENDENT)
    values = torch.cholesky_solve(torch.where(chosen, correlations, 0)[:, :, None], factor).squeeze(2)
    return torch.where(chosen, values, 0), independent


def _block_pivoting(grams: Tensor, correlations: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Runs block principal pivoting, and says which samples it solved."""
    samples, k = correlations.shape
    solution, solved = torch.zeros_like(correlations), mask.new_zeros(samples)
    active = torch.arange(samples, device=mask.device)
    positive = mask.clone()
    fewest = torch.full_like(active, k + 1)
    patience = torch.full_like(active, _PATIENCE)
    order = torch.arange(1, k + 1, device=mask.device)
    for _ in range(3 * k + 30):
        if not len(active):
            break
        values, independent = solve_on(grams, correlations, positive)
        gradient = (grams @ values[:, :, None]).squeeze(2) - correlations
        least = -_tolerance(correlations)
        wrong = torch.where(positive, values < least, mask & (gradient < least))
        count = wrong.sum(1)
        done = independent & (count == 0)
        solution[active[done]], solved[active[done]] = values[done], True
        fewer = count < fewest
        patience = torch.where(fewer, _PATIENCE, patience - 1)
        fewest = torch.minimum(fewest, count)
        last = (order * wrong).amax(1, keepdim=True)
        exchanged = torch.where((patience >= 0)[:, None], wrong, wrong & (order == last))
        positive = positive ^ exchanged
        left = independent & (count > 0)
        active, grams, correlations, mask = active[left], grams[left], correlations[left], mask[left]
        positive, fewest, patience = positive[left], fewest[left], patience[left]
    return solution, solved


def _active_set(grams: Tensor, correlations: Tensor, mask: Tensor) -> Tensor:
    """Runs the method of Lawson and Hanson: each step takes in the atom with the largest correlation with the residual,
    or goes towards the solution on the atoms it has until the first value is 0."""
    samples, k = correlations.shape
    solution = torch.zeros_like(correlations)
    active, values = torch.arange(samples, device=mask.device), torch.zeros_like(correlations)
    positive, refused, least = mask.new_zeros(mask.shape), mask.new_zeros(mask.shape), _tolerance(correlations)
    settled = mask.new_ones(samples)  # values are the solution on the positive entries
    for _ in range(6 * k + 60):
        rest = correlations - (grams @ values[:, :, None]).squeeze(2)
        free = mask & ~positive & ~refused
        best, place = torch.where(free, rest, -torch.inf).max(1, keepdim=True)
        done = settled & (best <= least).squeeze(1)
        solution[active] = values
        kept = (~done).nonzero().squeeze(1)
        if not len(kept):
            break
        state = (active, grams, correlations, mask, values, positive, refused, least, settled, place)
        active, grams, correlations, mask, values, positive, refused, least, settled, place = (v[kept] for v in state)
        added = torch.zeros_like(positive).scatter_(1, place, settled[:, None])
        goal, independent = solve_on(grams, correlations, positive | added)
        first = (added & (goal <= 0)).any(1)  # by rounding: an atom that correlates with the residual gets a value
        taken = ~settled | (independent & ~first)
        refused = torch.where(taken[:, None], refused & ~settled[:, None], refused | added)
        positive = positive | (added & taken[:, None])
        down = positive & (goal <= 0) & taken[:, None]
        steps = torch.where(down, values / (values - goal).clamp(min=torch.finfo(goal.dtype).tiny), torch.inf)
        share = steps.amin(1, keepdim=True).clamp(max=1)
        moved = torch.where(down & (steps <= share), 0, values + share * (goal - values))
        values = torch.where(taken[:, None], moved, values).clamp(min=0)
        positive = positive & ~(down & (steps <= share))
        settled = ~taken | ~down.any(1)
    return solution
