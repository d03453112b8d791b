"""Refits the values of codes by non-negative least squares on the supports that the codes have."""

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.coders.fitting import UnitAtoms, fit_values
from atomlab.theory import AtomicInnerProduct
from atomlab.theory.supports import check_codes, check_vectors


@torch.no_grad()
@no_autocast()
def refit(
    y: Float[Tensor, "samples d_in"],
    dictionary: Float[Tensor, "d_sae d_in"],
    codes: Tensor,
    metric: AtomicInnerProduct | None = None,
) -> Tensor:
    """Gives each vector the code f ≥ 0 on the support of its given code that minimises ‖y − f D‖_S².

    The result's residual is at most that of the given code, if that is non-negative. Where the optimum has the value 0,
    the atom leaves the support.

    Args:
        y: vectors less the bias of the dictionary, x − b, shape `(samples, d_in)`, of any floating dtype.
        dictionary: D, atoms as rows, shape `(d_sae, d_in)`, of any norm; a zero atom gets no value.
        codes: codes of shape `(samples, d_sae)`, CSR or dense; only their supports count.
        metric: S; None means Euclidean.

    Returns:
        f, a CSR tensor of shape `(samples, d_sae)` in the dtype of y, float32 at least, with ascending columns and no
        stored zeros; exact up to rounding, as `nonnegative_least_squares` says.

    Raises:
        ValueError: the vectors, the codes or the metric do not fit the dictionary, or there are entries that are not
            finite.

    Cost: 2·samples·K²·d_in float64 FLOPs, no product with the whole dictionary; in a metric 2·(samples + d_sae)·d_in²
    FLOPs for whitening. Memory: two copies of the dictionary and one of the vectors.
    """
    check_codes(codes, dictionary)
    check_vectors(y, dictionary, codes)
    y = y.to(torch.promote_types(y.dtype, torch.float32))
    atoms = UnitAtoms.of(dictionary, metric, y.dtype)
    return atoms.as_given(fit_values(atoms, atoms.whiten(y), codes))
