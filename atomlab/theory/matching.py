"""Which atom of one dictionary corresponds to which atom of another: the Hungarian matching of cosines."""

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from atomlab.autocast import no_autocast
from atomlab.theory.coherence import unit_rows
from atomlab.theory.inner_product import AtomicInnerProduct

CAME_BACK = 0.7  # a matched cosine above it counts as an atom that another training found again
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


def matched_cosines(
    a: Float[Tensor, "n_a d_in"], b: Float[Tensor, "n_b d_in"], metric: AtomicInnerProduct | None = None
) -> Float[Tensor, " n_a"]:
    """Computes the cosine of each atom with its partner in the best one-to-one matching of two dictionaries.

    Time and memory: those of `match_atoms`.

    Args:
        a: atoms of the first dictionary as rows, shape `(n_a, d_in)`, of any norm.
        b: atoms of the second dictionary as rows, shape `(n_b, d_in)`, of any norm.
        metric: inner product of the cosines; Euclidean if None.

    Returns:
        The cosines, shape `(n_a,)`, float64, in [−1, 1]; 0 for an atom without a partner. The matching is an exact optimum.

    Raises:
        ValueError: a dictionary has more than 20,000 atoms, or is one that `unit_rows` refuses.
    """
    rows, _, cosines = match_atoms(a, b, metric)
    return torch.zeros(len(a), dtype=torch.float64, device=cosines.device).index_copy_(0, rows, cosines.double())


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


@no_autocast()
def subspace_energy(
    a: Float[Tensor, "n_a d_in"],
    b: Float[Tensor, "n_b d_in"],
    metric: AtomicInnerProduct | None = None,
    *,
    nearest: int = 8,
    block: int = 1024,
) -> Float[Tensor, " n_a"]:
    """Computes how much of each atom lies in the span of its nearest atoms of another dictionary: ‖P d‖²_S / ‖d‖²_S.

    P projects, in the metric S, on the span of the atoms of the other dictionary with the largest |cos_S|. An atom that
    does not return in another training may still lie in a subspace that does. Time: 2·n_a·n_b·d_in FLOPs and n_a QR
    factorisations of `(d_in, nearest)`, float64. Memory: `(block, n_b)` cosines and `(block, nearest, d_in)` atoms.

    Args:
        a: atoms whose energy is computed, shape `(n_a, d_in)`, of any norm.
        b: atoms of the other dictionary as rows, shape `(n_b, d_in)`, of any norm.
        metric: S; Euclidean if None.
        nearest: number of atoms that span; all of b where it has fewer.
        block: number of atoms that are handled at a time.

    Returns:
        The energy of each atom, shape `(n_a,)`, float64, between 0 and 1; exact up to rounding.

    Raises:
        ValueError: a dictionary is one that `unit_rows` refuses.
    """
    mine, others = (unit_rows(rows.double(), metric) for rows in (a, b))
    found = []
    for part in mine.split(block):
        close = (part @ others.T).abs().topk(min(nearest, len(others)), dim=1).indices
        basis, triangle = torch.linalg.qr(others[close].mT)
        independent = triangle.diagonal(dim1=1, dim2=2).abs() > 1e-9
        found.append(((part[:, None] @ basis).squeeze(1) * independent).square().sum(1))
    return torch.cat(found).clamp(max=1)
