"""Codes of at most K atoms by orthogonal matching pursuit (OMP), with signed or with non-negative values."""

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.coders.fitting import UnitAtoms, sparse_code, stacked
from atomlab.coders.nonnegative_least_squares import nonnegative_least_squares, solve_on
from atomlab.theory import AtomicInnerProduct, orthogonal_matching_pursuit
from atomlab.theory.supports import check_vectors


@torch.no_grad()
@no_autocast()
def omp(
    y: Float[Tensor, "samples d_in"],
    dictionary: Float[Tensor, "d_sae d_in"],
    k: int,
    metric: AtomicInnerProduct | None = None,
    *,
    block: int = 1024,
) -> Tensor:
    """Computes codes of K atoms by `atomlab.theory.orthogonal_matching_pursuit`, as CSR; values may be negative.

    Args:
        y: vectors less the bias of the dictionary, x − b, shape `(samples, d_in)`, of any floating dtype.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm but 0.
        k: K, the number of steps.
        metric: S; None means Euclidean.
        block: number of samples that are coded at a time.

    Returns:
        Codes, a CSR tensor of shape `(samples, d_sae)` in the dtype of y, float32 at least, with ascending columns and
        no stored zeros.

    Raises:
        ValueError: `orthogonal_matching_pursuit` refuses K, the vectors or the dictionary.

    Cost: K products of the samples with the dictionary; memory of a few `(block, d_sae)` matrices.
    """
    check_vectors(y, dictionary)
    parts = []
    for part in y.split(block):
        codes = orthogonal_matching_pursuit(part, dictionary, k, metric, block=block)
        rows, columns = codes.nonzero(as_tuple=True)
        parts.append(sparse_code(rows, columns, codes[rows, columns], (len(part), len(dictionary))))
    return stacked(parts)


@torch.no_grad()
@no_autocast()
def nonnegative_omp(
    y: Float[Tensor, "samples d_in"],
    dictionary: Float[Tensor, "d_sae d_in"],
    k: int,
    metric: AtomicInnerProduct | None = None,
    *,
    block: int = 512,
) -> Tensor:
    """Computes non-negative codes of at most K atoms: each step adds the atom with the largest positive correlation
    ⟨residual, d_j⟩_S / ‖d_j‖_S and refits all values by non-negative least squares.

    A pursuit stops where no atom outside its support has a correlation above a bound of its own rounding error. An atom
    that gets the value 0 in a refit stays among those that are refitted and may come back. The search is greedy: it
    need not find the sparsest or the closest code.

    Args:
        y: vectors less the bias of the dictionary, x − b, shape `(samples, d_in)`, of any floating dtype.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm; a zero atom is never taken.
        k: K, the largest number of steps, between 1 and d_sae.
        metric: S; None means Euclidean.
        block: number of samples that are coded at a time.

    Returns:
        Codes, a CSR tensor of shape `(samples, d_sae)` in the dtype of y, float32 at least, with ascending columns and
        no stored zeros.

    Raises:
        ValueError: K is not between 1 and d_sae, or the vectors, the dictionary or the metric do not fit each other or
            are not finite.

    Cost: K products of the samples with the dictionary, and K solutions of non-negative least squares for each sample;
    memory of two `(block, d_sae)` matrices, the float64 atoms of the supports, `(block, K, d_in)`, and a copy of the
    dictionary.

    Source: Bruckstein, Elad and Zibulevsky, IEEE Transactions on Information Theory 54 (2008), section IV.
    """
    if not 1 <= k <= len(dictionary):
        raise ValueError(f"A pursuit cannot take K={k} atoms: use 1 to d_sae = {len(dictionary)}.")
    check_vectors(y, dictionary)
    y = y.to(torch.promote_types(y.dtype, torch.float32))
    atoms = UnitAtoms.of(dictionary, metric, y.dtype)
    parts = [_pursue(atoms, part, k) for part in y.split(block)]
    return atoms.as_given(stacked(parts))


def _pursue(atoms: UnitAtoms, y: Tensor, k: int) -> Tensor:
    """Pursues a block of vectors; the supports, their atoms and their Gram matrices grow by one column a step."""
    (samples, d), unit = y.shape, atoms.rows
    target, size = atoms.whiten(y).double(), _size(atoms, y)
    indices = torch.zeros((samples, k), dtype=torch.int64, device=y.device)
    mask = torch.zeros((samples, k), dtype=torch.bool, device=y.device)
    values, correlations = target.new_zeros(samples, k), target.new_zeros(samples, k)
    grams, gathered = target.new_zeros(samples, k, k), target.new_zeros(samples, k, d)
    residual = target
    for i in range(k):
        scores = residual.to(unit) @ unit.T
        scores.masked_fill_(_members(indices, mask, len(unit)), -torch.inf)
        best, place = scores.max(1)
        grows = best > _rounding(residual, size, values, unit.dtype)
        if not grows.any():
            break
        atom = unit[place].double() * grows[:, None]
        indices[:, i], mask[:, i], gathered[:, i] = place, grows, atom
        grams[:, i, : i + 1] = grams[:, : i + 1, i] = (gathered[:, : i + 1] @ atom[:, :, None]).squeeze(2)
        correlations[:, i] = (atom * target).sum(1)
        seen, rows = slice(i + 1), grows.nonzero().squeeze(1)
        values[rows, seen] = nonnegative_least_squares(
            grams[rows, seen, seen], correlations[rows, seen], mask[rows, seen]
        )
        values[:, seen] = _refined(grams[:, seen, seen], gathered[:, seen], target, values[:, seen])
        residual = target - (values[:, None, seen] @ gathered[:, seen]).squeeze(1)
    rows, slots = (values > 0).nonzero(as_tuple=True)
    return sparse_code(rows, indices[rows, slots], values[rows, slots], (samples, len(unit)))


def _refined(grams: Tensor, gathered: Tensor, target: Tensor, values: Tensor) -> Tensor:
    """Improves values by one step of iterative refinement, so that what is left of a residual is not the error of the
    normal equations, which grows with the condition number of the atoms."""
    residual = target - (values[:, None] @ gathered).squeeze(1)
    step, independent = solve_on(grams, (gathered @ residual[:, :, None]).squeeze(2), values > 0)
    return torch.where(independent[:, None], values + step, values).clamp(min=0)


def _members(indices: Tensor, mask: Tensor, d_sae: int) -> Tensor:
    """Says of which latents each support consists, shape `(samples, d_sae)`."""
    members = torch.zeros((len(indices), d_sae + 1), dtype=torch.bool, device=indices.device)
    return members.scatter_(1, torch.where(mask, indices, d_sae), True)[:, :d_sae]


def _size(atoms: UnitAtoms, y: Tensor) -> Tensor:
    """Bounds the sums of magnitudes that whitening rounds, shape `(samples,)`, float64."""
    if atoms.metric is None:
        return y.norm(dim=1).double()
    return (y.abs().double() @ atoms.metric.whitening.abs()).norm(dim=1)


def _rounding(residual: Tensor, size: Tensor, values: Tensor, dtype: torch.dtype) -> Tensor:
    """Bounds the rounding error of the correlations of a residual, shape `(samples,)`, to first order in u = eps/2.

    The target errs by (d + 3)·u·size, as a difference of exact vectors that a rounded matrix of width d whitens
    (Higham 2002, section 3.5), each unit atom by 2·u of its length, and the product by (d + 1)·u·‖residual‖.
    """
    d, u = residual.shape[1], torch.finfo(dtype).eps / 2
    return u * ((d + 3) * size + 2 * values.sum(1) + (d + 1) * residual.norm(dim=1))
