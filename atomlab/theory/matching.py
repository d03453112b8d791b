"""Which atom of one dictionary corresponds to which atom of another: the Hungarian matching of cosines."""

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.theory.coherence import unit_rows
from atomlab.theory.inner_product import AtomicInnerProduct

_LIMIT = 20_000


@no_autocast()
def match_atoms(
    a: Float[Tensor, "n_a d_in"], b: Float[Tensor, "n_b d_in"], metric: AtomicInnerProduct | None = None
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Finds the one-to-one matching of atoms with the largest sum of cosines.

    Cosines keep their sign, since codes are non-negative and an atom is not its negative. Time: O(n³) for n = max(n_a,
    n_b). Memory: the `(n_a, n_b)` cosines.

    Args:
        a: atoms of the first dictionary as rows, shape `(n_a, d_in)`, of any norm.
        b: atoms of the second dictionary as rows, shape `(n_b, d_in)`, of any norm.
        metric: inner product of the cosines; Euclidean if None.

    Returns:
        Indices into a, in rising order, and indices into b, int64, and the cosines of these pairs, each of shape
        `(min(n_a, n_b),)`. The matching is an exact optimum.

    Raises:
        ValueError: a dictionary has more than 20,000 atoms, or is one that `unit_rows` refuses.
    """
    if max(len(a), len(b)) > _LIMIT:
        raise ValueError(
            f"Matching {len(a)} with {len(b)} atoms is beyond {_LIMIT}, where the exact assignment "
            "takes hours: match subsets."
        )
    cosines = unit_rows(a, metric) @ unit_rows(b, metric).T
    found = linear_sum_assignment(cosines.numpy(force=True), maximize=True)
    rows, columns = (torch.from_numpy(numbers).to(cosines.device) for numbers in found)
    return rows, columns, cosines[rows, columns]


def mean_matched_cosine(
    a: Float[Tensor, "n_a d_in"], b: Float[Tensor, "n_b d_in"], metric: AtomicInnerProduct | None = None
) -> float:
    """Computes the mean cosine of the best one-to-one matching of two dictionaries.

    It is 1 if every atom of the smaller dictionary is, up to its norm, an atom of the larger one. Time and memory:
    those of `match_atoms`.

    Args:
        a: atoms of the first dictionary as rows, shape `(n_a, d_in)`, of any norm.
        b: atoms of the second dictionary as rows, shape `(n_b, d_in)`, of any norm.
        metric: inner product of the cosines; Euclidean if None.

    Returns:
        The mean over min(n_a, n_b) pairs, in [−1, 1]; exact.

    Raises:
        ValueError: a dictionary has more than 20,000 atoms, or is one that `unit_rows` refuses.
    """
    return float(match_atoms(a, b, metric)[2].mean())
