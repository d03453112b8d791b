"""Which atoms of one dictionary are which of another: the Hungarian matching of cosines."""

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
    """The one-to-one matching of min(n_a, n_b) atoms with the largest sum of cosines: indices in a, in b, and the
    cosines. Exact; signed, since codes are non-negative. Time O(n³), memory n_a·n_b.

    Raises:
        ValueError: more than 20,000 atoms.
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
    """Mean of `match_atoms`' cosines: 1 if the smaller dictionary is part of the larger one. Time and memory: its."""
    return float(match_atoms(a, b, metric)[2].mean())
