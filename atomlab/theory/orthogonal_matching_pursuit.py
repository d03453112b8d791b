"""Sparse codes on a given dictionary by orthogonal matching pursuit, batched over samples."""

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
    """Codes of K atoms (signed values): each step takes the atom with the largest |⟨residual, d⟩_S|, then refits all
    values by least squares.

    The values belong to the dictionary as given, whatever its norms. A sample's pursuit stops, with fewer than K values
    that are not 0, where its residual is within a bound of its own rounding error (`_pursue`): what is left is noise,
    and a vector that fewer atoms represent exactly has the code of these. An atom that is numerically dependent on those
    taken is given value 0. Time: 2·samples·K·d_in·d_sae; memory: (block, d_sae) beside the result. Computed in the dtype
    of x, float32 at least, and so are the codes.

    Raises:
        ValueError: K below 1 or above d_sae or d_in, or what `unit_rows` refuses; vectors that are not finite or of
            another width.
    """
    if not 1 <= k <= min(dictionary.shape):
        raise ValueError(f"A pursuit of K={k} atoms needs 1 <= K <= min(d_sae, d_in) = {min(dictionary.shape)}.")
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
    """x in the coordinates of the pursuit, and a bound of what rounding has changed of each row, (samples,).

    The entries of x are taken for right to two roundings, u = eps/2 each, as a difference of exact vectors is. A product
    of length d with a matrix that was rounded itself errs by at most (d + 1)·u·|x|·|W| (Higham 2002, section 3.5).
    """
    u, d = torch.finfo(x.dtype).eps / 2, x.shape[1]
    if metric is None:
        return x, 2 * u * x.norm(dim=1)
    size = (x.abs() @ metric.whitening.abs().to(x)).norm(dim=1)
    return metric.whiten(x), (d + 3) * u * size


def _pursue(target: Tensor, unit: Tensor, k: int, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """Progressive QR by Gram–Schmidt: `basis` is orthonormal, `triangle` its coefficients of the chosen atoms, so
    values solve R a = Qᵀx.

    `rounding` (samples,) bounds the distance of each residual from the exact one, to first order in u = eps/2. It begins
    with that of the target. A step with projection p along q adds: of p, an inner product of length d, (d + 1)·u·‖r‖; of
    the subtraction, 2·u·‖r‖; of q, which lost digits where the atom was nearly dependent on the i before it (what was
    left of it has the norm l), 2·(d + i + 2)·u·|p| / l.
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
