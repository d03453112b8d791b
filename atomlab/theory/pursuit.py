"""Sparse codes on a given dictionary by orthogonal matching pursuit, batched over samples."""

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.theory.checks import check_vectors
from atomlab.theory.coherence import unit_rows
from atomlab.theory.inner_product import AtomicInnerProduct


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

    The values belong to the dictionary as given, whatever its norms. An atom that is numerically dependent on those
    taken is given value 0 and the sample's pursuit stops there. Time: 2·samples·K·d_in·d_sae; memory: (block, d_sae)
    beside the result. Computed in the dtype of x, float32 at least, and so are the codes.

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
    target = x if metric is None else metric.whiten(x)
    codes = x.new_zeros(len(x), len(unit))
    for rows in torch.arange(len(x), device=x.device).split(block):
        indices, values = _pursue(target[rows], unit, k)
        codes[rows[:, None], indices] = values / white.norm(dim=1)[indices]
    return codes


def _pursue(target: Tensor, unit: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Progressive QR by Gram–Schmidt: `basis` is orthonormal, `triangle` its coefficients of the chosen atoms, so
    values solve R a = Qᵀx.
    """
    samples, d = target.shape
    basis, projections = target.new_zeros(samples, k, d), target.new_zeros(samples, k)
    triangle = torch.eye(k, dtype=target.dtype, device=target.device).repeat(samples, 1, 1)
    indices = target.new_zeros((samples, k), dtype=torch.int64)
    residual, taken = target.clone(), target.new_zeros((samples, len(unit)), dtype=torch.bool)
    tolerance = 100 * torch.finfo(target.dtype).eps
    for i in range(k):
        scores = (residual @ unit.T).abs_().masked_fill_(taken, -1)
        indices[:, i] = best = scores.argmax(1)
        taken.scatter_(1, best[:, None], True)
        atom = unit[best]
        inside = (basis[:, :i] @ atom[:, :, None]).squeeze(2)
        rest = atom - (inside[:, None] @ basis[:, :i]).squeeze(1)
        length = rest.norm(dim=1)
        usable = length > tolerance
        basis[:, i] = rest / length.clamp(min=tolerance)[:, None] * usable[:, None]
        triangle[:, :i, i] = inside * usable[:, None]
        triangle[:, i, i] = torch.where(usable, length, torch.ones_like(length))
        projections[:, i] = (basis[:, i] * residual).sum(1)
        residual = residual - projections[:, i, None] * basis[:, i]
    values = torch.linalg.solve_triangular(triangle, projections[:, :, None], upper=True).squeeze(2)
    return indices, values
