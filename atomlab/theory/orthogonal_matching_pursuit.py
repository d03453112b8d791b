"""Sparse codes on a given dictionary by orthogonal matching pursuit (OMP), batched over samples."""

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.theory.coherence import unit_rows
from atomlab.theory.inner_product import AtomicInnerProduct
from atomlab.theory.supports import check_vectors


@torch.no_grad()
@no_autocast()
def orthogonal_matching_pursuit(
    x: Float[Tensor, "samples d_in"],
    dictionary: Float[Tensor, "d_sae d_in"],
    k: int,
    metric: AtomicInnerProduct | None = None,
    *,
    block: int = 2048,
) -> Float[Tensor, "samples d_sae"]:
    """Computes codes of K atoms: each step adds the atom with the largest |⟨residual, d⟩_S| and refits all values.

    The refit is by least squares, so values may be negative; they belong to the dictionary as given, whatever its
    norms. A pursuit stops, with fewer than K nonzero values, where its residual is within a bound of its own rounding
    error: what is left is noise, so a vector that fewer atoms represent exactly has the code of these. An atom that is
    numerically dependent on those taken before gets the value 0. The search is greedy: it need not find the sparsest or
    the closest code.

    Time: 2·samples·K·d_in·d_sae FLOPs. Memory: arrays of shape `(block, d_sae)` and `(block, K, d_in)` beside the
    result.

    Args:
        x: vectors, shape `(samples, d_in)`.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        k: K, the number of steps.
        metric: inner product of the residuals; Euclidean if None.
        block: number of samples that are coded at a time.

    Returns:
        Dense codes, shape `(samples, d_sae)`, computed in the dtype of x (float32 at least).

    Raises:
        ValueError: K is below 1 or above d_sae or d_in, the vectors are not finite or not as wide as the atoms, or
            `unit_rows` refuses the dictionary.
    """
    if not 1 <= k <= min(dictionary.shape):
        raise ValueError(f"A pursuit cannot take K={k} atoms: use 1 to min(d_sae, d_in) = {min(dictionary.shape)}.")
    check_vectors(x, dictionary)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    wide = dictionary.to(torch.promote_types(dictionary.dtype, torch.float32))
    white = wide if metric is None else metric.whiten(wide)
    unit = unit_rows(dictionary, metric)
    target, rounding = _target(x, metric)
    codes = x.new_zeros(len(x), len(unit))
    for rows in torch.arange(len(x), device=x.device).split(block):
        indices, values = _pursue(target[rows], unit, k, rounding[rows])
        codes[rows[:, None], indices] = values / white.norm(dim=1)[indices]
    return codes


def _target(x: Tensor, metric: AtomicInnerProduct | None) -> tuple[Tensor, Tensor]:
    """Gives x in the coordinates of the pursuit, and a bound of what rounding has changed in each row, shape
    `(samples,)`.

    The entries of x are taken to be right to two roundings of u = eps/2 each, as a difference of exact vectors is. A
    product of length d with a matrix that was itself rounded errs by at most (d + 1)·u·|x|·|W| (Higham 2002, section
    3.5).
    """
    u, d = torch.finfo(x.dtype).eps / 2, x.shape[1]
    if metric is None:
        return x, 2 * u * x.norm(dim=1)
    size = (x.abs() @ metric.whitening.abs().to(x)).norm(dim=1)
    return metric.whiten(x), (d + 3) * u * size


def _pursue(target: Tensor, unit: Tensor, k: int, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """Pursues by progressive QR (Gram–Schmidt): `basis` is orthonormal, `triangle` has its coefficients of the chosen
    atoms, and the values solve R a = Qᵀx.

    `rounding`, shape `(samples,)`, bounds the distance of each residual from the exact one, to first order in u =
    eps/2. It starts with that of the target. A step with projection p along q adds (d + 1)·u·‖r‖ for p, an inner
    product of length d; 2·u·‖r‖ for the subtraction; and 2·(d + i + 2)·u·|p| / l for q, which lost digits where the
    atom was nearly dependent on the i atoms before it, so that only a remainder of norm l was left of it.
    """
    samples, d = target.shape
    basis, projections = target.new_zeros(samples, k, d), target.new_zeros(samples, k)
    triangle = torch.eye(k, dtype=target.dtype, device=target.device).repeat(samples, 1, 1)
    indices = target.new_zeros((samples, k), dtype=torch.int64)
    residual, taken = target.clone(), target.new_zeros((samples, len(unit)), dtype=torch.bool)
    tolerance, u = 100 * torch.finfo(target.dtype).eps, torch.finfo(target.dtype).eps / 2
    for i in range(k):
        scores = (residual @ unit.T).abs_().masked_fill_(taken, -1)
        indices[:, i] = best = scores.argmax(1)
        taken.scatter_(1, best[:, None], True)
        atom = unit[best]
        inside = (basis[:, :i] @ atom[:, :, None]).squeeze(2)
        rest = atom - (inside[:, None] @ basis[:, :i]).squeeze(1)
        length, left = rest.norm(dim=1), residual.norm(dim=1)
        usable = (length > tolerance) & (left > rounding)
        basis[:, i] = rest / length.clamp(min=tolerance)[:, None] * usable[:, None]
        triangle[:, :i, i] = inside * usable[:, None]
        triangle[:, i, i] = torch.where(usable, length, torch.ones_like(length))
        projections[:, i] = (basis[:, i] * residual).sum(1)
        residual = residual - projections[:, i, None] * basis[:, i]
        lost = 2 * (d + i + 2) * projections[:, i].abs() / length.clamp(min=tolerance)
        rounding = rounding + u * ((d + 3) * left + lost)
    values = torch.linalg.solve_triangular(triangle, projections[:, :, None], upper=True).squeeze(2)
    stopped = residual.norm(dim=1) <= rounding
    return indices, values.masked_fill_(stopped[:, None] & (values.abs() <= rounding[:, None]), 0)
