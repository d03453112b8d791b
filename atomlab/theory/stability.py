"""The stability index q* (theory.md 5): how far apart coherence and sparsity are. It certifies nothing."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atomlab.theory.coherence import CoherenceStatistics, coherence_statistics
from atomlab.theory.inner_product import AtomicInnerProduct


def stability_pairwise(
    dictionary: Float[Tensor, "d_sae d_in"],
    l0_histogram: Int[Tensor, " sizes"],
    metric: AtomicInnerProduct | None = None,
    *,
    statistics: CoherenceStatistics | None = None,
) -> float:
    """Computes q* = sup {q : μ_q < 1/(2K_q − 1)}, with μ_q the q-quantile of |cos(d_i, d_j)| over pairs of atoms.

    Time and memory: those of `coherence_statistics`, if these are not given.

    Args:
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        l0_histogram: number of samples with K = 0, 1, 2, ..., shape `(sizes,)`. K_q is its q-quantile; 0 counts as 1.
        metric: inner product of the cosines; Euclidean if None.
        statistics: coherence statistics of this dictionary and metric; computed if None.

    Returns:
        q* in [0, 1]; 0 if no q satisfies the condition, NaN if there are no samples. Quantiles of |cos| are rounded up
        by at most 1e-5, which may lower q* and never raises it.

    Raises:
        ValueError: whatever `coherence_statistics` refuses.
    """
    statistics = statistics or coherence_statistics(dictionary, metric, k=1)
    edges = torch.arange(1, len(statistics.histogram) + 1, dtype=torch.float64) / len(statistics.histogram)
    return _stability(edges.clamp(max=statistics.coherence), statistics.histogram, l0_histogram)


def stability_per_atom(
    dictionary: Float[Tensor, "d_sae d_in"],
    l0_histogram: Int[Tensor, " sizes"],
    metric: AtomicInnerProduct | None = None,
    *,
    statistics: CoherenceStatistics | None = None,
) -> float:
    """Computes q* = sup {q : μ_q < 1/(2K_q − 1)}, with μ_q the q-quantile of μ_i = max_j |cos(d_i, d_j)| over atoms.

    Time and memory: those of `coherence_statistics`, if these are not given.

    Args:
        dictionary: atoms as rows, shape `(d_sae, d_in)`, of any norm.
        l0_histogram: number of samples with K = 0, 1, 2, ..., shape `(sizes,)`. K_q is its q-quantile; 0 counts as 1.
        metric: inner product of the cosines; Euclidean if None.
        statistics: coherence statistics of this dictionary and metric; computed if None.

    Returns:
        q* in [0, 1], exact; 0 if no q satisfies the condition, NaN if there are no samples.

    Raises:
        ValueError: whatever `coherence_statistics` refuses.
    """
    statistics = statistics or coherence_statistics(dictionary, metric, k=1)
    values = statistics.per_atom.double().cpu().sort().values
    return _stability(values, torch.ones(len(values), dtype=torch.int64), l0_histogram)


def _stability(coherence: Tensor, counts: Tensor, l0_histogram: Tensor) -> float:
    """Finds the supremum over q. Both quantiles rise with q, so the condition holds up to some q and never again after
    it.

    The quantile functions jump at the cumulative shares of the two histograms; between jumps the condition is constant.
    """
    if int(l0_histogram.sum()) == 0:
        return float("nan")
    share_mu, share_k = _shares(counts), _shares(l0_histogram.cpu())
    jumps = torch.cat([share_mu, share_k]).unique()
    middle = (torch.cat([jumps.new_zeros(1), jumps[:-1]]) + jumps) / 2
    mu = coherence[torch.searchsorted(share_mu, middle).clamp(max=len(coherence) - 1)]
    k = torch.searchsorted(share_k, middle).clamp(min=1, max=max(1, len(share_k) - 1)).double()
    holds = mu * (2 * k - 1) < 1
    return 1.0 if holds.all() else float(jumps[int((~holds).int().argmax()) - 1]) if holds[0] else 0.0


def _shares(counts: Tensor) -> Tensor:
    cumulative = counts.cumsum(0)
    return cumulative.double() / cumulative[-1]
