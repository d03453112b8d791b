"""Basis pursuit, and level 5 of theory.md 5: is a code what ℓ1 minimisation returns? Solved one sample at a time.

scikit-learn's LARS follows the path of the lasso to its end, which is the minimiser: with 2304 atoms of width 576 and K
= 20 it takes 0.1 s a sample and is right to 1e-14, where HiGHS takes 3 s and is feasible to 1e-7 only. On degenerate
dictionaries (twin atoms) LARS can lose the path. The end then misses x or has a larger ℓ1 norm, and HiGHS decides.
"""

import warnings

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import linprog
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import lars_path
from torch import Tensor

from atomlab.theory.coherence import unit_rows
from atomlab.theory.inner_product import AtomicInnerProduct
from atomlab.theory.supports import check_codes, check_vectors, supports

TOLERANCE = 1e-6  # largest error of a recovered value, relative to the code's largest value
_FEASIBLE = 1e-9  # relative residual of a path that reached its end
_STEPS = 2000
# HiGHS's smallest tolerances: at its default of 1e-7 it confuses atoms that differ by no more than that.
_FINEST = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


@torch.no_grad()
def basis_pursuit(
    x: Float[Tensor, "samples d_in"],
    dictionary: Float[Tensor, "d_sae d_in"],
    metric: AtomicInnerProduct | None = None,
    *,
    nonnegative: bool = True,
) -> Float[Tensor, "samples d_sae"]:
    """Finds the code with the smallest ℓ1 norm that represents x exactly: argmin Σ ‖d_j‖_S |a_j| with Σ a_j d_j = x.

    It is solved in float64. Time: about 2·K·d_in·d_sae FLOPs for each sample if LARS reaches the end of its path, a
    linear programme if not. Memory: two float64 copies of the dictionary and of the codes.

    Args:
        x: vectors, shape `(samples, d_in)`.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        metric: inner product of the norms in the ℓ1 sum; Euclidean if None.
        nonnegative: whether all a_j must be ≥ 0.

    Returns:
        Dense codes, shape `(samples, d_sae)`, in the dtype of x; NaN where x has no such code. A minimiser up to the
        solver's tolerance, and one of several where there are several.

    Raises:
        ValueError: the vectors are not finite or not as wide as the atoms, or `unit_rows` refuses the dictionary.
    """
    check_vectors(x, dictionary)
    white, target = _whitened(dictionary, metric), _whitened(x, metric).numpy(force=True)
    norms, atoms = white.norm(dim=1), _columns(white)
    found = np.zeros((len(target), len(norms)))
    for row, vector in zip(found, target, strict=True):
        row[:] = _path_end(atoms, vector, nonnegative)
        if _misses(atoms, row, vector):
            row[:] = _linear_programme(atoms, vector, nonnegative)
    return (torch.from_numpy(found).to(norms) / norms).to(x.dtype)


@torch.no_grad()
def solved_recovery(
    codes: Tensor,
    dictionary: Float[Tensor, "d_sae d_in"],
    metric: AtomicInnerProduct | None = None,
    *,
    nonnegative: bool = True,
) -> Bool[Tensor, " samples"]:
    """Finds out whether basis pursuit of each code's own reconstruction returns the code (level 5).

    Codes are compared to 1e-6 of their largest value. This is solved, not certified: where there are several
    minimisers, another solver may return another one. Time: that of `basis_pursuit`, without the second solver for a
    code that another code beats. Memory: that of `basis_pursuit`.

    Args:
        codes: codes of shape `(samples, d_sae)`, dense or CSR.
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        metric: inner product of the norms in the ℓ1 sum; Euclidean if None.
        nonnegative: whether the problem is the non-negative one, which needs non-negative codes.

    Returns:
        Whether the code is returned, shape `(samples,)`; False for K = 0.

    Raises:
        ValueError: the codes do not fit the dictionary, have NaN or infinite values, or negative ones if `nonnegative`;
            or `unit_rows` refuses the dictionary.
    """
    check_codes(codes, dictionary)
    chosen = supports(codes)
    if nonnegative and (chosen.values < 0).any():
        raise ValueError(
            f"Non-negative basis pursuit needs non-negative codes, but the smallest value is {chosen.values.min():.3g}, "
            "which is negative: use nonnegative=False."
        )
    white = _whitened(dictionary, metric)
    dense = codes.to_dense() if codes.layout == torch.sparse_csr else codes
    scaled, atoms = (dense.double() * white.norm(dim=1)).numpy(force=True), _columns(white)
    solved = [bool(row.any()) and _returns(atoms, row, nonnegative) for row in scaled]
    return torch.tensor(solved, dtype=torch.bool, device=chosen.mask.device)


def _returns(atoms: np.ndarray, code: np.ndarray, nonnegative: bool) -> bool:
    x = atoms @ code
    end = _path_end(atoms, x, nonnegative)
    if not _same(end, code) and (_misses(atoms, end, x) or np.abs(end).sum() > np.abs(code).sum()):
        end = _linear_programme(atoms, x, nonnegative)
    return _same(end, code)


def _same(found: np.ndarray, code: np.ndarray) -> bool:
    return bool(np.abs(found - code).max() <= TOLERANCE * np.abs(code).max())


def _misses(atoms: np.ndarray, code: np.ndarray, x: np.ndarray) -> bool:
    return not np.linalg.norm(atoms @ code - x) <= _FEASIBLE * np.linalg.norm(x)  # True for NaN


def _path_end(atoms: np.ndarray, x: np.ndarray, nonnegative: bool) -> np.ndarray:
    scale = float(np.linalg.norm(x))
    if scale == 0:
        return np.zeros(atoms.shape[1])
    # Parameter validation takes a quarter of a small path's time.
    with warnings.catch_warnings(), config_context(skip_parameter_validation=True):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the end of the path shows that it was lost
        try:
            path = lars_path(atoms, x / scale, method="lasso", positive=nonnegative, max_iter=_STEPS, return_path=False)
        except ValueError:  # raised where two atoms leave the path at the same step
            return np.full(atoms.shape[1], np.nan)
    return path[2] * scale


def _linear_programme(atoms: np.ndarray, x: np.ndarray, nonnegative: bool) -> np.ndarray:
    scale, n = float(np.linalg.norm(x)), atoms.shape[1]
    columns = atoms if nonnegative else np.hstack([atoms, -atoms])
    costs = np.ones(columns.shape[1])
    for options in (_FINEST, {}):  # at the smallest tolerances rounding may hide every feasible point
        found = linprog(costs, A_eq=columns, b_eq=x / scale, bounds=(0, None), method="highs", options=options)
        if found.x is not None:
            return scale * (found.x if nonnegative else found.x[:n] - found.x[n:])
    return np.full(n, np.nan)


def _columns(white: Tensor) -> np.ndarray:
    return np.asfortranarray(unit_rows(white).T.numpy(force=True))


def _whitened(x: Tensor, metric: AtomicInnerProduct | None) -> Tensor:
    return x.double() if metric is None else metric.whiten(x.double())
