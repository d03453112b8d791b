"""Encodes activations with the coder of one's choice, for notebooks."""

import torch
from jaxtyping import Float
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.coders.matching_pursuit import nonnegative_omp, omp
from atomlab.coders.refit import refit
from atomlab.coders.threshold_pursuit import ThresholdPursuit, threshold_pursuit
from atomlab.sae import ThresholdSAE
from atomlab.sae.ops import encode_csr
from atomlab.theory import AtomicInnerProduct
from atomlab.theory.supports import check_vectors

_TAKES = {  # the options that each coder takes
    "threshold": set(),
    "refit": {"metric"},
    "threshold_pursuit": {"metric", "pursuit"},
    "omp": {"metric", "k"},
    "nonnegative_omp": {"metric", "k"},
}


@torch.no_grad()
@no_autocast()
def encode(
    sae: ThresholdSAE,
    x: Float[Tensor, "samples d_in"],
    coder: str = "threshold",
    *,
    k: int | None = None,
    pursuit: ThresholdPursuit | None = None,
    metric: AtomicInnerProduct | None = None,
) -> Tensor:
    """Encodes activations on the atoms of a TSAE with a coder of choice, so that x ≈ code · W_dec + b_dec.

    Args:
        sae: a TSAE of raw activations.
        x: raw activations, shape `(samples, d_in)`, of any floating dtype.
        coder: `"threshold"`, the TSAE's own one-step code; `"refit"`, its support with the values of non-negative least
            squares; `"threshold_pursuit"`, a pursuit in stages from that support; `"omp"`, orthogonal matching pursuit,
            signed; or `"nonnegative_omp"`, the same with non-negative values.
        k: largest number of atoms in a code of `"omp"` and `"nonnegative_omp"`, which need it.
        pursuit: settings of `"threshold_pursuit"`, which needs them, from `calibrate_threshold_pursuit`.
        metric: S, in whose norm all coders but `"threshold"` approximate x; None means Euclidean.

    Returns:
        Codes, a CSR tensor of shape `(samples, d_sae)` with ascending columns and no stored zeros: in the dtype of the
        TSAE for `"threshold"`, and in that of x, float32 at least, for the others.

    Raises:
        ValueError: the coder is unknown, lacks an option that it needs or gets one that it does not take, or refuses
            its inputs.

    Cost: in products of x with the dictionary, one for `"threshold"` and `"refit"`, one a stage for
    `"threshold_pursuit"` and k for the two others; the rest is small beside these.
    """
    if coder not in _TAKES:
        raise ValueError(f"There is no coder {coder!r}: choose one of {', '.join(_TAKES)}.")
    options = {"k": k, "pursuit": pursuit, "metric": metric}
    given = {name for name, value in options.items() if value is not None}
    if extra := sorted(given - _TAKES[coder]):
        raise ValueError(f"The coder {coder!r} takes no {' or '.join(extra)}: leave it out or choose another coder.")
    if missing := sorted(_TAKES[coder] - given - {"metric"}):
        raise ValueError(f"The coder {coder!r} needs {' and '.join(missing)}: give it.")
    check_vectors(x, sae.W_dec)
    if coder == "threshold":
        return encode_csr(sae, x)
    if pursuit is not None:
        return threshold_pursuit(sae, x, pursuit, metric)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    y = wide - sae.b_dec.to(wide)
    if k is None:
        return refit(y, sae.W_dec, encode_csr(sae, x), metric)
    return (omp if coder == "omp" else nonnegative_omp)(y, sae.W_dec, k, metric)
