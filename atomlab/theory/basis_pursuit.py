"""Level 5 (theory.md 5): is the code what ℓ1 minimisation really returns? Solved sample by sample.

scikit-learn's LARS follows the lasso's path to its end, which is the minimiser: on 2304 x 576 with K = 20 it takes 0.1
s a sample and is right to 1e-14, where HiGHS takes 3 s and is feasible to 1e-7 only. LARS loses the path on degenerate
dictionaries (twins), and shows it: its end then misses x or has a larger ℓ1 norm. There HiGHS decides.
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

TOLERANCE = 1e-6  # of recovered values, relative to the code's largest
_FEASIBLE = 1e-9  # relative residual of a path that reached its end
_STEPS = 2000
# HiGHS's smallest tolerances: at its usual 1e-7 it cannot tell atoms apart that differ by as much.
_FINEST = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


@torch.no_grad()
def basis_pursuit(
    x: Float[Tensor, "samples d_in"],
    dictionary: Float[Tensor, "d_sae d_in"],
    metric: AtomicInnerProduct | None = None,
    *,
    nonnegative: bool = True,
) -> Float[Tensor, "samples d_sae"]:
    """argmin Σ ‖d_j‖_S |a_j| with Σ a_j d_j = x (and a ≥ 0); NaN where x has no such code. Solved in float64.

    Time: about 2·K·d_in·d_sae FLOPs a sample, one by one, if LARS reaches the end; a linear programme if not. Memory: two
    float64 copies of the dictionary, and of the codes.

    Args:
        x: vectors.
        dictionary: atoms as rows, any norm.
        metric: of the norms in the ℓ1 sum; Euclidean if None.
        nonnegative: a ≥ 0.
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
    """Level 5: basis pursuit of the code's own reconstruction returns the code, to 1e-6 of its largest value; False for
    K = 0. Solved, not certified: another solver could return another minimiser where there are several.

    Time and memory: see `basis_pursuit`; a code that some other one beats needs no second solver.

    Args:
        codes: (samples, d_sae), dense or CSR.
        dictionary: atoms as rows, any norm.
        metric: of the norms in the ℓ1 sum; Euclidean if None.
        nonnegative: the one-sided problem; needs non-negative codes.

    Raises:
        ValueError: negative codes with nonnegative.
    """
    check_codes(codes, dictionary)
    chosen = supports(codes)
    if nonnegative and (chosen.values < 0).any():
        raise ValueError("Non-negative basis pursuit needs non-negative codes; these have negative values.")
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
    return not np.linalg.norm(atoms @ code - x) <= _FEASIBLE * np.linalg.norm(x)  # NaN misses too


def _path_end(atoms: np.ndarray, x: np.ndarray, nonnegative: bool) -> np.ndarray:
    scale = float(np.linalg.norm(x))
    if scale == 0:
        return np.zeros(atoms.shape[1])
    with warnings.catch_warnings(), config_context(skip_parameter_validation=True):  # a quarter of a small path's time
        warnings.simplefilter("ignore", ConvergenceWarning)  # a lost path is found by its end
        try:
            path = lars_path(atoms, x / scale, method="lasso", positive=nonnegative, max_iter=_STEPS, return_path=False)
        except ValueError:  # scikit-learn's own, where two atoms leave the path at the same step
            return np.full(atoms.shape[1], np.nan)
    return path[2] * scale


def _linear_programme(atoms: np.ndarray, x: np.ndarray, nonnegative: bool) -> np.ndarray:
    scale, n = float(np.linalg.norm(x)), atoms.shape[1]
    columns = atoms if nonnegative else np.hstack([atoms, -atoms])
    costs = np.ones(columns.shape[1])
    for options in (_FINEST, {}):  # where the finest finds no feasible point, rounding may be the reason
        found = linprog(costs, A_eq=columns, b_eq=x / scale, bounds=(0, None), method="highs", options=options)
        if found.x is not None:
            return scale * (found.x if nonnegative else found.x[:n] - found.x[n:])
    return np.full(n, np.nan)


def _columns(white: Tensor) -> np.ndarray:
    return np.asfortranarray(unit_rows(white).T.numpy(force=True))


def _whitened(x: Tensor, metric: AtomicInnerProduct | None) -> Tensor:
    return x.double() if metric is None else metric.whiten(x.double())
